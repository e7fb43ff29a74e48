"""The step table of a program: its calls, and between them the decisions of its plan's controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.graph import Array
from graphc.limits import endless
from graphc.schedule.plan import AGAIN, ENTER, LEAVE, Control, Plan, Ref
from graphc_cpu.runtime import state as at
from graphc_cpu.runtime.state import Decision, Step, step_table

_NONE = (1 << 63) - 1  # no bound
_FLOPS, _BYTES = 2e10, 2e10  # per second, of small kernels on one thread
_WAIT = 1e-6  # seconds in which a step's threads have begun, and met at its end


class Table:
    """`address` and `count`: what a pool runs. The arena begins at `arena`; moves change the pointers that the steps' arguments are.

    `alone`: address of the step that runs a table on one thread (0: there is one thread anyway). Loops whose iterations take less time than
    the threads would wait for each other in them have tables of their own, which thread 0 walks through.
    """

    def __init__(self, plan: Plan, steps: Sequence[Step], arena: int, alone: int = 0) -> None:
        self._controls, self._arena, self._steps = plan.controls, arena, steps
        self._small = small_loops(plan) if alone else {}
        self._records: Array = np.zeros((2 * len(plan.controls), at.RECORD_WORDS), np.int64)  # of the controls, then checks of their limits
        self._status: Array = np.zeros(len(plan.controls), np.int64)
        self._scratch: Array = np.zeros(len(plan.controls), np.int64)
        self._calls: Array = np.zeros((len(plan.controls), 2), np.int64)  # of small loops: table and count
        self._moves: list[Array] = [self._moved(control) for control in plan.controls]
        self._entries: list[list[Step | Decision]] = [[]]  # of the table, and of those of small loops
        self._places: list[tuple[int, int]] = []  # of the steps: table and entry
        self._behind: list[tuple[int, int]] = []  # of each control: table, and the entry behind it
        self._lay_out(alone)
        self._tables = [step_table(entries) for entries in self._entries]
        for which, control in enumerate(plan.controls):
            self._records[which] = self._record(which, control)
        for number, (which, _) in enumerate(self._small.items(), 1):
            self._calls[which] = int(self._tables[number].ctypes.data), len(self._entries[number])
        self.count = len(self._entries[0])
        self.address = int(self._tables[0].ctypes.data)

    def _lay_out(self, alone: int) -> None:
        """Entries in their tables."""
        table, waiting = 0, list(enumerate(self._controls))
        for number in range(len(self._steps) + 1):
            while waiting and waiting[0][1].at == number:
                which, control = waiting.pop(0)
                if which in self._small:
                    self._entries[0].append(Step(alone, int(self._calls[which].ctypes.data), solo=True))
                    table = len(self._entries)
                    self._entries.append([])
                if control.kind != LEAVE:
                    self._entries[table].append(Decision(self._record_address(which)))
                self._behind.append((table, len(self._entries[table])))
                if control.partner in self._small and control.kind != ENTER:
                    table = 0
                    for inner in range(control.partner, which + 1):
                        self._check(inner)
            if number < len(self._steps):
                self._places.append((table, len(self._entries[table])))
                self._entries[table].append(self._steps[number])

    def _check(self, which: int) -> None:
        """Behind a small loop: a run that has come to a limit in it ends."""
        if not self._controls[which].limit:
            return
        number = len(self._controls) + which
        self._entries[0].append(Decision(self._record_address(number)))
        self._records[number, at.COUNTER // 8] = int(self._scratch.ctypes.data) + 8 * which
        self._records[number, at.TRIPS // 8], self._records[number, at.LIMIT // 8] = 1, _NONE
        self._records[number, at.CONDITION // 8] = int(self._status.ctypes.data) + 8 * which
        self._records[number, at.BODY // 8], self._records[number, at.BEHIND // 8] = _NONE, len(self._entries[0])

    def step_address(self, number: int) -> int:
        """Of one of the plan's steps."""
        table, entry = self._places[number]
        return int(self._tables[table].ctypes.data) + entry * self._tables[table].itemsize

    @property
    def broken(self) -> bool:
        """Whether the last run came to a limit."""
        return bool(self._controls) and bool(self._status.any())

    def check_ended(self) -> None:
        """Raises ResourceError where the last run came to the limit of a loop."""
        if not self.broken:
            return
        for control, status in zip(self._controls, self._status, strict=True):
            if status:
                raise endless(control.limit, f"loop {control.label!r}")

    def iterations(self) -> dict[int, int]:
        """Of the last run (of an inner loop: the last time): control that enters a loop -> how often it went through."""
        found = {}
        for number, control in enumerate(self._controls):
            if control.kind == ENTER and self._controls[control.partner].kind == AGAIN:
                entered = self._word(number, at.DECIDED) == self._word(number, at.BODY)
                found[number] = self._word(control.partner, at.RAN) if entered else 0
        return found

    def _word(self, which: int, offset: int) -> int:
        return int(self._records[which, offset // 8])

    def _at(self, ref: Ref | None) -> int:
        return 0 if ref is None else self._arena + ref.offset

    def _record_address(self, which: int) -> int:
        return int(self._records.ctypes.data) + which * self._records.strides[0]

    def _moved(self, control: Control) -> Array:
        """Pairs of the address of a pointer and bytes."""
        pairs = [(self._steps[step].args + 8 * slot, nbytes) for step, slot, nbytes in control.moves]
        return np.array(pairs, np.int64).reshape(len(pairs), 2)

    def _record(self, which: int, control: Control) -> list[int]:
        words = [0] * at.RECORD_WORDS
        repeats = control.kind == AGAIN
        table, own = self._behind[which]
        _, other = self._behind[control.partner]
        values = {
            at.REPEATS: int(repeats), at.COUNTER: self._at(control.counter), at.TRIPS: control.trips if control.trips >= 0 else _NONE,
            at.LENGTH: self._at(control.count), at.CONDITION: self._at(control.condition), at.NEGATED: int(control.negate),
            at.BODY: other if repeats else own, at.BEHIND: own if repeats else other, at.LIMIT: control.limit or _NONE,
            at.STATUS: int(self._status.ctypes.data) + 8 * which, at.LAST: len(self._entries[table]),
            at.MOVES: int(self._moves[which].ctypes.data), at.MOVED: len(control.moves),
        }  # fmt: skip
        for offset, value in values.items():
            words[offset // 8] = value
        return words


def small_loops(plan: Plan) -> dict[int, int]:
    """Outermost loops, by the number of the control that enters, whose iterations are not worth sharing -> the control that ends them.

    The bits are the same: no element depends on how many threads there are.
    """
    found: dict[int, int] = {}
    times, end = plan.times(), 0
    for number, control in enumerate(plan.controls):
        last = plan.controls[control.partner]
        if control.kind != ENTER or last.kind != AGAIN or number < end or not times[control.at : last.at]:
            continue
        steps = list(zip(plan.steps[control.at : last.at], times[control.at : last.at], strict=True))
        meets = any(ref.space == "pool" for step, _ in steps for ref in step.args)
        work = sum((step.cost.flops / _FLOPS + step.cost.bytes / _BYTES) * n for step, n in steps)
        if not meets and work < sum(n for _, n in steps) * _WAIT:
            found[number], end = control.partner, control.partner
    return found
