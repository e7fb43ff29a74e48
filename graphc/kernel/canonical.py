"""The canonical form of a kernel spec, and its text: the key under which compiled code is found.

Two specs that differ only in the names of loop variables, or in how an offset was put together, get the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from graphc.kernel.expr import Expr, index, rebuild, substitute, to_text, walk
from graphc.kernel.index import Simplifier
from graphc.kernel.recurrent import Cell, RecurrentGradSpec, RecurrentSpec
from graphc.kernel.sort import SortSpec
from graphc.kernel.spec import (
    ChainBands,
    ConvChain,
    ConvSpec,
    Epilogue,
    KernelSpec,
    MatmulPanels,
    MatmulSpec,
    Nest,
    NestSpec,
    Operand,
    PackSpec,
    StoreAt,
    UpdateSpec,
    WeightGradientSpec,
    WinogradConv,
    WinogradGradient,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)

SpecT = TypeVar("SpecT", bound=KernelSpec)


def canonical(spec: SpecT) -> SpecT:
    """The same kernel with loop variables renamed in the order of traversal and all index arithmetic simplified."""
    if isinstance(spec, NestSpec):
        return replace(spec, nests=tuple(_nest(nest) for nest in spec.nests))
    if isinstance(spec, UpdateSpec):
        nest = _nest(Nest((*spec.axes, spec.step), (spec.store,)))
        return replace(spec, axes=nest.axes[:-1], step=nest.axes[-1], store=nest.stores[0])
    if isinstance(spec, (WinogradConv, WinogradOutput)):
        return replace(spec, conv=canonical(spec.conv))
    if isinstance(spec, (ConvSpec, MatmulSpec)):
        return replace(spec, epilogue=_epilogue(spec.epilogue))
    if isinstance(spec, MatmulPanels):
        return replace(spec, product=canonical(spec.product))
    if isinstance(spec, ConvChain):
        return replace(spec, first=canonical(spec.first), second=canonical(spec.second))
    if isinstance(spec, ChainBands):
        return replace(spec, chain=canonical(spec.chain))
    if isinstance(spec, PackSpec):
        axes = tuple(index(f"i{k}", axis.extent) for k, axis in enumerate(spec.index))
        value = _expr(spec.value, dict(zip(spec.index, axes, strict=True)), Simplifier())
        return replace(spec, conv=canonical(spec.conv), index=axes, value=value)
    return spec


@lru_cache(maxsize=1024)
def _nest(nest: Nest) -> Nest:
    axes = tuple(index(f"i{k}", axis.extent) for k, axis in enumerate(nest.axes))
    names = dict(zip(nest.axes, axes, strict=True))
    simplifier = Simplifier()
    stores = tuple(
        StoreAt(store.slot, _expr(store.offset, names, simplifier), _expr(store.value, names, simplifier)) for store in nest.stores
    )
    return Nest(axes, stores)


@lru_cache(maxsize=1024)
def _epilogue(epilogue: Epilogue) -> Epilogue:
    axes = tuple(index(f"i{k}", axis.extent) for k, axis in enumerate(epilogue.index))
    return replace(epilogue, index=axes, value=_expr(epilogue.value, dict(zip(epilogue.index, axes, strict=True)), Simplifier()))


def _expr(expr: Expr, axes: Mapping[Expr, Expr], simplifier: Simplifier) -> Expr:
    apart = {node: index(f"~{node.attr[0]}", node.extent) for node in walk(expr) if node.fn == "index"}
    named = substitute(expr, apart | dict(axes))
    return rename_reductions(simplifier.simplify(rename_reductions(named)))


def rename_reductions(expr: Expr) -> Expr:
    """Bound variables named by the height of their reduction, so that equal reductions are one node (and are computed once)."""
    if not any(node.fn == "reduce" for node in walk(expr)):
        return expr
    new: dict[Expr, Expr] = {}
    height: dict[Expr, int] = {}
    for node in walk(expr):
        args = tuple(new[child] for child in node.args)
        made = node if all(a is b for a, b in zip(args, node.args, strict=True)) else rebuild(node, args)
        high = max((height[child] for child in args), default=0)
        if made.fn == "reduce":
            high += 1
            names = {axis: index(f"r{high}_{k}", axis.extent) for k, axis in enumerate(made.args[1:])}
            made = substitute(made, {old: name for old, name in names.items() if old is not name})
        new[node] = made
        height[made] = max(high, height.get(made, 0))
    return new[expr]


def spec_text(spec: KernelSpec) -> str:
    """Readable text that says all of a spec; equal for equal kernels once they are `canonical`."""
    lines = [spec.family, *(_operand_text(operand) for operand in spec.operands)]
    match spec:
        case NestSpec():
            lines.append(f"inputs {len(spec.inputs)}")
            for nest in spec.nests:
                lines.append("for " + _list(nest.axes))
                lines.extend(f"  [{store.slot}][{to_text(store.offset)}] = {to_text(store.value)}" for store in nest.stores)
        case UpdateSpec():
            lines.append(f"for {_list(spec.axes)}, then in order {_list([spec.step])}: {spec.combine}")
            lines.append(f"  [{spec.store.slot}][{to_text(spec.store.offset)}] = {to_text(spec.store.value)}")
        case ConvSpec():
            lines.append(f"stride {spec.stride} dilation {spec.dilation} pad {spec.pad} groups {spec.groups}")
            lines.append(_epilogue_text(spec.epilogue))
        case MatmulSpec():
            lines.append(f"{spec.dtype} batch {spec.batch} m {spec.m} n {spec.n} k {spec.k} packed {spec.packed}")
            storage = f" weights {spec.storage}" if spec.storage else ""
            lines.append(f"strides {spec.a_strides} {spec.b_strides} {spec.c_strides}{storage}")
            lines.append(_epilogue_text(spec.epilogue))
        case MatmulPanels():
            lines += [f"panels of {spec.rows} rows {spec.columns} columns {spec.steps} steps of", spec_text(spec.product)]
        case WeightGradientSpec():
            lines.append(f"kernel {spec.kernel} stride {spec.stride} dilation {spec.dilation} pad {spec.pad} groups {spec.groups}")
        case RecurrentSpec() | RecurrentGradSpec():
            lines.append(_recurrent_text(spec))
        case SortSpec():
            lines.append(f"first {spec.k}, largest {spec.largest}, of {spec.outputs}")
        case PackSpec():
            lines.append(f"for {_list(spec.index)}: {to_text(spec.value)} lanes {spec.lanes} of")
            lines.append(spec_text(spec.conv))
        case ConvChain():
            lines += [spec_text(spec.first), spec_text(spec.second)]
        case ChainBands():
            lines += [f"chunk {spec.chunk} bands {spec.bands} of", spec_text(spec.chain)]
        case WinogradConv():
            lines.append(f"{spec.grid} tiles {spec.tiles} chunk {spec.chunk}")
            lines.append(f"pad {spec.conv.pad} {_epilogue_text(spec.conv.epilogue)}")
        case WinogradGradient():
            lines.append(f"{spec.grid} tiles {spec.tiles} inputs {spec.inputs} outputs {spec.outputs} of")
            lines.append(spec_text(spec.gradient))
        case WinogradInput():
            lines.append(f"input of {spec.grid} pad {spec.pad}")
        case WinogradProduct():
            lines.append(f"product of {spec.grid} lanes {spec.lanes} chunk {spec.chunk}")
        case WinogradOutput():
            lines.append(f"output of {spec.grid} {_epilogue_text(spec.conv.epilogue)}")
    return "\n".join(lines)


def _recurrent_text(spec: RecurrentSpec | RecurrentGradSpec) -> str:
    cell = spec.cell
    parts: dict[str, Expr | None] = {"gated": cell.gated}
    if isinstance(cell, Cell):
        parts |= {"c": cell.c, "h": cell.h, **{f"sums{i}": value for i, value in enumerate(cell.sums)}}
    else:
        parts |= {"direct": cell.direct, "dc": cell.dc}
        for name, values in (("dx", cell.dx), ("ds", cell.ds), ("holes", cell.holes)):
            parts |= {f"{name}{i}": value for i, value in enumerate(values)}
    return "\n".join([
        f"{spec.steps} steps of {spec.batch} rows, {spec.hidden} units, reverse {spec.reverse} batch_first {spec.batch_first}",
        f"inputs {spec.inputs} outputs {spec.outputs} {spec.tile}", f"{type(cell).__name__} {cell.gates} {cell.phases}",
        *(f"{name} = {to_text(value)}" for name, value in parts.items() if value is not None),
    ])  # fmt: skip


def _operand_text(operand: Operand) -> str:
    pitch = f" pitch {operand.pitch}" if operand.pitch else ""
    return f"{operand.dtype}[{','.join(map(str, operand.shape))}] {operand.layout}{pitch}"


def _epilogue_text(epilogue: Epilogue) -> str:
    return f"for {_list(epilogue.index)}: acc {to_text(epilogue.acc)} -> {to_text(epilogue.value)}"


def _list(axes: Iterable[Expr]) -> str:
    return ", ".join(map(to_text, axes))
