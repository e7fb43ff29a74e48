"""The op set as a table: what each op of graphc has, derived from its class."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.op import Op, all_ops

KERNELS = ("conv", "conv-weight", "contract", "recurrent", "sort", "control")  # families that the schedule lowers to a spec of their own


@dataclass(frozen=True)
class OpFacts:
    """`native`: how the CPU code comes about: a kernel family, "decomposed" or "no". `gradient`: "yes", or why there is none."""

    name: str
    onnx: str
    native: str
    reference: bool
    gradient: str
    attributes: tuple[str, ...]
    doc: str


def op_table() -> list[OpFacts]:
    """Every registered op, by name."""
    return [_facts(cls) for cls in all_ops()]


def _facts(cls: type[Op]) -> OpFacts:
    lowered = cls.lower is not Op.lower or cls.family in KERNELS
    native = cls.family if lowered else "decomposed" if cls.decompose is not Op.decompose else "no"
    gradient = "yes" if cls.gradient is not Op.gradient else cls.not_differentiable or "not written yet"
    row = getattr(cls, "row", None)
    doc = row.doc if row is not None else (cls.__doc__ or "").strip().splitlines()[0]
    names = tuple(name for name in cls.__dataclass_fields__)
    return OpFacts(cls.name, cls.onnx, native, cls.reference is not Op.reference, gradient, names, doc)
