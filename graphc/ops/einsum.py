"""Einstein summation, composed of transpose, reshape, multiply, reduce and matrix products. ONNX Einsum; np.einsum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops.compose import expand, reshape, slice_axis, transpose
from graphc.ops.matmul import MatMul
from graphc.ops.reduce import Reduce
from graphc.types.shape import DimLike, product


@dataclass(frozen=True)
class Labelled:
    """A tensor whose axes have labels, no label twice: letters, and for the axes of an ellipsis "0", "1", ... from the right."""

    value: Value
    labels: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, DimLike]:
        return dict(zip(self.labels, self.value.type.shape, strict=True))


def einsum(builder: Builder, equation: str, *operands: Value) -> Value:
    """The sum over every label that the output does not name of the product of the operands.

    equation: "ij,jk->ik", with "..." for leading broadcast axes and without "->" for the output in alphabetical order. Labels that
    occur twice in an operand take its diagonal. Operands are contracted from left to right. Raises AttributeValueError, ShapeError.
    """
    inputs, output = parse(equation, [value.type.rank for value in operands])
    terms = [_diagonal(builder, value, labels) for value, labels in zip(operands, inputs, strict=True)]
    sizes = _sizes(terms, equation)
    current = _summed(builder, terms[0], set(output).union(*(t.labels for t in terms[1:])))
    for number, other in enumerate(terms[1:], start=1):
        needed = set(output).union(*(t.labels for t in terms[number + 1 :]))
        other = _summed(builder, other, needed | set(current.labels))
        current = _product(builder, current, other, needed)
    value = transpose(builder, current.value, [current.labels.index(label) for label in output if label in current.labels])
    return expand(builder, value, [sizes[label] for label in output])


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of each operand and of the output."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise AttributeValueError(f"einsum {equation!r} takes {len(parts)} operands, got {len(ranks)}")
    inputs = [_labels(part, rank, equation) for part, rank in zip(parts, ranks, strict=True)]
    hidden = max((sum(label.isdigit() for label in labels) for labels in inputs), default=0)
    dots = tuple(str(i) for i in reversed(range(hidden)))
    if arrow:
        output = (*_expanded(right, dots),)
    else:
        letters = "".join(label for labels in inputs for label in labels if label.isalpha())
        output = (*dots, *sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    if len(set(output)) != len(output) or not set(output) <= {label for labels in inputs for label in labels}:
        raise AttributeValueError(f"einsum {equation!r}: each label of the output occurs once there, and in an operand")
    return inputs, output


def _expanded(part: str, dots: tuple[str, ...]) -> list[str]:
    before, dotted, after = part.partition("...")
    if not all(letter.isalpha() for letter in before + after):
        raise AttributeValueError(f"einsum: {part!r} is not made of letters and one ellipsis")
    return [*before, *(dots if dotted else ()), *after]


def _labels(part: str, rank: int, equation: str) -> tuple[str, ...]:
    named = len(part.replace("...", ""))
    dots = tuple(str(i) for i in reversed(range(max(rank - named, 0))))
    labels = tuple(_expanded(part, dots))
    if len(labels) != rank:
        raise ShapeError(f"einsum {equation!r}: {part!r} does not name the {rank} axes of its operand")
    return labels


def _sizes(terms: Sequence[Labelled], equation: str) -> dict[str, DimLike]:
    """Each label's size; 1 broadcasts."""
    sizes: dict[str, DimLike] = {}
    for term in terms:
        for label, size in term.sizes.items():
            known = sizes.get(label, 1)
            if known != 1 and size != 1 and known != size:
                raise ShapeError(f"einsum {equation!r}: the sizes {known} and {size} of {label!r} differ")
            sizes[label] = size if known == 1 else known
    return sizes


def _diagonal(builder: Builder, value: Value, labels: tuple[str, ...]) -> Labelled:
    """Labels that occur twice become one axis: every (n + 1)-th element of the two axes read as one."""
    for label in labels:
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            rest = [axis for axis in range(len(labels)) if axis not in (first, second)]
            size = value.type.shape[first]
            if size != value.type.shape[second]:
                raise ShapeError(f"einsum: the axes {label!r} of {value.type} differ in size")
            value = transpose(builder, value, [*rest, first, second])
            value = reshape(builder, value, [*value.type.shape[:-2], size * size])
            value = slice_axis(builder, value, -1, 0, size, 1 if size == 1 else _step(size))
            labels = (*(labels[axis] for axis in rest), label)
    return Labelled(value, labels)


def _step(size: DimLike) -> int:
    return int(size) + 1


def _summed(builder: Builder, term: Labelled, needed: set[str]) -> Labelled:
    """Labels that nothing else needs are summed at once."""
    axes = tuple(axis for axis, label in enumerate(term.labels) if label not in needed)
    if not axes:
        return term
    return Labelled(builder.add(Reduce("sum", axes, False), term.value), tuple(label for label in term.labels if label in needed))


def _product(builder: Builder, a: Labelled, b: Labelled, needed: set[str]) -> Labelled:
    """The product of two terms, summed over the labels that both have and nobody needs."""
    both = [label for label in a.labels if label in b.labels]
    inner = [label for label in both if label not in needed]
    if not inner or any(a.sizes[label] != b.sizes[label] for label in inner):
        return _outer(builder, a, b, needed)
    batch = [label for label in both if label in needed]
    rows = [label for label in a.labels if label not in both]
    columns = [label for label in b.labels if label not in both]
    left = _matrices(builder, a, batch, rows, inner)
    right = _matrices(builder, b, batch, inner, columns)
    y = builder.add(MatMul(), left, right)
    sizes = {**b.sizes, **a.sizes}
    full = [*y.type.shape[: len(batch)], *(sizes[label] for label in rows), *(sizes[label] for label in columns)]
    return Labelled(reshape(builder, y, full), (*batch, *rows, *columns))


def _matrices(builder: Builder, term: Labelled, batch: list[str], rows: list[str], columns: list[str]) -> Value:
    """The term as [*batch, rows, columns]."""
    value = transpose(builder, term.value, [term.labels.index(label) for label in (*batch, *rows, *columns)])
    sizes = term.sizes
    shape = [*(sizes[label] for label in batch), product(sizes[label] for label in rows), product(sizes[label] for label in columns)]
    return reshape(builder, value, shape)


def _outer(builder: Builder, a: Labelled, b: Labelled, needed: set[str]) -> Labelled:
    """An elementwise product with broadcasting, then the sums."""
    from graphc.ops.pointwise import op

    labels = (*a.labels, *(label for label in b.labels if label not in a.labels))
    left, right = (_aligned(builder, term, labels) for term in (a, b))
    return _summed(builder, Labelled(builder.add(op("mul"), left, right), labels), needed)


def _aligned(builder: Builder, term: Labelled, labels: Sequence[str]) -> Value:
    """The term with an axis for each label, of size 1 where it has none."""
    present = [label for label in labels if label in term.labels]
    value = transpose(builder, term.value, [term.labels.index(label) for label in present])
    return reshape(builder, value, [term.sizes.get(label, 1) for label in labels])
