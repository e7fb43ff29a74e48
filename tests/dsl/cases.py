"""Every layer function of the DSL with what PyTorch says it means: data for test_layers.py.

A case builds one layer, called "l", on an input x of a given shape; `torch` gets x and the layer's parameters by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional
Params = Mapping[str, Any]  # torch.Tensor


@dataclass(frozen=True)
class Case:
    """`shape` of the float input, what to build on it, and what that is in torch."""

    title: str
    shape: tuple[int, ...]
    build: Callable[[graphc.Tensor], Any]
    torch: Callable[[Any, Params], Any]
    positive: bool = False  # inputs in 0.1 .. 2 instead of -2 .. 2


IMAGE, SEQUENCE, VOLUME, ROWS = (2, 6, 9, 8), (2, 4, 11), (1, 2, 5, 6, 4), (3, 7)


def _unary(name: str, torch_fn: Callable[[torch.Tensor], torch.Tensor], positive: bool = False) -> Case:
    return Case(name, ROWS, getattr(graphc, name), lambda x, p: torch_fn(x), positive)


CONV = [
    Case("conv1d", SEQUENCE, lambda x: graphc.conv1d(x, 5, 3, stride=2, padding=1, name="l"),
         lambda x, p: F.conv1d(x, p["l.weight"], p["l.bias"], 2, 1)),
    Case("conv2d", IMAGE, lambda x: graphc.conv2d(x, 5, (3, 2), stride=(1, 2), padding=(1, 0), name="l"),
         lambda x, p: F.conv2d(x, p["l.weight"], p["l.bias"], (1, 2), (1, 0))),
    Case("conv2d, groups, dilation, no bias", IMAGE,
         lambda x: graphc.conv2d(x, 9, 3, padding=2, dilation=2, groups=3, bias=False, name="l"),
         lambda x, p: F.conv2d(x, p["l.weight"], None, 1, 2, 2, 3)),
    Case("conv2d, same", IMAGE, lambda x: graphc.conv2d(x, 4, (4, 3), padding="same", name="l"),
         lambda x, p: F.conv2d(F.pad(x, (1, 1, 1, 2)), p["l.weight"], p["l.bias"])),
    Case("conv2d, same with stride", IMAGE, lambda x: graphc.conv2d(x, 4, 3, stride=2, padding="same", name="l"),
         lambda x, p: F.conv2d(F.pad(x, (0, 1, 1, 1)), p["l.weight"], p["l.bias"], 2)),
    Case("conv2d, pairs of pads, activation", IMAGE,
         lambda x: graphc.conv2d(x, 4, 3, padding=((0, 2), (1, 0)), activation="tanh", name="l"),
         lambda x, p: torch.tanh(F.conv2d(F.pad(x, (1, 0, 0, 2)), p["l.weight"], p["l.bias"]))),
    Case("conv3d", VOLUME, lambda x: graphc.conv3d(x, 3, (2, 3, 1), activation="relu", name="l"),
         lambda x, p: F.relu(F.conv3d(x, p["l.weight"], p["l.bias"]))),
    Case("depthwise_conv2d", IMAGE, lambda x: graphc.depthwise_conv2d(x, 3, padding=1, multiplier=2, name="l"),
         lambda x, p: F.conv2d(x, p["l.weight"], p["l.bias"], 1, 1, 1, 6)),
    Case("conv_transpose1d", SEQUENCE, lambda x: graphc.conv_transpose1d(x, 3, 3, stride=2, name="l"),
         lambda x, p: F.conv_transpose1d(x, p["l.weight"], p["l.bias"], 2)),
    Case("conv_transpose2d", IMAGE,
         lambda x: graphc.conv_transpose2d(x, 4, 3, stride=2, padding=1, output_padding=1, groups=2, name="l"),
         lambda x, p: F.conv_transpose2d(x, p["l.weight"], p["l.bias"], 2, 1, 1, 2)),
    Case("conv_transpose3d", VOLUME, lambda x: graphc.conv_transpose3d(x, 2, 2, bias=False, name="l"),
         lambda x, p: F.conv_transpose3d(x, p["l.weight"])),
]  # fmt: skip

POOL = [
    Case("max_pool1d", SEQUENCE, lambda x: graphc.max_pool1d(x, 3, stride=2), lambda x, p: F.max_pool1d(x, 3, 2)),
    Case("max_pool2d", IMAGE, lambda x: graphc.max_pool2d(x, 3, 2, padding=1, dilation=2), lambda x, p: F.max_pool2d(x, 3, 2, 1, 2)),
    Case("max_pool2d, ceil", IMAGE, lambda x: graphc.max_pool2d(x, 2, ceil=True), lambda x, p: F.max_pool2d(x, 2, ceil_mode=True)),
    Case("max_pool3d", VOLUME, lambda x: graphc.max_pool3d(x, 2), lambda x, p: F.max_pool3d(x, 2)),
    Case("avg_pool1d", SEQUENCE, lambda x: graphc.avg_pool1d(x, 4), lambda x, p: F.avg_pool1d(x, 4)),
    Case("avg_pool2d", IMAGE, lambda x: graphc.avg_pool2d(x, 3, 2, padding=1),
         lambda x, p: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    Case("avg_pool2d, padding counts", IMAGE, lambda x: graphc.avg_pool2d(x, 3, 2, padding=1, count_include_pad=True),
         lambda x, p: F.avg_pool2d(x, 3, 2, 1)),
    Case("avg_pool3d", VOLUME, lambda x: graphc.avg_pool3d(x, 2), lambda x, p: F.avg_pool3d(x, 2)),
    Case("lp_pool1d", SEQUENCE, lambda x: graphc.lp_pool1d(x, 1, 2), lambda x, p: F.lp_pool1d(abs(x), 1, 2)),
    Case("lp_pool2d", IMAGE, lambda x: graphc.lp_pool2d(x, 2, 3, stride=2), lambda x, p: F.lp_pool2d(x, 2, 3, 2)),
    Case("lp_pool3d", VOLUME, lambda x: graphc.lp_pool3d(x, 2, 2), lambda x, p: (F.avg_pool3d(x * x, 2) * 8).sqrt()),
    Case("global_avg_pool", IMAGE, graphc.global_avg_pool, lambda x, p: x.mean((2, 3), keepdim=True)),
    Case("global_max_pool", IMAGE, graphc.global_max_pool, lambda x, p: x.amax((2, 3), keepdim=True)),
    Case("global_lp_pool", IMAGE, lambda x: graphc.global_lp_pool(x, 2), lambda x, p: (x * x).sum((2, 3), keepdim=True).sqrt()),
    Case("adaptive_avg_pool2d, even", IMAGE, lambda x: graphc.adaptive_avg_pool2d(x, (3, 2)),
         lambda x, p: F.adaptive_avg_pool2d(x, (3, 2))),
    Case("adaptive_avg_pool2d", IMAGE, lambda x: graphc.adaptive_avg_pool2d(x, (4, 3)), lambda x, p: F.adaptive_avg_pool2d(x, (4, 3))),
    Case("adaptive_max_pool2d", IMAGE, lambda x: graphc.adaptive_max_pool2d(x, 5), lambda x, p: F.adaptive_max_pool2d(x, 5)),
]  # fmt: skip

NORM = [
    Case("batch_norm", IMAGE, lambda x: graphc.batch_norm(x, epsilon=1e-3, activation="relu", name="l"), lambda x, p: F.relu(
        F.batch_norm(x, p["l.running_mean"], p["l.running_var"], p["l.weight"], p["l.bias"], eps=1e-3))),
    Case("batch_norm, not affine", ROWS, lambda x: graphc.batch_norm(x, affine=False, name="l"),
         lambda x, p: F.batch_norm(x, p["l.running_mean"], p["l.running_var"])),
    Case("instance_norm", IMAGE, lambda x: graphc.instance_norm(x, name="l"),
         lambda x, p: F.instance_norm(x, weight=p["l.weight"], bias=p["l.bias"])),
    Case("group_norm", IMAGE, lambda x: graphc.group_norm(x, 3, name="l"), lambda x, p: F.group_norm(x, 3, p["l.weight"], p["l.bias"])),
    Case("group_norm, not affine", IMAGE, lambda x: graphc.group_norm(x, 2, affine=False), lambda x, p: F.group_norm(x, 2)),
    Case("layer_norm", IMAGE, lambda x: graphc.layer_norm(x, axis=2, name="l"),
         lambda x, p: F.layer_norm(x, (9, 8), p["l.weight"], p["l.bias"])),
    Case("layer_norm, not affine", ROWS, lambda x: graphc.layer_norm(x, affine=False), lambda x, p: F.layer_norm(x, (7,))),
    Case("rms_norm", ROWS, lambda x: graphc.rms_norm(x, name="l"), lambda x, p: F.rms_norm(x, (7,), p["l.weight"], 1e-5)),
    Case("lrn", IMAGE, lambda x: graphc.local_response_norm(x, 5, alpha=0.1, beta=0.6, bias=2.0),
         lambda x, p: F.local_response_norm(x, 5, 0.1, 0.6, 2.0)),
    Case("prelu", IMAGE, lambda x: graphc.prelu(x, name="l"), lambda x, p: F.prelu(x, p["l.weight"])),
]  # fmt: skip

MATRIX = [
    Case("linear", ROWS, lambda x: graphc.linear(x, 5, activation="sigmoid", name="l"),
         lambda x, p: torch.sigmoid(F.linear(x, p["l.weight"], p["l.bias"]))),
    Case("linear, rank 3", SEQUENCE, lambda x: graphc.dense(x, 3, bias=False, activation="softmax", name="l"),
         lambda x, p: F.linear(x, p["l.weight"]).softmax(-1)),
    Case("embedding", ROWS, lambda x: graphc.embedding(graphc.cast(x > 0, "int64") * 2, 4, 3, dtype=graphc.f64, name="l"),
         lambda x, p: F.embedding((x > 0).long() * 2, p["l.weight"])),
    Case("matmul", SEQUENCE, lambda x: x @ x.transpose(0, 2, 1), lambda x, p: x @ x.transpose(1, 2)),
    Case("matmul of a vector", ROWS, lambda x: x @ x[0], lambda x, p: x @ x[0]),
    Case("einsum", SEQUENCE, lambda x: graphc.einsum("nct,mct->nm", x, x), lambda x, p: torch.einsum("nct,mct->nm", x, x)),
]  # fmt: skip

_TO_TORCH = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}  # our gates in PyTorch's order


def _recurrent(kind: str, x: torch.Tensor, p: Params, layers: int = 1, bidirectional: bool = False, lengths: Any = None) -> Any:
    """PyTorch's module with our parameters: y, h (and c) as one flat vector."""
    units, d = p["l.0.recurrent_weight"].shape[2], 2 if bidirectional else 1
    module = getattr(torch.nn, kind.upper())(x.shape[2], units, layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float64)

    def ordered(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows.split(units)[gate] for gate in _TO_TORCH[kind]])

    for layer in range(layers):
        for k in range(d):
            end = f"l{layer}" + ("_reverse" if k else "")
            inside = torch.zeros_like(p[f"l.{layer}.bias"][k])
            if kind == "gru":
                inside[2 * units :] = p[f"l.{layer}.recurrent_bias"][k]
            new = {"weight_ih": p[f"l.{layer}.weight"][k], "weight_hh": p[f"l.{layer}.recurrent_weight"][k], "bias_hh": inside,
                   "bias_ih": p[f"l.{layer}.bias"][k]}  # fmt: skip
            for key, value in new.items():
                getattr(module, f"{key}_{end}").data.copy_(ordered(value))
    given = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = module(given)
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
    states = last if kind == "lstm" else (last,)
    return torch.cat([part.flatten() for part in (y, *(state.transpose(0, 1) for state in states))]).detach()


def _flat(parts: Any) -> Any:
    return graphc.concat([part.reshape(-1) for part in parts], axis=0)


def _lengths() -> Any:
    return graphc.constant(np.array([2, 4], np.int64))


STEPS = (2, 4, 5)
RECURRENT = [
    Case("rnn", STEPS, lambda x: _flat(graphc.rnn(x, 3, name="l")), lambda x, p: _recurrent("rnn", x, p)),
    Case("lstm", STEPS, lambda x: _flat(graphc.lstm(x, 3, name="l")), lambda x, p: _recurrent("lstm", x, p)),
    Case("gru", STEPS, lambda x: _flat(graphc.gru(x, 3, name="l")), lambda x, p: _recurrent("gru", x, p)),
    *(Case(f"{kind}, two layers, bidirectional, lengths", STEPS,
           lambda x, kind=kind: _flat(getattr(graphc, kind)(x, 3, 2, bidirectional=True, dropout=0.5, lengths=_lengths(), name="l")),
           lambda x, p, kind=kind: _recurrent(kind, x, p, 2, True, torch.tensor([2, 4]))) for kind in ("rnn", "lstm", "gru")),
]  # fmt: skip



def _running_mean(x: Any) -> Any:
    y, _ = graphc.scan(lambda m, xt: (m * 0.5 + xt * 0.5,) * 2, x, x[:, 0])
    return y


def _running_mean_by_torch(x: torch.Tensor, p: Params) -> torch.Tensor:
    rows = [x[:, 0]]
    for t in range(x.shape[1]):
        rows.append(rows[-1] * 0.5 + x[:, t] * 0.5)
    return torch.stack(rows[1:], 1)


CONTROL = [
    Case("scan", STEPS, _running_mean, _running_mean_by_torch),
    Case("while_loop", ROWS, lambda x: graphc.while_loop(lambda v: graphc.any(graphc.abs(v) > 0.5), lambda v: v * 0.5, x),
         lambda x, p: x * 0.5 ** torch.ceil(torch.log2(x.abs().max() / 0.5)).clamp(min=0)),
    Case("cond", ROWS, lambda x: graphc.cond(x.sum() > 0.0, lambda: graphc.linear(x, 4, name="l"), lambda: x[:, :4] * 2.0, name="c"),
         lambda x, p: F.linear(x, p["c.then.l.weight"], p["c.then.l.bias"]) if x.sum() > 0 else x[:, :4] * 2),
]  # fmt: skip

ACTIVATION = [
    _unary("relu", F.relu), _unary("relu6", F.relu6), _unary("elu", F.elu), _unary("selu", F.selu), _unary("celu", F.celu),
    _unary("gelu", F.gelu), _unary("silu", F.silu), _unary("swish", F.silu), _unary("mish", F.mish), _unary("softplus", F.softplus),
    _unary("softsign", F.softsign), _unary("sigmoid", torch.sigmoid), _unary("log_sigmoid", F.logsigmoid), _unary("tanh", torch.tanh),
    _unary("hard_swish", F.hardswish), _unary("hard_tanh", F.hardtanh), _unary("gaussian", lambda x: torch.exp(-x * x)),
    _unary("step", lambda x: (x >= 0).double()), _unary("hard_sigmoid", lambda x: torch.clamp(0.2 * x + 0.5, 0, 1)),
    _unary("softmax", lambda x: x.softmax(-1)), _unary("log_softmax", lambda x: x.log_softmax(-1)), _unary("dropout", lambda x: x),
    Case("leaky_relu", ROWS, lambda x: graphc.leaky_relu(x, 0.3), lambda x, p: F.leaky_relu(x, 0.3)),
    Case("thresholded_relu", ROWS, lambda x: graphc.thresholded_relu(x, alpha=0.5), lambda x, p: F.threshold(x, 0.5, 0.0)),
    Case("gelu, tanh", ROWS, lambda x: graphc.gelu(x, approximate="tanh"), lambda x, p: F.gelu(x, approximate="tanh")),
    Case("silu, alpha", ROWS, lambda x: graphc.silu(x, alpha=1.7), lambda x, p: x * torch.sigmoid(1.7 * x)),
    Case("shrink", ROWS, lambda x: graphc.shrink(x, lambd=0.4, bias=0.4), lambda x, p: F.softshrink(x, 0.4)),
    Case("softmax over channels", IMAGE, lambda x: graphc.softmax(x, axis=1), lambda x, p: x.softmax(1)),
]  # fmt: skip

POINTWISE = [
    *(_unary(name, getattr(torch, name)) for name in (
        "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "expm1", "floor", "round", "sign", "sin", "sinh", "tan", "trunc", "asinh")),
    *(_unary(name, getattr(torch, name), positive=True) for name in ("log", "log1p", "sqrt", "reciprocal")),
    Case("acos", ROWS, lambda x: graphc.acos(x / 2.5), lambda x, p: torch.acos(x / 2.5)),
    Case("asin", ROWS, lambda x: graphc.asin(x / 2.5), lambda x, p: torch.asin(x / 2.5)),
    Case("atanh", ROWS, lambda x: graphc.atanh(x / 2.5), lambda x, p: torch.atanh(x / 2.5)),
    Case("acosh", ROWS, lambda x: graphc.acosh(x + 1.0), lambda x, p: torch.acosh(x + 1.0), positive=True),
    Case("clip", ROWS, lambda x: graphc.clip(x, lo=-0.5), lambda x, p: x.clamp(min=-0.5)),
    Case("pow", ROWS, lambda x: graphc.pow(x, 1.5), lambda x, p: x**1.5, positive=True),
    Case("where", ROWS, lambda x: graphc.where(x > 0.2, x, 3.0), lambda x, p: torch.where(x > 0.2, x, 3.0)),
    Case("minimum", ROWS, lambda x: graphc.minimum(x, -x, 0.5), lambda x, p: torch.minimum(x, -x).clamp(max=0.5)),
    Case("maximum", ROWS, lambda x: graphc.maximum(x, 0.1), lambda x, p: x.clamp(min=0.1)),
    Case("isnan, isinf", ROWS, lambda x: graphc.isnan(graphc.log(x)) | graphc.isinf(x / (x - x)), lambda x, p: x == x),
]  # fmt: skip

MOVEMENT = [
    Case("reshape", IMAGE, lambda x: graphc.reshape(x, (3, 4, -1)), lambda x, p: x.reshape(3, 4, -1)),
    Case("flatten", IMAGE, graphc.flatten, lambda x, p: x.flatten(1)),
    Case("flatten from axis 2", IMAGE, lambda x: x.flatten(2), lambda x, p: x.flatten(2)),
    Case("transpose", IMAGE, lambda x: x.transpose(0, 2, 3, 1), lambda x, p: x.permute(0, 2, 3, 1)),
    Case("T", ROWS, lambda x: x.T, lambda x, p: x.T),
    Case("squeeze, unsqueeze", ROWS, lambda x: graphc.squeeze(graphc.unsqueeze(x, (0, -1)), -1), lambda x, p: x[None]),
    Case("expand", ROWS, lambda x: x.expand(2, 3, 7), lambda x, p: x.expand(2, 3, 7)),
    Case("concat", IMAGE, lambda x: graphc.concat([x, x * 2]), lambda x, p: torch.cat([x, x * 2], 1)),
    Case("stack", ROWS, lambda x: graphc.stack([x, -x], axis=1), lambda x, p: torch.stack([x, -x], 1)),
    Case("split", IMAGE, lambda x: graphc.split(x, 3)[1], lambda x, p: x.split(2, 1)[1]),
    Case("split in sizes", IMAGE, lambda x: graphc.split(x, [1, 5], axis=3 - 2)[1], lambda x, p: x[:, 1:]),
    Case("pad", IMAGE, lambda x: graphc.pad(x, [(1, 2), 3], value=1.5), lambda x, p: F.pad(x, (3, 3, 1, 2), value=1.5)),
    Case("pad, reflect", IMAGE, lambda x: graphc.pad(x, [2, 1], mode="reflect"), lambda x, p: F.pad(x, (1, 1, 2, 2), mode="reflect")),
    Case("tile", ROWS, lambda x: graphc.tile(x, (2, 3)), lambda x, p: x.tile(2, 3)),
    Case("flip", ROWS, lambda x: graphc.flip(x, -1), lambda x, p: x.flip(-1)),
    Case("gather", ROWS, lambda x: graphc.gather(x, [2, -1, 0], axis=1), lambda x, p: x[:, [2, -1, 0]]),
    Case("gather_elements", ROWS, lambda x: graphc.gather_elements(x, graphc.cast(x > 0, graphc.i64), 1),
         lambda x, p: x.gather(1, (x > 0).long())),
    Case("gather_nd", ROWS, lambda x: graphc.gather_nd(x, graphc.constant(np.array([[2, -1], [0, 3]]))), lambda x, p: x[[2, 0], [-1, 3]]),
    Case("scatter_elements", ROWS, lambda x: graphc.scatter_elements(x, graphc.cast(x > 0, graphc.i64), x * 2, 1, "add"),
         lambda x, p: x.scatter_add(1, (x > 0).long(), x * 2)),
    Case("scatter_nd", ROWS, lambda x: graphc.scatter_nd(x, graphc.constant(np.array([[2], [0]])), x[:2] * 3),
         lambda x, p: torch.stack([x[1] * 3, x[1], x[0] * 3])),
    Case("one_hot", ROWS, lambda x: graphc.one_hot(graphc.cast(x > 0, graphc.i64), 3), lambda x, p: F.one_hot((x > 0).long(), 3)),
    Case("sequence_mask", ROWS, lambda x: graphc.sequence_mask(graphc.cast(x > 0, graphc.i64).sum(1), x.shape[1]),
         lambda x, p: torch.arange(7)[None] < (x > 0).sum(1, keepdim=True)),
    Case("sequence_mask, dtype", ROWS, lambda x: x * graphc.sequence_mask(graphc.constant(np.array([9, -1, 2], np.int32)), 7, x.dtype),
         lambda x, p: torch.stack([x[0], 0 * x[1], x[2] * (torch.arange(7) < 2)])),
    Case("sample, temperature 0", ROWS, lambda x: graphc.sample(x, temperature=0), lambda x, p: x.argmax(-1)),
    Case("triu", ROWS, lambda x: graphc.triu(x, 1), lambda x, p: x.triu(1)),
    Case("tril", ROWS, graphc.tril, lambda x, p: x.tril()),
    Case("pixel_shuffle", (1, 8, 3, 2), lambda x: graphc.pixel_shuffle(x, 2), lambda x, p: F.pixel_shuffle(x, 2)),
    Case("depth_to_space", (1, 8, 3, 2), lambda x: graphc.depth_to_space(x, 2, "CRD"), lambda x, p: F.pixel_shuffle(x, 2)),
    Case("space_to_depth", (1, 2, 6, 4), lambda x: graphc.space_to_depth(x, 2, "CRD"), lambda x, p: F.pixel_unshuffle(x, 2)),
    Case("channel_shuffle", IMAGE, lambda x: graphc.channel_shuffle(x, 3),
         lambda x, p: x.reshape(2, 3, 2, 9, 8).transpose(1, 2).reshape(IMAGE)),
    Case("resize, nearest", IMAGE, lambda x: graphc.resize(x, (14, 5)), lambda x, p: F.interpolate(x, (14, 5))),
    Case("upsample, nearest", IMAGE, graphc.upsample, lambda x, p: F.interpolate(x, scale_factor=2)),
    Case("resize, linear", IMAGE, lambda x: graphc.resize(x, (14, 5), mode="linear"),
         lambda x, p: F.interpolate(x, (14, 5), mode="bilinear")),
    Case("resize, corners", IMAGE, lambda x: graphc.resize(x, 12, mode="bilinear", align_corners=True),
         lambda x, p: F.interpolate(x, 12, mode="bilinear", align_corners=True)),
    Case("resize, cubic", IMAGE, lambda x: graphc.resize(x, (14, 12), mode="cubic"),
         lambda x, p: F.interpolate(x, (14, 12), mode="bicubic")),
    Case("constant, zeros, ones, arange", ROWS, lambda x: (
            x + graphc.constant([[1]], x.dtype) + graphc.zeros((7,), x.dtype)
            + graphc.arange(7, dtype=x.dtype) * graphc.ones((1,), x.dtype)),
         lambda x, p: x + 1 + torch.arange(7)),
]  # fmt: skip

REDUCTION = [
    Case("sum", IMAGE, lambda x: x.sum(), lambda x, p: x.sum()),
    Case("mean", IMAGE, lambda x: x.mean((2, -1), keepdims=True), lambda x, p: x.mean((2, 3), keepdim=True)),
    Case("max", IMAGE, lambda x: x.max(1), lambda x, p: x.amax(1)),
    Case("min", IMAGE, lambda x: x.min((0, 1)), lambda x, p: x.amin((0, 1))),
    Case("prod", ROWS, lambda x: graphc.prod(x, 1), lambda x, p: x.prod(1)),
    Case("norm_l1", ROWS, lambda x: graphc.norm_l1(x, 1), lambda x, p: x.abs().sum(1)),
    Case("norm_l2", ROWS, lambda x: graphc.norm_l2(x), lambda x, p: x.norm()),
    Case("log_sum_exp", ROWS, lambda x: graphc.log_sum_exp(x, 0), lambda x, p: x.logsumexp(0)),
    Case("any", ROWS, lambda x: graphc.any(x > 1.5, 1), lambda x, p: (x > 1.5).any(1)),
    Case("all", ROWS, lambda x: graphc.all(x < 1.5, 0), lambda x, p: (x < 1.5).all(0)),
    Case("argmax", ROWS, lambda x: x.argmax(-1), lambda x, p: x.argmax(-1)),
    Case("argmin", ROWS, lambda x: graphc.argmin(x, 0, keepdims=True), lambda x, p: x.argmin(0, keepdim=True)),
    Case("cumsum", ROWS, lambda x: graphc.cumsum(x, 1), lambda x, p: x.cumsum(1)),
    Case("topk, values", ROWS, lambda x: graphc.topk(x, 3)[0], lambda x, p: x.topk(3).values),
    Case("topk, positions", ROWS, lambda x: graphc.topk(x, 3, axis=0, largest=False)[1], lambda x, p: x.topk(3, 0, largest=False).indices),
]  # fmt: skip

LABELS = [2, 0, 6]
LOSS = [
    Case("cross_entropy", ROWS, lambda x: graphc.cross_entropy(x, graphc.constant(LABELS)),
         lambda x, p: F.cross_entropy(x, torch.tensor(LABELS))),
    Case("cross_entropy, ignored, sum", ROWS, lambda x: graphc.cross_entropy(x, graphc.constant(LABELS), ignore_index=0, reduction="sum"),
         lambda x, p: F.cross_entropy(x, torch.tensor(LABELS), ignore_index=0, reduction="sum")),
    Case("nll_loss", ROWS, lambda x: graphc.nll_loss(graphc.log_softmax(x), graphc.constant(LABELS)),
         lambda x, p: F.cross_entropy(x, torch.tensor(LABELS))),
    Case("mse_loss", ROWS, lambda x: graphc.mse_loss(x, 0.5), lambda x, p: ((x - 0.5) ** 2).mean()),
    Case("l1_loss", ROWS, lambda x: graphc.l1_loss(x, x * x, reduction="none"), lambda x, p: (x - x * x).abs()),
    Case("huber_loss", ROWS, lambda x: graphc.huber_loss(x, x * x, delta=0.7), lambda x, p: F.huber_loss(x, x * x, delta=0.7)),
    Case("smooth_l1_loss", ROWS, lambda x: graphc.smooth_l1_loss(x, x * x, 0.7), lambda x, p: F.smooth_l1_loss(x, x * x, beta=0.7)),
    Case("binary_cross_entropy", ROWS, lambda x: graphc.binary_cross_entropy(graphc.sigmoid(x), 0.25),
         lambda x, p: F.binary_cross_entropy(x.sigmoid(), torch.full_like(x, 0.25))),
    Case("cross_entropy, weight", ROWS,
         lambda x: graphc.cross_entropy(x, graphc.constant(LABELS), weight=range(1, x.shape[1] + 1), label_smoothing=0.3),
         lambda x, p: F.cross_entropy(x, torch.tensor(LABELS), torch.arange(1, x.shape[1] + 1, dtype=x.dtype), label_smoothing=0.3)),
    Case("binary_cross_entropy_with_logits, weight", ROWS, lambda x: graphc.binary_cross_entropy_with_logits(x, 0.25, pos_weight=3.0),
         lambda x, p: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.25), pos_weight=torch.tensor(3.0))),
    Case("binary_cross_entropy_with_logits", ROWS, lambda x: graphc.binary_cross_entropy_with_logits(x, 0.25),
         lambda x, p: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.25))),
]  # fmt: skip

CASES = [*CONV, *POOL, *NORM, *MATRIX, *RECURRENT, *CONTROL, *ACTIVATION, *POINTWISE, *MOVEMENT, *REDUCTION, *LOSS]
