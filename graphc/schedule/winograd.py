"""The kernel specs of a Winograd convolution, in the form that was chosen."""

from __future__ import annotations

from typing import Union

from graphc.kernel.choose import Candidate, ConvShape
from graphc.kernel.spec import ConvSpec, WinogradConv, WinogradInput, WinogradOutput, WinogradProduct, tile_buffer

ThreeSteps = tuple[WinogradInput, WinogradProduct, WinogradOutput]


def shape_of(conv: ConvSpec) -> ConvShape:
    """What the choice for a 2-d convolution depends on."""
    n, outputs, height, width = conv.output.shape
    return ConvShape(n, conv.weight_shape[1], outputs, height, width)


def winograd_spec(conv: ConvSpec, choice: Candidate) -> Union[WinogradConv, ThreeSteps]:
    """One fused kernel, or the three steps with the whole map between them."""
    (outputs, inputs), lanes = conv.weight_shape[:2], conv.x.layout.block
    grid = shape_of(conv).grid(choice.m)
    if choice.tiles:
        return WinogradConv(conv, grid, choice.tiles, choice.chunk)
    transformed, product = (tile_buffer(conv.x.dtype, grid, grid.count, -(-channels // lanes), lanes) for channels in (inputs, outputs))
    return (
        WinogradInput(conv.x, conv.pad, grid, transformed),
        WinogradProduct(transformed, conv.weight_shape, product, grid, lanes, choice.chunk),
        WinogradOutput(product, conv, grid),
    )
