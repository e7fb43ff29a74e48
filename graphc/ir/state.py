"""State in memory: the arrays that a program updates in place, aligned and with slack, shared by all programs of one owner."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import InputError, ShapeError, TypeMismatchError
from graphc.files import differences, read_tensors, write_tensors
from graphc.ir.graph import Array, Graph, Kind
from graphc.ir.parts import Parts, names_in
from graphc.types.shape import symbols_of

ALIGN = 64
SLACK = 256  # bytes behind each array that a vector load may touch


def aligned(array: Array) -> Array:
    """A C-contiguous copy at an aligned address, with zeroed slack behind it."""
    memory = np.zeros(array.nbytes + SLACK + ALIGN, np.uint8)
    start = -int(memory.ctypes.data) % ALIGN
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def own_state(graph: Graph, store: MutableMapping[str, Array], apart: Mapping[str, Array] | None = None) -> None:
    """The graph's state lives in `store` from now on: arrays that are there already are kept, others start as the graph says.

    apart: memory of states that do not live in the store.
    """
    for name, value in graph.states.items():
        assert value.data is not None
        if apart is not None and name in apart:
            value.data = apart[name]
            continue
        if name not in store:
            store[name] = aligned(value.data)
        value.data = store[name]


class States(MutableMapping[str, Array]):
    """The state of one owner by name. Reading gives a copy; assigning checks dtype and shape and writes in place (else InputError).

    `lock` is held by whoever runs a program that updates the state. The graph's state lives here from now on.
    """

    def __init__(self, graph: Graph) -> None:
        self.lock = threading.RLock()
        self._initial = {name: np.array(value.data) for name, value in graph.states.items()}
        self._memory: dict[str, Array] = {}
        own_state(graph, self._memory)

    def reset(self) -> None:
        """The initial values."""
        with self.lock:
            self._write(self._initial)

    def save(self, path: str | os.PathLike[str]) -> None:
        """A safetensors file, written whole or not at all. Raises ResourceError where it cannot be written."""
        with self.lock:
            arrays = dict(self)
        write_tensors(Path(path), arrays, {})

    def load(self, path: str | os.PathLike[str]) -> None:
        """What `save` wrote. Raises InputError, before anything is changed, for a damaged file, or other names, shapes or dtypes."""
        arrays, _ = read_tensors(path, "a state")
        wrong = differences(arrays, self._memory)
        if wrong:
            raise InputError(f"does not fit the state of this model: {wrong}", where=str(path), hint="the model that saved it")
        with self.lock:
            self._write(arrays)

    def _write(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            self._memory[name][...] = array

    def __getitem__(self, name: str) -> Array:
        with self.lock:
            return self._memory[name].copy()

    def __setitem__(self, name: str, array: Any) -> None:
        memory = self._memory.get(name)
        if memory is None:
            raise InputError(f"the model has no state {name!r}", hint=f"one of {', '.join(self._memory) or 'none'}")
        given = np.asarray(array)
        if given.shape != memory.shape or given.dtype != memory.dtype:
            raise InputError(f"state {name!r} is {memory.dtype}{list(memory.shape)}, got {given.dtype}{list(given.shape)}")
        with self.lock:
            memory[...] = given

    def __delitem__(self, name: str) -> None:
        raise InputError(f"state {name!r} cannot be deleted", hint="reset_state() gives it its initial value")

    def __iter__(self) -> Iterator[str]:
        return iter(self._memory)

    def __len__(self) -> int:
        return len(self._memory)

    def __repr__(self) -> str:
        return f"<state: {', '.join(f'{name} {array.dtype}{list(array.shape)}' for name, array in self._memory.items()) or 'none'}>"


def keep_state(graph: Graph, pairs: Mapping[str, str]) -> None:
    """Inputs become state, 0 at first, whose value after a run is that of an output: name of the input -> name of the output.

    They are neither given nor returned any more. Raises InputError for a name that is no input or output, ShapeError for a symbolic or
    another shape, TypeMismatchError for another dtype.
    """
    if not isinstance(pairs, Mapping):
        raise InputError(f"state is a {type(pairs).__name__}", hint='a mapping of inputs to outputs: state={"h_in": "h_out"}')
    inputs = {value.name: value for value in graph.inputs}
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    for name, source in pairs.items():
        _check_whole("input", graph.takes, name)
        _check_whole("output", graph.gives, source)
        if name not in inputs:
            raise InputError(f"the model has no input {name!r} to keep as state", hint=f"one of {', '.join(inputs)}")
        if source not in outputs:
            raise InputError(f"the model has no output {source!r} for the state {name!r}", hint=f"one of {', '.join(outputs)}")
        value, update = inputs[name], outputs[source]
        if symbols_of(value.type.shape):
            symbol = min(symbols_of(value.type.shape))
            reason = f"the state {name!r} is {value.type}: its size must be known"
            raise ShapeError(reason, hint=f"compile(..., dims={{{symbol!r}: 1}})")
        if value.type.dtype != update.type.dtype:
            raise TypeMismatchError(f"the state {name!r} is {value.type}, the output {source!r} is {update.type}")
        if value.type != update.type:
            raise ShapeError(f"the state {name!r} is {value.type}, the output {source!r} is {update.type}", hint="the same shape")
        value.kind = Kind.STATE
        value.data = np.zeros(value.type.static_shape, value.type.dtype.numpy)
        graph.updates[value] = update
    graph.inputs = [value for value in graph.inputs if value.name not in pairs]
    graph.takes = {name: part for name, part in graph.takes.items() if name not in pairs}
    graph.set_outputs({name: value for name, value in outputs.items() if name not in pairs.values()})


def _check_whole(what: str, parts: Mapping[str, Parts], name: str) -> None:
    """An InputError for a list, and for a tensor that is part of one."""
    if name in parts and not isinstance(parts[name], str):
        raise InputError(f"the {what} {name!r} is no tensor, and only tensors are kept as state", hint="an input that is one tensor")
    if name not in parts and name in names_in(parts):
        raise InputError(f"the {what} {name!r} is an element of a list, and only tensors by themselves are kept as state")
