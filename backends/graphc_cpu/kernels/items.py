"""Work items: the flat numbering of independent pieces of a kernel's output, split over threads, and decoded into digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.micro.shape import Split

T = TypeVar("T")


def kernel_function(name: str) -> Function:
    """An empty kernel: `void name(ptr args, i64 thread, i64 threads)`."""
    return Function(name, [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])


def operand_pointers(f: Function, count: int) -> list[Value]:
    """The operands' addresses, loaded from the kernel's `args`."""
    args = f.parameters[0]
    return [f.load("ptr", f.pointer(args, slot, "ptr"), 8) for slot in range(count)]


def for_items(f: Function, sizes: Mapping[str, int], body: Callable[[Mapping[str, Value]], None]) -> None:
    """This thread's share of all combinations of digits (last one fastest); the body gets each digit by name."""
    _, thread, threads = f.parameters
    first, last = f.share(prod(sizes.values()), thread, threads)

    def turn(item: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        body(digits_of(f, item, sizes))
        return ()

    f.loop(first, last, 1, turn, hint="item")


def digits_of(f: Function, item: Value, sizes: Mapping[str, int]) -> dict[str, Value]:
    """The digits of a flat number, the last one fastest."""
    digits = {name: i64(0) for name in sizes}
    names = [name for name, size in sizes.items() if size > 1]
    for name in reversed(names):
        if name == names[0]:
            digits[name] = item
        else:
            digit = f.op(f"urem i64 {item.name}, {sizes[name]}", "i64")
            digits[name] = f.op(f"freeze i64 {digit.name}", "i64")  # unknown to LLVM's loop analysis: compiles 8 times faster
            item = f.op(f"udiv i64 {item.name}, {sizes[name]}", "i64")
    return digits


@dataclass(frozen=True)
class Piece:
    """One kind of piece of a split dimension: parts first .. last-1 have this width, `valid` lanes in their last block."""

    first: int
    last: int
    width: int
    valid: int = 0


def pieces(split: Split, lanes: int = 0, tail: int = 0) -> list[Piece]:
    """The kinds of parts of a split. With a `tail` (valid lanes of the very last block, below `lanes`) the last part is its own kind."""
    found = [Piece(first, last, width, lanes) for first, last, width in split.ranges]
    if tail == lanes:
        return found
    end = found.pop()
    if end.last - end.first > 1:
        found.append(Piece(end.first, end.last - 1, end.width, lanes))
    return [*found, Piece(end.last - 1, end.last, end.width, tail)]


def for_kinds(f: Function, digit: Value, kinds: Sequence[Piece], body: Callable[[Piece], None]) -> None:
    """The body of the kind that the digit belongs to: a branch per kind, none where there is one kind only."""
    if len(kinds) == 1:
        body(kinds[0])
        return
    for kind in kinds:
        f.branch(_within(f, digit, kind, kinds), lambda kind=kind: body(kind), hint="kind")  # type: ignore[misc]


def _within(f: Function, digit: Value, kind: Piece, kinds: Sequence[Piece]) -> Value:
    if kind is kinds[0]:
        return f.op(f"icmp slt i64 {digit.name}, {kind.last}", "i1")
    from_first = f.op(f"icmp sge i64 {digit.name}, {kind.first}", "i1")
    if kind is kinds[-1]:
        return from_first
    before_last = f.op(f"icmp slt i64 {digit.name}, {kind.last}", "i1")
    return f.op(f"and i1 {from_first.name}, {before_last.name}", "i1")


def start_of(f: Function, digit: Value, split: Split) -> Value:
    """The first element of a part: part * width, less one for each narrow part before it."""
    start = f.mul(digit, split.width)
    if split.wide == split.parts:
        return start
    over = f.sub(digit, split.wide)
    positive = f.op(f"icmp sgt i64 {over.name}, 0", "i1")
    return f.sub(start, f.op(f"select i1 {positive.name}, i64 {over.name}, i64 0", "i64"))


def width_of(f: Function, part: Value, split: Split) -> Value:
    """Elements of a part."""
    if split.wide == split.parts:
        return i64(split.width)
    wide = f.op(f"icmp slt i64 {part.name}, {split.wide}", "i1")
    return f.op(f"select i1 {wide.name}, i64 {split.width}, i64 {split.width - 1}", "i64")
