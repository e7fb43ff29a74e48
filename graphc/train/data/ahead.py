"""Work done ahead of the one who asks for it, in threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from graphc.errors import AttributeValueError, InputError
from graphc.train.batches import Batch, MadeBatches
from graphc.train.data.augment import whole

T = TypeVar("T")
S = TypeVar("S")


def ahead(make: Callable[[S], T], of: Iterable[S], workers: int, prefetch: int) -> Iterator[T]:
    """`make` of each, in order; `workers` threads make up to `prefetch` + `workers` before they are asked for. 0 workers: no thread.

    An exception in a thread is raised where its result was due. However the iteration ends, threads finish what they have begun and are
    gone; what has not begun never does.
    """
    if not workers:
        yield from map(make, of)
        return
    jobs = iter(of)
    pool = ThreadPoolExecutor(workers, "graphc-data")
    try:
        due: deque[Future[T]] = deque(pool.submit(make, job) for job in islice(jobs, prefetch + workers))
        while due:
            made = due.popleft().result()
            due.extend(pool.submit(make, job) for job in islice(jobs, 1))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Stream(MadeBatches):
    """Batches from a generator: `make(epoch)` gives an iterable of `length` batches (x, y); it may give more, even without an end.

    One thread makes `prefetch` of them ahead. To resume in the middle of an epoch the first batches are made and left out, so `make` must
    give the same for the same epoch. Raises InputError where it gives fewer.
    """

    def __init__(self, make: Callable[[int], Iterable[Batch]], length: int, prefetch: int = 2) -> None:
        whole("length", length, 1)
        whole("prefetch", prefetch, 0)
        if not callable(make):
            raise AttributeValueError(f"a {type(make).__name__} instead of a function", hint="make(epoch), an iterable of (x, y)")
        super().__init__(make, length)
        self.prefetch = prefetch

    def __iter__(self) -> Iterator[Batch]:
        return self._ahead(super().__iter__(), self.epoch, self.batch)

    def _ahead(self, source: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        for number, batch in enumerate(ahead(lambda _: next(source, None), range(first, len(self)), 1, self.prefetch), first):
            if batch is None:
                raise InputError(f"the function of batches made {number} for epoch {epoch}, its length is {len(self)}")
            yield batch
