"""A kernel of which a program that was kept on disk knows no more than its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SavedKernel:
    """`text`: what `graphc.kernel.canonical.spec_text` says of the spec that it was. Its code exists; no other can be made from it."""

    family: str
    text: str
