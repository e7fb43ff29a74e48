"""What an op is, and the registry of all ops.

An op is a frozen dataclass: its fields are its attributes, its methods its whole meaning. A class reads top to bottom: docstring
(shapes, units, layout, errors, ONNX name, source of the formula), attributes, `infer`, `reference`, `gradient`, `cost`, `lower` or
`decompose`. The text format, the verifier, the coverage table and `graphc ops` are derived from this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from graphc.errors import ShapeError, TypeMismatchError, UnsupportedError
from graphc.kernel.access import Access
from graphc.kernel.cost import Cost as Cost
from graphc.kernel.expr import Expr
from graphc.types.dtype import DType
from graphc.types.shape import Dim, DimLike, substitute
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Graph, Node, Value

Array = np.ndarray[Any, np.dtype[Any]]
ElementFn = Callable[..., Expr]  # (index, ...) -> the value of the element there


@dataclass(frozen=True)
class Piece:
    """A part of an output that is computed by its own loops: `extents` of the loops, element -> output index, element -> value."""

    extents: tuple[int, ...]
    place: Callable[..., tuple[Expr, ...]]
    value: ElementFn


@dataclass(frozen=True)
class Updates:
    """What is written over an output, one update after the other: update u of `count` sets the elements `place(u, i, j, ...)` of all
    (i, j, ...) within `extents` to `value(u, i, j, ...)`, or combines them with it ("add", "mul", "max", "min").

    Each loop i passes its index on to a dim of the output, so that updates of different (i, j, ...) never meet.
    """

    count: int
    extents: tuple[int, ...]
    place: Callable[..., tuple[Expr, ...]]
    value: ElementFn
    combine: str = ""


@dataclass(frozen=True)
class Lowering:
    """How a nest kernel computes an op's output: `value(i, j, ...)` at an output index, or by pieces (concat); then the updates."""

    value: ElementFn | None = None
    pieces: tuple[Piece, ...] = ()
    updates: Updates | None = None


@dataclass(frozen=True)
class Op:
    """Base of every op. Class attributes say how the compiler may treat it.

    `family`: the kernel family (map, reduce, normalise, window, gather, copy, conv, contract), or "" where `decompose` says it all.
    `elementwise`: output element i depends on the elements i of its inputs only (numpy broadcasting allowed): may join any epilogue.
    `keeps_layout`: reads and writes blocked channel layouts as well as plain ones (pooling, concat over channels, ...).
    `ends_kernel`: its elements are not computed one by one, so it is the last node of its kernel, whose readers load it from memory.
    `tolerance`: k of the tolerance rule: error against float64 at most k times that of a naive float32 evaluation.
    `not_differentiable`: the reason, where there is no gradient.
    """

    name: ClassVar[str] = ""
    onnx: ClassVar[str] = ""
    inputs: ClassVar[tuple[int, int]] = (1, 1)  # least and most; -1: any number
    family: ClassVar[str] = ""
    elementwise: ClassVar[bool] = False
    keeps_layout: ClassVar[bool] = False
    ends_kernel: ClassVar[bool] = False
    tolerance: ClassVar[float] = 4.0
    not_differentiable: ClassVar[str] = ""

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        """The types of the outputs; raises ShapeError, TypeMismatchError or AttributeValueError."""
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def reference(self, *arrays: Array) -> Array | tuple[Array, ...]:
        """The meaning, in numpy: obvious, not fast. Accumulates in the dtype of the inputs or wider."""
        raise NotImplementedError(f"{type(self).__name__}.reference")

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Build the gradient with respect to each input (None: no dependence) from those of the outputs."""
        reason = self.not_differentiable or "not written yet"
        raise UnsupportedError(f"{self.name} has no gradient: {reason}", where=node.where, hint="freeze what lies before it")

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Default: one operation per output element."""
        return Cost(sum(int(t.size) for t in outputs), sum(t.nbytes for t in (*types, *outputs)))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """The output element as an expression, for the nest families. All shapes are static here."""
        raise UnsupportedError(f"{self.name} has no native lowering", hint="see `graphc ops` for what is supported")

    def decompose(self, builder: Builder, *inputs: Value) -> Value | tuple[Value, ...] | None:
        """The same result from simpler ops, or None where the op is lowered itself."""
        return None

    def bodies(self) -> tuple[Graph, ...]:
        """The sub-graphs that the op runs (`graphc.ops.control`). They belong to the op of one graph: passes edit them in place."""
        return ()

    # derived ----------------------------------------------------------------------------------------------------------------

    def output_types(self, *types: TensorType) -> tuple[TensorType, ...]:
        least, most = self.inputs
        if len(types) < least or (most >= 0 and len(types) > most):
            wanted = f"{least}" if least == most else f"{least} to {most}" if most >= 0 else f"at least {least}"
            raise TypeMismatchError(f"{self.name} takes {wanted} inputs, got {len(types)}")
        result = self.infer(*types)
        found = result if isinstance(result, tuple) else (result,)
        for made in found:
            if any(isinstance(dim, int) and dim < 0 for dim in made.shape):
                raise ShapeError(f"{self.name} would make {made}: a negative size", hint="check the sizes it is given")
        return found

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        """`reference` as a tuple of arrays (never numpy scalars), without floating point warnings."""
        with np.errstate(all="ignore"):
            result = self.reference(*arrays)
        return tuple(np.asarray(r) for r in (result if isinstance(result, tuple) else (result,)))

    def attributes(self) -> dict[str, Any]:
        cls = type(self)
        names = _attribute_names.get(cls)
        if names is None:
            names = _attribute_names[cls] = tuple(field.name for field in fields(cls))
        return {name: getattr(self, name) for name in names}

    def bind(self, sizes: Mapping[str, DimLike]) -> Op:
        """The op with symbolic dims in its attributes replaced."""
        if not sizes:
            return self
        changed = {
            name: tuple(substitute(item, sizes) if isinstance(item, Dim) else item for item in value)
            for name, value in self.attributes().items()
            if isinstance(value, tuple) and any(isinstance(item, Dim) for item in value)
        }
        return replace(self, **changed) if changed else self

    @classmethod
    def build(cls, attributes: Mapping[str, Any]) -> Op:
        """From the text form's attributes."""
        return cls(**attributes)


OpClass = TypeVar("OpClass", bound=type[Op])
_registry: dict[str, type[Op]] = {}
_attribute_names: dict[type[Op], tuple[str, ...]] = {}


def register(cls: OpClass) -> OpClass:
    """Class decorator: put an op into the registry under its name."""
    if not cls.name or cls.name in _registry:
        raise ValueError(f"op name {cls.name!r} is empty or taken")
    _registry[cls.name] = cls
    return cls


def op_class(name: str) -> type[Op]:
    import graphc.ops  # the registry is filled by importing the ops

    if name not in _registry:
        raise UnsupportedError(f"unknown op {name!r} (ops of {graphc.ops.__name__})", hint="`graphc ops` lists the ops")
    return _registry[name]


def all_ops() -> Iterator[type[Op]]:
    """Every registered op, by name."""
    import graphc.ops

    assert graphc.ops.__name__
    return (_registry[name] for name in sorted(_registry))


def same_dtype(op: Op, *types: TensorType) -> DType:
    """The common dtype of the inputs, or a TypeMismatchError."""
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1:
        raise TypeMismatchError(f"{op.name} needs inputs of one dtype, got {', '.join(str(t) for t in types)}", hint="insert a cast")
    return types[0].dtype


def need_float(op: Op, *types: TensorType) -> DType:
    dtype = same_dtype(op, *types)
    if not dtype.is_float:
        raise TypeMismatchError(f"{op.name} needs a floating point dtype, got {dtype}", hint="insert a cast")
    return dtype
