"""Work items: the flattened outer loops of a nest, of which each thread runs a contiguous share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphc_cpu.emit.ir import Function, Value, i64


def emit_items(
    f: Function, extents: Sequence[int], small: bool, before: Callable[[], None], body: Callable[[tuple[Value, ...]], None]
) -> None:  # fmt: skip
    """Run `body(digits)` for this thread's items, after `before()`; nothing where its share is empty.

    `extents`: sizes of the flattened loops, outermost first; `digits` are their counters, found by division once and then counted up.
    No extents, or `small` work: all items belong to thread 0.
    """
    _, thread, threads = f.parameters
    items = prod(extents)
    if items == 1 or small:
        mine = f.op(f"icmp eq i64 {thread.name}, 0", "i1")
        first, last = i64(0), f.op(f"select {mine}, i64 {items}, i64 0", "i64")
    else:
        first, last = f.share(items, thread, threads)

    def work() -> None:
        before()
        if not extents:
            body(())
            return
        start = _digits(f, first, extents) if len(extents) > 1 else ()

        def turn(item: Value, digits: tuple[Value, ...]) -> tuple[Value, ...]:
            body(digits or (item,))
            return _count_up(f, digits, extents)

        f.loop(first, last, 1, turn, start, hint="item", guarded=False)

    f.branch(f.op(f"icmp slt i64 {first.name}, {last.name}", "i1"), work, hint="share")


def _digits(f: Function, number: Value, extents: Sequence[int]) -> tuple[Value, ...]:
    out: list[Value] = []
    for extent in reversed(extents[1:]):
        out.append(f.op(f"urem {number}, {extent}", "i64"))
        number = f.op(f"udiv {number}, {extent}", "i64")
    return (number, *reversed(out))


def _count_up(f: Function, digits: Sequence[Value], extents: Sequence[int]) -> tuple[Value, ...]:
    if not digits:
        return ()
    out: list[Value] = []
    carry = i64(1)
    for digit, extent in zip(reversed(digits[1:]), reversed(extents[1:]), strict=True):
        following = f.op(f"add {digit}, {carry.name}", "i64")
        full = f.op(f"icmp eq {following}, {extent}", "i1")
        out.append(f.op(f"select {full}, i64 0, {following}", "i64"))
        carry = f.op(f"zext {full} to i64", "i64")
    out.append(f.op(f"add {digits[0]}, {carry.name}", "i64"))
    return tuple(reversed(out))
