"""How the elements of a tensor lie in memory.

`PLAIN` is row-major. A blocked layout stores a tensor of shape (N, C, *spatial) as [N][ceil(C/block)][*spatial plus halo][block]:
`block` channels of one pixel are neighbours, so a vector register holds one pixel. The lanes beyond C hold zeros. `halo` gives, per
spatial dim, the zero pixels (before, after) that lie physically around the map, so that a convolution reads its padding as data.
A plain layout may have a halo too (the first layer reads NCHW directly).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    block: int = 0
    halo: tuple[tuple[int, int], ...] = ()

    @property
    def is_blocked(self) -> bool:
        return self.block > 0

    @property
    def has_halo(self) -> bool:
        return any(before or after for before, after in self.halo)

    def __str__(self) -> str:
        text = f"c{self.block}" if self.block else "plain"
        return text + ("+" + ",".join(f"{b}:{a}" for b, a in self.halo) if self.has_halo else "")


PLAIN = Layout()
