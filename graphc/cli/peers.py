"""The engines that bench and verify compare with, each with the same number of threads. They run the ONNX file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from graphc.errors import BackendError, GraphcError, UnsupportedError

if TYPE_CHECKING:
    from graphc.ir.graph import Array

Feeds = Mapping[str, "Array"]


class Engine(Protocol):
    """Something that runs one model on inputs of fixed shapes."""

    version: str

    def prepare(self, feeds: Feeds) -> Callable[[], Any]:
        """A call that runs the model on these inputs and does nothing else."""
        ...

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name."""
        ...


class Graphc:
    """The program under test."""

    def __init__(self, executable: Any) -> None:
        from graphc import __version__

        self.version = __version__
        self._executable = executable

    def prepare(self, feeds: Feeds) -> Callable[[], Any]:
        run = self._executable.run
        return lambda: run(feeds)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        made: dict[str, Array] = self._executable.run(feeds)
        return made


class OnnxRuntime:
    """ONNX Runtime's CPU provider with all graph optimisations."""

    def __init__(self, model: str, feeds: Feeds, threads: int) -> None:
        engine = _module("onnxruntime")
        self.version = str(engine.__version__)
        options = engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with _Refusing("onnxruntime"):
            self._session = engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        taken = {entry.name for entry in self._session.get_inputs()}
        if set(feeds) != taken:
            raise UnsupportedError(f"onnxruntime wants the inputs {', '.join(sorted(taken))}", hint="leave onnxruntime out")
        self._names = [entry.name for entry in self._session.get_outputs()]

    def prepare(self, feeds: Feeds) -> Callable[[], Any]:
        run, names, given = self._session.run, self._names, dict(feeds)
        return lambda: run(names, given)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        with _Refusing("onnxruntime"):
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))


class OpenVino:
    """OpenVINO's CPU plugin in float32, set for latency."""

    def __init__(self, model: str, feeds: Feeds, threads: int) -> None:
        engine = _module("openvino")
        self.version = str(engine.__version__).split("-")[0]
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        with _Refusing("openvino"):
            core = engine.Core()
            read = core.read_model(model)
            read.reshape({name: list(array.shape) for name, array in feeds.items()})
            self._compiled = core.compile_model(read, "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def prepare(self, feeds: Feeds) -> Callable[[], Any]:
        request, given = self._request, dict(feeds)
        return lambda: request.infer(given, share_inputs=True, share_outputs=True)  # no copies that the others do not make

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        import numpy as np

        with _Refusing("openvino"):
            found = self._request.infer(dict(feeds))
        return {name: np.array(array) for port, array in found.items() for name in port.get_names()}


class Torch:
    """PyTorch in eager mode: the graph, node by node, with torch's own functions."""

    def __init__(self, graph: Any, threads: int) -> None:
        engine = _module("torch")
        from graphc.cli.torch_graph import TorchGraph

        self.version = str(engine.__version__)
        self._torch = engine
        self._threads = threads
        self._graph = TorchGraph(graph)

    def prepare(self, feeds: Feeds) -> Callable[[], Any]:
        given = self._graph.tensors(feeds)
        self._torch.set_num_threads(self._threads)
        return lambda: self._graph.run(given)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        with _Refusing("torch"):
            return {name: tensor.numpy() for name, tensor in self._graph.run(self._graph.tensors(feeds)).items()}


ONNX_ENGINES: Mapping[str, Callable[[str, Feeds, int], Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def require(names: Sequence[str]) -> None:
    """A BackendError that names every engine that is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BackendError(f"not installed: {', '.join(missing)}", hint=f"pip install {' '.join(missing)}")


def _module(name: str) -> Any:
    require([name])
    return import_module(name)


class _Refusing:
    """Whatever an engine raises becomes a BackendError that names it."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, GraphcError):
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackendError(f"{self._engine} cannot run this model: {first}", hint=f"leave {self._engine} out") from error
