"""trim-loops: states and stacked values of a loop that nothing needs go, with what the body computes for them alone.

A gradient carries the sums for every value that a body captures, wanted or not, and stacks those of all that is scanned.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Value
from graphc.ir.patch import Patch
from graphc.passes.base import Context
from graphc.passes.loop_parts import LoopParts, State, behind


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "trim-loops")
    count = 0
    for node in [node for node in reversed(graph.nodes) if LoopParts.fits(node)]:
        parts, roots = LoopParts(patch, node), set(graph.roots)
        ys = [y for y in parts.ys if y.result is not None and _is_needed(y.result, roots)]
        states = _needed_states(parts, [y.inner for y in ys], roots)
        gone = len(parts.states) - len(states) + len(parts.ys) - len(ys)
        if gone:
            parts.states, parts.ys = states, ys
            parts.finish()
            count += gone
            patch.commit()
    return count


def _needed_states(parts: LoopParts, inner: list[Value], roots: set[Value]) -> list[State]:
    """Those whose results are used, and those that they, or the given values of the body, are computed from."""
    needed = [state for state in parts.states if _is_needed(state.result, roots)]
    while True:
        read = behind([*inner, *(state.new for state in needed)])
        more = [state for state in parts.states if state not in needed and state.old in read]
        if not more:
            return [state for state in parts.states if state in needed]
        needed += more


def _is_needed(value: Value, roots: set[Value]) -> bool:
    return bool(value.users) or value in roots
