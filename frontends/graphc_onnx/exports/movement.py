"""Ops that move elements. Symbolic sizes are computed in the exported graph from the shapes of its inputs."""

from __future__ import annotations

from typing import Any

from graphc.ir.graph import Node
from graphc.types.shape import DimLike
from graphc_onnx.emitter import Emitter, exports

_BEFORE_ALL = -(1 << 62)  # a slice's end that lies before the first element


@exports("shape")
def shape(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Shape", *emitter.inputs(node))


@exports("reshape")
def reshape(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Reshape", emitter.name(node.inputs[0]), emitter.dims(op.shape), allowzero=1 if 0 in op.shape else None)


@exports("transpose")
def transpose(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Transpose", *emitter.inputs(node), perm=op.perm or None)


@exports("expand")
def expand(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Expand", emitter.name(node.inputs[0]), emitter.dims(op.shape))


@exports("slice")
def slice_(emitter: Emitter, node: Node, op: Any) -> None:
    """Only the axes that are cut are named."""
    starts: list[DimLike] = []
    ends: list[DimLike] = []
    axes: list[int] = []
    steps: list[int] = []
    for axis, (start, step, count, size) in enumerate(zip(op.starts, op.steps, op.shape, node.inputs[0].type.shape, strict=True)):
        if start == 0 and step == 1 and count == size:
            continue
        end = start + step * count
        if step < 0 and (not isinstance(end, int) or end < 0):
            end = _BEFORE_ALL if isinstance(count, int) and count else start + step * count
        starts, ends, axes, steps = [*starts, start], [*ends, end if count != 0 else start], [*axes, axis], [*steps, step]
    if not axes:
        emitter.result("Identity", *emitter.inputs(node))
        return
    bounds = (emitter.dims(starts), emitter.dims(ends), emitter.ints(axes), emitter.ints(steps))
    emitter.result("Slice", emitter.name(node.inputs[0]), *bounds)


@exports("concat")
def concat(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Concat", *emitter.inputs(node), axis=op.axis)


@exports("pad")
def pad(emitter: Emitter, node: Node, op: Any) -> None:
    x = node.inputs[0]
    pads = emitter.ints([*op.before, *op.after])
    fill: list[str] = []
    if op.mode == "constant":
        fill = [
            emitter.temp("Reshape", emitter.name(node.inputs[1]), emitter.ints([])) if len(node.inputs) == 2 else emitter.like(op.value, x)
        ]
    emitter.result("Pad", emitter.name(x), pads, *fill, mode=op.mode)


@exports("tile")
def tile(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Tile", emitter.name(node.inputs[0]), emitter.ints(op.repeats))


@exports("dilate")
def dilate(emitter: Emitter, node: Node, op: Any) -> None:
    """Per axis: a new axis behind it, padded to the factor, merged, and the zeros behind the last element cut off."""
    x = node.inputs[0]
    name, dims = emitter.name(x), list(x.type.shape)
    rank = len(dims)
    for axis, factor in enumerate(op.factors):
        if factor == 1:
            continue
        split = emitter.temp("Unsqueeze", name, emitter.ints([axis + 1]))
        pads = [0] * (2 * rank + 2)
        pads[rank + 1 + axis + 1] = factor - 1
        padded = emitter.temp("Pad", split, emitter.ints(pads), emitter.like(0, x))
        merged = emitter.temp("Reshape", padded, emitter.dims([*dims[:axis], dims[axis] * factor, *dims[axis + 1 :]]), allowzero=1)
        dims[axis] = node.output.type.shape[axis]
        name = emitter.temp("Slice", merged, emitter.ints([0]), emitter.dims([dims[axis]]), emitter.ints([axis]))
    emitter.result("Identity", name)
