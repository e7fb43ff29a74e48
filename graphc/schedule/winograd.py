"""The kernel specs of a Winograd convolution, in the form that is fastest on the target."""

from __future__ import annotations

from typing import Union

from graphc.kernel.choose import ConvShape, choose_form
from graphc.kernel.spec import ConvSpec, WinogradConv, WinogradInput, WinogradOutput, WinogradProduct, tile_buffer
from graphc.target import Target

ThreeSteps = tuple[WinogradInput, WinogradProduct, WinogradOutput]


def winograd_spec(conv: ConvSpec, algorithm: str, target: Target) -> Union[WinogradConv, ThreeSteps]:
    """One fused kernel, or the three steps with the whole map between them."""
    n, outputs, height, width = conv.output.shape
    inputs, lanes = conv.weight_shape[1], conv.x.layout.block
    choice = choose_form(ConvShape(n, inputs, outputs, height, width), algorithm, target)
    grid = ConvShape(n, inputs, outputs, height, width).grid(choice.m)
    if choice.tiles:
        return WinogradConv(conv, grid, choice.tiles, choice.chunk)
    transformed, product = (tile_buffer(conv.x.dtype, grid, grid.count, -(-channels // lanes), lanes) for channels in (inputs, outputs))
    return (
        WinogradInput(conv.x, conv.pad, grid, transformed),
        WinogradProduct(transformed, conv.weight_shape, product, grid, lanes, choice.chunk),
        WinogradOutput(product, conv, grid),
    )
