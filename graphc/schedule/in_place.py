"""Whether a kernel may write a state's new value over the old one while it reads it."""

from __future__ import annotations

from collections.abc import Collection

from graphc.kernel.expr import Expr, const, substitute, walk
from graphc.kernel.index import simplify
from graphc.kernel.spec import KernelSpec, MatmulPanels, MatmulSpec, Nest, NestSpec
from graphc.types.dtype import i64


def reads_at_own_place(spec: KernelSpec, slots: Collection[int]) -> bool:
    """Whether each element of the operands `slots` is read only where the element of the same offset of the output is computed.

    The output is the last operand but for scratch. True where nothing is read from those slots.
    """
    if not slots:
        return True
    if isinstance(spec, NestSpec):
        return all(_nest_reads(nest, slots) for nest in spec.nests)
    if isinstance(spec, MatmulPanels):
        return reads_at_own_place(spec.product, slots)
    if isinstance(spec, MatmulSpec) and not {0, 1} & set(slots):
        offset: Expr = const(0, i64)
        for variable, stride in zip(spec.epilogue.index, spec.c_strides, strict=True):
            offset = offset + variable * stride
        return _loads(spec.epilogue.value, slots) <= {_without_units(offset)}
    return False


def _nest_reads(nest: Nest, slots: Collection[int]) -> bool:
    (store, *others) = nest.stores
    return not others and _loads(store.value, slots) <= {_without_units(store.offset)}


def _loads(value: Expr, slots: Collection[int]) -> set[Expr]:
    """The offsets at which the slots are read."""
    return {_without_units(node.args[0]) for node in walk(value) if node.fn == "load" and node.attr in slots}


def _without_units(offset: Expr) -> Expr:
    """Loop variables that are always 0 say nothing, and may be left out by one side."""
    units = {node: const(0, i64) for node in walk(offset) if node.fn == "index" and node.extent == 1}
    return simplify(substitute(offset, units))
