"""Sizes of symbolic dims: what FLOPs, plans and random inputs need to know."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.graph import Array, Graph
from graphc.types.shape import Dim


def assume_one(graph: Graph) -> dict[str, int]:
    """Size 1 for every symbolic dim that is left."""
    return dict.fromkeys(sorted(graph.symbols), 1)


def sizes_of(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that arrays give to the plain symbols in the shapes of their inputs; the first one that names a symbol decides."""
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        for dim, size in zip(value.type.shape, feeds[value.name].shape, strict=True):
            if isinstance(dim, Dim) and dim.symbols == {str(dim)}:
                sizes.setdefault(str(dim), size)
    return sizes
