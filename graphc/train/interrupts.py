"""Ctrl-C during training waits for the end of a step, so that what is saved is a whole step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """While entered, the first SIGINT is kept until `check`, at the latest until it is left; the second raises KeyboardInterrupt at once,
    but never inside `held`.

    `whole`: no `held` section was left by an exception. Only the main thread of a process gets signals, and a handler that the user
    installed stays: then nothing changes here.
    """

    def __init__(self) -> None:
        self.whole = True
        self._count = self._depth = 0
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        self.whole, self._count = True, 0
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(self, *exception: object) -> None:
        """Raises KeyboardInterrupt where one has arrived since the last `check`; where another exception ends it, that is enough."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
        count, self._count = self._count, 0
        if count and exception[0] is None:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """A section that happens as a whole."""
        self._depth += 1
        try:
            yield
        except BaseException:
            self.whole = False
            raise
        finally:
            self._depth -= 1

    def check(self) -> None:
        """Between steps: raises KeyboardInterrupt where one has arrived."""
        if self._count:
            self._count = 0
            raise KeyboardInterrupt

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1 and not self._depth:
            raise KeyboardInterrupt
