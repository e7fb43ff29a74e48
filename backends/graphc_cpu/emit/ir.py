"""LLVM IR as text: a function under construction, with loops. Building text is 40 times faster than llvmlite.ir objects.

Values are pairs of text and LLVM type. Every loop is emitted in rotated form with SSA phis, so no alloca is ever needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.types.dtype import DType

_SCALARS = {
    "bool": "i1", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "i8", "uint16": "i16", "uint32": "i32",
    "uint64": "i64", "float16": "half", "float32": "float", "float64": "double",
}  # fmt: skip


class Value(NamedTuple):
    """An SSA name or literal, and its LLVM type."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


def scalar_type(dtype: DType) -> str:
    """The register type; bool is i1 in registers and i8 in memory."""
    return _SCALARS[dtype.name]


def memory_type(dtype: DType) -> str:
    return "i8" if dtype.kind == "b" else _SCALARS[dtype.name]


def vector_type(element: str, lanes: int) -> str:
    return f"<{lanes} x {element}>" if lanes > 1 else element


def i64(value: int) -> Value:
    return Value(str(value), "i64")


class Function:
    """One LLVM function. `op` appends an instruction and names its result; `loop` runs a Python body inside a loop."""

    def __init__(self, name: str, parameters: Sequence[tuple[str, str]], attributes: str = "nounwind") -> None:
        self.name = name
        self.attributes = attributes
        self.parameters = [Value(f"%{label}", type) for type, label in parameters]
        self.declarations: set[str] = set()
        self._lines: list[str] = ["entry:"]
        self._block = "entry"
        self._count = 0

    def fresh(self, hint: str = "v") -> str:
        self._count += 1
        return f"%{hint}{self._count}"

    def op(self, text: str, type: str) -> Value:
        """Append `%new = text`; `type` is the type of the result."""
        name = self.fresh()
        self._lines.append(f"  {name} = {text}")
        return Value(name, type)

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self._lines.append(f"  {text}")

    def declare(self, text: str) -> None:
        """`declare ...` of an intrinsic or external function; once per module."""
        self.declarations.add(text)

    def call(self, name: str, type: str, *args: Value) -> Value:
        """Call an intrinsic or external function by name, declared on the way."""
        self.declare(f"declare {type} @{name}({', '.join(a.type for a in args)})")
        return self.op(f"call {type} @{name}({', '.join(map(str, args))})", type)

    def label(self, name: str) -> None:
        """Start a basic block (name without %)."""
        self._lines.append(f"{name}:")
        self._block = name

    @property
    def block(self) -> str:
        """The label of the block being filled, for phis."""
        return self._block

    # integer helpers on i64 -------------------------------------------------------------------------------------------------

    def add(self, a: Value, b: Value | int) -> Value:
        return self._int("add", a, b, 0)

    def sub(self, a: Value, b: Value | int) -> Value:
        return self._int("sub", a, b, 0)

    def mul(self, a: Value, b: Value | int) -> Value:
        if isinstance(b, int) and b == 0:
            return i64(0)
        return self._int("mul", a, b, 1)

    def _int(self, opcode: str, a: Value, b: Value | int, neutral: int) -> Value:
        if isinstance(b, int):
            if b == neutral:
                return a
            b = i64(b)
        if a.name.lstrip("-").isdigit() and b.name.lstrip("-").isdigit():
            x, y = int(a.name), int(b.name)
            return i64({"add": x + y, "sub": x - y, "mul": x * y}[opcode])
        return self.op(f"{opcode} i64 {a.name}, {b.name}", "i64")

    # memory -----------------------------------------------------------------------------------------------------------------

    def pointer(self, base: Value, offset: Value | int, element: str) -> Value:
        """base + offset elements."""
        if isinstance(offset, int):
            if offset == 0:
                return base
            offset = i64(offset)
        return self.op(f"getelementptr inbounds {element}, ptr {base.name}, i64 {offset.name}", "ptr")

    def load(self, type: str, pointer: Value, align: int) -> Value:
        return self.op(f"load {type}, ptr {pointer.name}, align {align}", type)

    def store(self, value: Value, pointer: Value, align: int) -> None:
        self.do(f"store {value}, ptr {pointer.name}, align {align}")

    # control flow -----------------------------------------------------------------------------------------------------------

    def loop(
        self, start: Value | int, stop: Value | int, step: int, body: Callable[[Value, tuple[Value, ...]], Sequence[Value]],
        carried: Sequence[Value] = (), hint: str = "i", guarded: bool = True,
    ) -> tuple[Value, ...]:  # fmt: skip
        """for (i = start; i < stop; i += step) carried = body(i, carried); returns the carried values after the loop.

        `guarded=False` leaves out the test before the first turn (the caller knows that there is one).
        """
        first = i64(start) if isinstance(start, int) else start
        last = i64(stop) if isinstance(stop, int) else stop
        tag = self.fresh(hint)[1:]
        before = self._block
        if guarded:
            test = self.op(f"icmp slt i64 {first.name}, {last.name}", "i1")
            self.do(f"br i1 {test.name}, label %{tag}.body, label %{tag}.end")
        else:
            self.do(f"br label %{tag}.body")
        self.label(f"{tag}.body")
        position = len(self._lines)
        counter = Value(f"%{tag}.i", "i64")
        inner = tuple(Value(f"%{tag}.c{j}", value.type) for j, value in enumerate(carried))
        results = tuple(body(counter, inner))
        latch = self._block
        following = self.op(f"add nsw i64 {counter.name}, {step}", "i64")
        again = self.op(f"icmp slt i64 {following.name}, {last.name}", "i1")
        phis = [f"  {counter.name} = phi i64 [ {first.name}, %{before} ], [ {following.name}, %{latch} ]"]
        for value, start_value, result in zip(inner, carried, results, strict=True):
            phis.append(f"  {value.name} = phi {value.type} [ {start_value.name}, %{before} ], [ {result.name}, %{latch} ]")
        self._lines[position:position] = phis
        self.do(f"br i1 {again.name}, label %{tag}.body, label %{tag}.end")
        self.label(f"{tag}.end")
        out = []
        for start_value, result in zip(carried, results, strict=True):
            arms = f"[ {result.name}, %{latch} ]" + (f", [ {start_value.name}, %{before} ]" if guarded else "")
            out.append(self.op(f"phi {result.type} {arms}", result.type))
        return tuple(out)

    def repeat(
        self, body: Callable[[tuple[Value, ...]], tuple[Value, Sequence[Value]]], carried: Sequence[Value], hint: str = "turn"
    ) -> tuple[Value, ...]:  # fmt: skip
        """do (again, carried) = body(carried) while again; returns the carried values after the last turn."""
        tag = self.fresh(hint)[1:]
        before = self._block
        self.do(f"br label %{tag}.body")
        self.label(f"{tag}.body")
        position = len(self._lines)
        inner = tuple(Value(f"%{tag}.c{j}", value.type) for j, value in enumerate(carried))
        again, results = body(inner)
        latch = self._block
        arms = zip(inner, carried, results, strict=True)
        self._lines[position:position] = [
            f"  {value.name} = phi {value.type} [ {start.name}, %{before} ], [ {result.name}, %{latch} ]" for value, start, result in arms
        ]
        self.do(f"br i1 {again.name}, label %{tag}.body, label %{tag}.end")
        self.label(f"{tag}.end")
        return tuple(results)

    def branch(self, condition: Value, body: Callable[[], None], hint: str = "if") -> None:
        """Run body where the i1 condition holds."""
        tag = self.fresh(hint)[1:]
        self.do(f"br i1 {condition.name}, label %{tag}.then, label %{tag}.end")
        self.label(f"{tag}.then")
        body()
        self.do(f"br label %{tag}.end")
        self.label(f"{tag}.end")

    def share(self, items: Value | int, thread: Value, threads: Value) -> tuple[Value, Value]:
        """This thread's contiguous part [first, last) of `items` work items."""
        total = i64(items) if isinstance(items, int) else items
        first = self.op(f"sdiv i64 {self.mul(total, thread).name}, {threads.name}", "i64")
        following = self.add(thread, 1)
        last = self.op(f"sdiv i64 {self.mul(total, following).name}, {threads.name}", "i64")
        return first, last

    def text(self) -> str:
        parameters = ", ".join(f"{p.type} {p.name}" for p in self.parameters)
        body = "\n".join(self._lines)
        return f"define void @{self.name}({parameters}) {self.attributes} {{\n{body}\n  ret void\n}}\n"


def module(triple: str, functions: Sequence[Function]) -> str:
    """A module's text; the caller sets the data layout from its target machine."""
    declarations = sorted(set[str]().union(*(f.declarations for f in functions)))
    return f'target triple = "{triple}"\n\n' + "\n".join([*(f.text() for f in functions), *declarations]) + "\n"
