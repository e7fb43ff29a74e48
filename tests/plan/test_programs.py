"""Programs of an Executable: one per combination of sizes, and none kept alive after it had to give way."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping

import numpy as np
import pytest

import graphc
from graphc import executable
from graphc.executable import Compiled, Executable
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ops.pointwise import op
from graphc.types.shape import symbol


def doubled() -> Executable:
    builder = Builder(Graph("doubled"))
    x = builder.input("x", "f32", (symbol("N"),))
    return graphc.compile(builder.finish(y=builder.add(op("add"), x, x)), threads=1)


def test_a_program_that_gave_way_while_a_call_waited_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may need the place between the compilation of a program and its first run."""
    monkeypatch.setattr(executable, "MAX_PROGRAMS", 2)
    exe = doubled()
    first: list[weakref.ref[Compiled]] = []
    compiled = exe.compiled

    def and_two_more(sizes: Mapping[str, int]) -> Compiled:
        found = compiled(sizes)
        if not first:
            first.append(weakref.ref(found))
            compiled({"N": 7})
            compiled({"N": 8})
        return found

    monkeypatch.setattr(exe, "compiled", and_two_more)
    for size in (3, 7, 8):
        np.testing.assert_array_equal(exe(np.ones(size, np.float32)), np.full(size, 2))
    gc.collect()
    assert first[0]() is None
    np.testing.assert_array_equal(exe(np.ones(3, np.float32)), np.full(3, 2))
