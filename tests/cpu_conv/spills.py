"""The shape of the machine code: hot loops keep everything in registers."""

from __future__ import annotations

import re

from graphc.target import Target
from graphc_cpu import jit
from graphc_cpu.emit.ir import Function, module


def assert_no_spills(f: Function, target: Target, integers: bool = False) -> None:
    """No basic block with many multiply-adds touches the stack, but with `integers` for an address."""
    text = jit.assembly(module(target.triple, [f]), target)
    blocks = re.split(r"^[.\w]+:.*$|^\s*(?:j\w+|b(?:\.\w+)?|cbn?z)\s.*$", text, flags=re.MULTILINE)
    hot = [block for block in blocks if len(re.findall(r"fmadd\w*ps|mulps|fmla", block)) >= 20]
    assert hot, "no hot block found"
    for block in hot:
        assert not re.search(r"\(%rsp.*mm\d|mm\d.*\(%rsp|[qv]\d+, \[sp", block), block
        assert integers or not re.search(r"\(%rsp|\[sp", block), block
