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


class Table:
    """`address` and `count`: what a pool runs. The arena begins at `arena`; moves change the pointers that the steps' arguments are."""

    def __init__(self, plan: Plan, steps: Sequence[Step], arena: int) -> None:
        self._controls, self._arena, self._steps = plan.controls, arena, steps
        deciding = [control.kind != LEAVE for control in plan.controls]
        self._records: Array = np.zeros((len(plan.controls), at.RECORD_WORDS), np.int64)
        self._status: Array = np.zeros(len(plan.controls), np.int64)
        self._moves: list[Array] = [self._moved(control) for control in plan.controls]
        entries: list[Step | Decision] = []
        self._places: list[int] = []  # of the steps in the table
        behind: list[int] = []  # of each control, the entry behind it
        waiting = list(enumerate(plan.controls))
        for number in range(len(steps) + 1):
            while waiting and waiting[0][1].at == number:
                which, _ = waiting.pop(0)
                if deciding[which]:
                    entries.append(Decision(self._record_address(which)))
                behind.append(len(entries))
            if number < len(steps):
                self._places.append(len(entries))
                entries.append(steps[number])
        self.count = len(entries)
        for which, control in enumerate(plan.controls):
            self._records[which] = self._record(which, control, behind)
        self._table = step_table(entries)
        self.address = int(self._table.ctypes.data)

    def step_address(self, number: int) -> int:
        """Of one of the plan's steps."""
        return self.address + self._places[number] * self._table.itemsize

    @property
    def broken(self) -> bool:
        """Whether the last run came to a limit."""
        return bool(self._status.any())

    def check_ended(self) -> None:
        """Raises ResourceError where the last run came to the limit of a loop."""
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

    def _record(self, which: int, control: Control, behind: Sequence[int]) -> list[int]:
        words = [0] * at.RECORD_WORDS
        repeats = control.kind == AGAIN
        values = {
            at.REPEATS: int(repeats), at.COUNTER: self._at(control.counter), at.TRIPS: control.trips if control.trips >= 0 else _NONE,
            at.LENGTH: self._at(control.count), at.CONDITION: self._at(control.condition), at.NEGATED: int(control.negate),
            at.BODY: behind[control.partner if repeats else which], at.BEHIND: behind[which if repeats else control.partner],
            at.LIMIT: control.limit or _NONE, at.STATUS: int(self._status.ctypes.data) + 8 * which, at.LAST: self.count,
            at.MOVES: int(self._moves[which].ctypes.data), at.MOVED: len(control.moves),
        }  # fmt: skip
        for offset, value in values.items():
            words[offset // 8] = value
        return words
