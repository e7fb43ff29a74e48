"""Weights in the order in which the register tile reads them: [chunk][ic block][kernel position][channel][oc block of chunk][lane].

With groups an ic block is the plan's unit of channels, and every chunk takes the room of the largest window."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.kernels.conv_plan import ConvPlan, chunk_channels, conv_plan, group_of, is_depthwise
from graphc_cpu.kernels.conv_rows import is_rowwise, pack_rows_weight

Array = npt.NDArray[Any]


def pack_conv_weight(spec: ConvSpec, target: Target, w: Array) -> Array:
    """w (OC, IC/groups, *kernel) -> the flat array that the kernel of this spec and target takes; zero in the padding lanes."""
    if is_depthwise(spec):
        return _pack_depthwise(w, target.lanes(spec.x.dtype), spec.x.dtype.numpy)
    if is_rowwise(spec, target):
        return pack_rows_weight(spec, w)
    return pack_for(spec, conv_plan(spec, target), w)


def pack_for(spec: ConvSpec, plan: ConvPlan, w: Array) -> Array:
    """The same for a kernel of register tiles with that plan."""
    flat = np.ascontiguousarray(w, spec.x.dtype.numpy).reshape(*spec.weight_shape[:2], -1)
    parts = []
    for chunk in range(plan.chunks.parts):
        first, last = chunk_channels(plan.chunks, chunk, plan.lanes, spec.weight_shape[0])
        blocks = -(-(last - first) // plan.lanes)
        dense = np.zeros((blocks * plan.lanes, plan.window, plan.taps), flat.dtype)
        _place(spec, plan, flat[first:last], first, dense)
        parts.append(_pack_chunk(dense.reshape(blocks, plan.lanes, plan.window, plan.taps), plan.unit))
    return np.concatenate(parts)


def _place(spec: ConvSpec, plan: ConvPlan, rows: Array, first: int, dense: Array) -> None:
    """Rows of one chunk into the window of input channels that it reads; channels of other groups stay zero."""
    if spec.groups == 1:
        dense[: len(rows)] = rows
        return
    per_group, start = spec.weight_shape[1], group_of(spec, first) * spec.weight_shape[1]
    for i, row in enumerate(rows):
        channel = group_of(spec, first + i) * per_group - start
        dense[i, channel : channel + per_group] = row


def _pack_chunk(dense: Array, unit: int) -> Array:
    """(oc blocks, lanes, channels, taps) -> flat, in blocks of `unit` channels; the last block may have fewer."""
    blocks, lanes, channels, taps = dense.shape
    full = channels // unit
    whole = dense[:, :, : full * unit].reshape(blocks, lanes, full, unit, taps).transpose(2, 4, 3, 0, 1)
    rest = dense[:, :, full * unit :].transpose(3, 2, 0, 1)
    return np.concatenate([whole.ravel(), rest.ravel()])


def _pack_depthwise(w: Array, lanes: int, dtype: np.dtype[Any]) -> Array:
    """(C, 1, *kernel) -> [channel block][kernel position][lane]."""
    channels = w.shape[0]
    wide = np.zeros((-(-channels // lanes) * lanes, w[0].size), dtype)
    wide[:channels] = w.reshape(channels, -1)
    return wide.reshape(-1, lanes, wide.shape[1]).transpose(0, 2, 1).ravel()
