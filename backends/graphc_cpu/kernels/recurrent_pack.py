"""Recurrent weights in the order in which the kernel reads them; `graphc.schedule.recurrent.pack_spec` is the same for run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec


def pack_recurrent_weight(spec: RecurrentSpec, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(D, G*H, H) -> flat [direction][unit group][phase][vectors of a tile][k][vector][lane], zeros in the lanes beyond the last unit."""
    d, gates, hidden, tile = spec.directions, spec.gates, spec.hidden, spec.tile
    wide = np.zeros((d, gates, spec.unit_groups * tile.units * tile.lanes, hidden), spec.dtype.numpy)
    wide[:, :, :hidden] = weights.reshape(d, gates, hidden, hidden)
    by_item = wide.reshape(d, gates, spec.unit_groups, tile.units, tile.lanes, hidden)
    parts = []
    for phase in spec.cell.phases:
        some = by_item[:, phase.first : phase.first + phase.gates].transpose(0, 2, 5, 3, 1, 4)  # d, group, k, unit, gate, lane
        vectors = some.reshape(d, spec.unit_groups, hidden, -1, tile.vectors, tile.lanes)
        parts.append(vectors.transpose(0, 1, 3, 2, 4, 5).reshape(d, spec.unit_groups, -1))
    return np.concatenate(parts, axis=2).reshape(-1)


def pack_for_gradient(spec: RecurrentGradSpec, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(D, G*H, H) -> flat [direction][unit group][phase][vectors of a tile][k over the phase's gates][vector][lane]."""
    d, hidden, tile = spec.directions, spec.hidden, spec.tile
    wide = np.zeros((d, spec.gates * hidden, spec.unit_groups * tile.units * tile.lanes), spec.dtype.numpy)
    wide[:, :, :hidden] = weights
    parts = []
    for phase in spec.cell.phases:
        some = wide[:, phase.first * hidden : (phase.first + phase.gates) * hidden]
        vectors = some.reshape(d, phase.gates * hidden, spec.unit_groups, -1, tile.vectors, tile.lanes)
        parts.append(vectors.transpose(0, 2, 3, 1, 4, 5).reshape(d, spec.unit_groups, -1))
    return np.concatenate(parts, axis=2).reshape(-1)
