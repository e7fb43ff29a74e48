"""The reference: runs each op's numpy meaning, node by node. Obvious, slow, and the oracle of every other back end."""

from __future__ import annotations

from graphc_reference.executable import ReferenceExecutable

__all__ = ["ReferenceExecutable"]
