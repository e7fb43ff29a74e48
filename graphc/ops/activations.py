"""Activation functions: rows of the pointwise table, as in a textbook's table.

Formulas follow the ONNX operator specification; where it writes exp(x) - 1 or log(exp(x) + 1), the accurate and overflow-free form of
the same function is used.
"""

from __future__ import annotations

import math

from graphc.kernel.expr import Expr, call, const, maximum, minimum, select
from graphc.ops.pointwise import FLOAT, NUMBER, SIGNED, row


def exp(x: Expr) -> Expr:
    return call("exp", x)


def expm1(x: Expr) -> Expr:
    return call("expm1", x)


def tanh(x: Expr) -> Expr:
    return call("tanh", x)


def sigmoid(x: Expr) -> Expr:
    """The logistic function 1 / (1 + exp(-x)); 0 and 1 at minus and plus infinity."""
    return 1 / (1 + exp(-x))


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)) without overflow. By select, not by abs and max, so that the slope at 0 is 1/2."""
    return select(x > 0, x, 0) + call("log1p", exp(select(x > 0, -x, x)))


row("tanh", tanh, onnx="Tanh", doc="y = tanh(x)", tolerance=8.0)
row("sigmoid", sigmoid, onnx="Sigmoid", doc="y = 1 / (1 + exp(-x))", tolerance=8.0)
row("step", lambda x: select(x >= 0, const(1, x.dtype), const(0, x.dtype)), NUMBER, doc="binary step: 1 where x >= 0, else 0 (NaN: 0)")
row("relu", lambda x: maximum(x, 0), SIGNED, onnx="Relu", doc="y = max(x, 0); NaN stays")
row("leaky_relu", lambda x, alpha: select(x < 0, x * alpha, x), onnx="LeakyRelu", alpha=0.01, doc="y = alpha x where x < 0, else x")
row("prelu", lambda x, slope: select(x < 0, x * slope, x), NUMBER, onnx="PRelu", doc="y = slope x where x < 0, else x")
row("thresholded_relu", lambda x, alpha: select((x > alpha) | call("isnan", x), x, 0), onnx="ThresholdedRelu", alpha=1.0,
    doc="y = x where x > alpha, else 0; NaN stays")  # fmt: skip
row("elu", lambda x, alpha: select(x < 0, expm1(x) * alpha, x), onnx="Elu", alpha=1.0, tolerance=8.0,
    doc="y = alpha (exp(x) - 1) where x < 0, else x")  # fmt: skip
row("selu", lambda x, alpha, gamma: select(x > 0, x, expm1(x) * alpha) * gamma, onnx="Selu", tolerance=8.0,
    alpha=1.6732632423543772, gamma=1.0507009873554805, doc="y = gamma (x where x > 0, else alpha (exp(x) - 1))")  # fmt: skip
row("celu", lambda x, alpha: maximum(x, 0) + minimum(expm1(x / alpha) * alpha, 0), onnx="Celu", alpha=1.0, tolerance=8.0,
    doc="y = max(0, x) + min(0, alpha (exp(x / alpha) - 1))")  # fmt: skip
row("softplus", softplus, onnx="Softplus", doc="y = log(1 + exp(x))", tolerance=8.0)
row("softsign", lambda x: x / (1 + abs(x)), onnx="Softsign", doc="y = x / (1 + |x|)")
row("log_sigmoid", lambda x: -softplus(-x), doc="y = log(1 / (1 + exp(-x)))", tolerance=8.0)
row("gaussian", lambda x: exp(-(x * x)), doc="y = exp(-x^2)", tolerance=8.0)
row("hard_sigmoid", lambda x, alpha, beta: maximum(minimum(x * alpha + beta, 1), 0), onnx="HardSigmoid", alpha=0.2, beta=0.5,
    doc="y = max(0, min(1, alpha x + beta))")  # fmt: skip
row("hard_swish", lambda x: x * maximum(minimum(x * (1 / 6) + 0.5, 1), 0), onnx="HardSwish", doc="y = x max(0, min(1, x / 6 + 0.5))")
row("silu", lambda x, alpha: x * sigmoid(x * alpha), onnx="Swish", alpha=1.0, tolerance=8.0, doc="y = x / (1 + exp(-alpha x)), also swish")
row("gelu", lambda x: x * 0.5 * (call("erf", x * math.sqrt(0.5)) + 1), onnx="Gelu", tolerance=8.0, doc="y = x/2 (1 + erf(x / sqrt 2))")
row("gelu_tanh", lambda x: x * 0.5 * (tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1), onnx="Gelu", tolerance=8.0,
    doc="y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))")  # fmt: skip
row("mish", lambda x: x * tanh(softplus(x)), onnx="Mish", tolerance=8.0, doc="y = x tanh(log(1 + exp(x)))")
row("shrink", lambda x, lambd, bias: select(x < -lambd, x + bias, select(x > lambd, x - bias, 0)), FLOAT, onnx="Shrink",
    lambd=0.5, bias=0.0, doc="y = x + bias where x < -lambd, x - bias where x > lambd, else 0")  # fmt: skip
