"""The passes in order, each with its reason. `portable` gives the canonical form, `machine` adds what one target needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.errors import GraphcError, UnsupportedError, VerifyError
from graphc.ir.graph import Graph
from graphc.ir.verify import accounted, verify
from graphc.knobs import knob
from graphc.passes import (
    algorithm,
    canonicalize,
    capture_constants,
    compress_weights,
    cse,
    dce,
    decompose,
    fold_affine,
    fold_constants,
    fuse,
    fuse_depthwise,
    hoist_products,
    layout,
    look_up_rows,
    order_updates,
    recompute,
    repeat_cheap,
    scale_weights,
    trim_loops,
    widen_half,
)
from graphc.passes.base import Context, Pass

VERIFY = knob("GRAPHC_VERIFY", bool, False, "check the invariants of the graph after every pass")
Observer = Callable[[Pass, Graph, int], None]

PORTABLE: tuple[Pass, ...] = (
    Pass("fold-constants", "shape arithmetic disappears before anything looks at the graph", fold_constants.run),
    Pass("capture-constants", "a loop that holds its constants folds, packs and fuses with them as any graph", capture_constants.run),
    Pass("canonicalize", "one way to write each thing, so that later rules match", canonicalize.run),
    Pass("decompose", "ops that are defined by simpler ops", decompose.run),
    Pass("widen-half", "float16 is computed in float32; before folding, so that constants are widened once", widen_half.run),
    Pass("refold-constants", "decomposition leaves constant weights to flip, transpose and reshape", fold_constants.run),
    Pass("recapture-constants", "what has become constant by now", capture_constants.run),
    Pass("fold-batchnorm", "scales and shifts move into the weights of convolutions before common nodes are merged", fold_affine.run),
    Pass("recanonicalize", "what folding left: identities, chains of reshapes", canonicalize.run),
    Pass("trim-loops", "what a loop carries and stacks for nobody, before products are looked for", trim_loops.run),
    Pass("hoist-products", "while a loop's products are nodes of their own, and before equal ones are merged", hoist_products.run),
    Pass("look-up-rows", "after products have left their loops, and before equal nodes are merged", look_up_rows.run),
    Pass("eliminate-common", "equal nodes once", cse.run),
    Pass("eliminate-dead", "nothing that no output needs", dce.run),
)
MACHINE: tuple[Pass, ...] = (
    Pass("recompute", "before fusion, so that clones are fused with what uses them; training only", recompute.run),
    Pass("scale-weights", "before fusion, which would make the product a kernel with a map of its own", scale_weights.run),
    Pass("repeat-cheap", "before fusion, which takes what has one reader into that reader's loops", repeat_cheap.run),
    Pass("fuse-epilogue", "first of the fusions, because an operation in registers is free", fuse.fuse_epilogue),
    Pass("fuse-pointwise", "what no convolution took joins into loops", fuse.fuse_pointwise),
    Pass("choose-algorithm", "before layouts, because whole tiles are read from the halo", algorithm.run),
    Pass("fuse-depthwise", "after the algorithms, because only a direct sum hands its rows on", fuse_depthwise.run),
    Pass("compress-weights", "only where the caller asks for it: dense layers read bf16 or int8", compress_weights.run),
    Pass("choose-layout", "layouts belong to the values that kernels store", layout.run),
    Pass("order-updates", "last: all kernels are known; training only", order_updates.run),
)
ALL: tuple[Pass, ...] = PORTABLE + MACHINE


def run_passes(graph: Graph, passes: Sequence[Pass], context: Context, observe: Observer | None = None) -> Graph:
    """Run passes in place; an error names the pass and those before it."""
    done: list[str] = []
    for step in passes:
        before = accounted(graph) if VERIFY.get() else set()
        try:
            count = _run(step, graph, context)
            if VERIFY.get():
                verify(graph)
                _check_origins(graph, before)
        except GraphcError as error:
            if isinstance(error, VerifyError):
                error.where = f"after pass {step.name}: {error.where}"
            raise
        except Exception as error:
            error.add_note(f"in pass {step.name}, after {', '.join(done) or 'none'}") if hasattr(error, "add_note") else None
            raise
        done.append(step.name)
        if observe:
            observe(step, graph, count)
    return graph


def _run(step: Pass, graph: Graph, context: Context) -> int:
    """On the graph, then on the sub-graphs that its nodes have by then."""
    count = step.run(graph, context)
    return count + sum(_run(step, body, context) for node in list(graph.nodes) for body in node.op.bodies())


def _check_origins(graph: Graph, before: set[str]) -> None:
    lost = before - accounted(graph)
    if lost:
        raise VerifyError(f"the original nodes {', '.join(sorted(map(repr, lost)))} are lost", where=graph.name)


def until(name: str) -> tuple[Pass, ...]:
    """The passes up to and including one of them."""
    names = [step.name for step in ALL]
    if name not in names:
        raise UnsupportedError(f"no pass is called {name!r}", hint=f"one of {', '.join(names)}")
    return ALL[: names.index(name) + 1]
