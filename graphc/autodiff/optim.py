"""Optimizers as graph builders: one update rule becomes nodes of the step's graph, its moments become state.

Names, defaults and formulas are PyTorch's (torch.optim); the learning rate is an input of the program, so that a schedule changes it
without compiling anew. `weight_decay` is coupled (added to the gradient) but for AdamW, where it is decoupled.

Every optimizer also takes `l1` and `l2`, which add l1 |p| + l2 / 2 p^2 of every entry to what is minimised (not to the loss that a step
returns), and `groups`: parameters that are treated otherwise, by name or rank:

    SGD(lr=0.1, weight_decay=5e-4, groups=[Group(max_rank=1, weight_decay=0.0), Group("head.*", lr_scale=10.0)])

Gradients are clipped before regularisation is added, as where PyTorch's optimizers add weight decay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops.express import Arithmetic
from graphc.ops.pointwise import Cast
from graphc.types.dtype import f64

__all__ = ["SGD", "RMSProp", "Adam", "AdamW", "Optimizer", "Group"]

SUFFIX = ":update"  # of the names of the nodes that update a parameter


@dataclass(frozen=True)
class Group:
    """Parameters whose names match one of the patterns (shell wildcards; none given: all) and that have at most `max_rank` axes.

    max_rank=1 are biases and the scales of normalisation. lr_scale multiplies the learning rate; weight_decay, l1 and l2 take the place
    of the optimizer's. A parameter belongs to the first group that it fits.
    """

    patterns: Sequence[str] | str = ()
    max_rank: int | None = None
    lr_scale: float = 1.0
    weight_decay: float | None = None
    l1: float | None = None
    l2: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", (self.patterns,) if isinstance(self.patterns, str) else tuple(self.patterns))
        _at_least(self, 0.0, "max_rank", "lr_scale", "weight_decay", "l1", "l2")

    def has(self, parameter: Value) -> bool:
        fits = not self.patterns or any(fnmatchcase(parameter.name, pattern) for pattern in self.patterns)
        return fits and (self.max_rank is None or parameter.type.rank <= self.max_rank)

    def check(self, parameters: Sequence[Value]) -> None:
        """Raises InputError for a pattern that no parameter matches."""
        for pattern in self.patterns:
            if not any(fnmatchcase(parameter.name, pattern) for parameter in parameters):
                some = ", ".join(parameter.name for parameter in parameters[:5])
                raise InputError(f"no trained parameter matches {pattern!r} of a group", hint=f"they are called {some}, ...")


@dataclass(frozen=True)
class Context:
    """What a rule may use: `rate`, the learning rate, and `count`, the number of this step from 1, both f64 scalars of the graph.

    `go`: a bool scalar; where it is false, all state keeps its old value (None: it is always true).
    """

    builder: Builder
    rate: Value
    count: Value
    go: Value | None = None

    @property
    def a(self) -> Arithmetic:
        return Arithmetic(self.builder)

    def like(self, scalar: Value, parameter: Value) -> Value:
        """A scalar in the dtype of the parameter."""
        return scalar if scalar.type.dtype == parameter.type.dtype else self.builder.add(Cast(parameter.type.dtype), scalar)

    def moment(self, parameter: Value, name: str) -> Value:
        """State of the shape of a parameter, zero at first, called `parameter.name`."""
        return self.builder.state(f"{parameter.name}.{name}", np.zeros(parameter.type.static_shape, parameter.type.dtype.numpy))

    def update(self, state: Value, value: Value) -> Value:
        """Make `value` the state after the step; returns what the state will be."""
        value = value if self.go is None else self.a("where", self.go, value, state)
        self.builder.graph.updates[state] = value
        return value


@dataclass(frozen=True)
class Optimizer(ABC):
    """`lr`: the learning rate of a step that is given none; `l1`, `l2`, `groups`: see the module."""

    lr: float
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)
    groups: Sequence[Group] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", (self.groups,) if isinstance(self.groups, Group) else tuple(self.groups))
        _at_least(self, 0.0, "lr", "weight_decay", "momentum", "eps", "l1", "l2")

    @abstractmethod
    def step(self, context: Context, parameter: Value, grad: Value) -> Value:
        """The parameter after the step; registers the updates of the moments."""

    def apply(self, builder: Builder, rate: Value, count: Value, pairs: Iterable[tuple[Value, Value]], go: Value | None = None) -> None:
        """Register the updates of all (parameter, gradient). go: a bool scalar without which nothing moves.

        Raises InputError for a pattern of a group that matches no parameter.
        """
        pairs = list(pairs)
        for group in self.groups:
            group.check([parameter for parameter, _ in pairs])
        contexts: dict[float, Context] = {}
        for parameter, grad in pairs:
            group = next((group for group in self.groups if group.has(parameter)), _REST)
            if group.lr_scale not in contexts:
                scaled = rate if group.lr_scale == 1 else Arithmetic(builder)("mul", rate, group.lr_scale)
                contexts[group.lr_scale] = Context(builder, scaled, count, go)
            context = contexts[group.lr_scale]
            start = len(builder.graph.nodes)
            context.update(parameter, self.of(group)._regularised_step(context, parameter, grad))
            for node in builder.graph.nodes[start:]:
                node.name = f"{parameter.name}{SUFFIX}"

    def of(self, group: Group) -> Optimizer:
        """The optimizer with the group's options."""
        given = {name: getattr(group, name) for name in ("weight_decay", "l1", "l2")}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def _regularised_step(self, context: Context, parameter: Value, grad: Value) -> Value:
        a = context.a
        grad = a("add", grad, a("mul", a("sign", parameter), self.l1)) if self.l1 else grad
        return self.step(context, parameter, _decayed(a, parameter, grad, self.l2))


@dataclass(frozen=True)
class SGD(Optimizer):
    """g += weight_decay p; b = momentum b + (1 - dampening) g (the first time b = g); g = g + momentum b where nesterov, else b;
    p -= lr g. torch.optim.SGD; Sutskever et al. 2013."""

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise AttributeValueError("nesterov with no momentum or with dampening", hint="momentum=0.9, dampening=0")

    def step(self, context: Context, parameter: Value, grad: Value) -> Value:
        a = context.a
        grad = _decayed(a, parameter, grad, self.weight_decay)
        if self.momentum:
            old = context.moment(parameter, "momentum_buffer")
            fresh = grad if self.dampening == 0 else a("mul", grad, self._damping(context, parameter))
            buffer = context.update(old, a("add", a("mul", old, self.momentum), fresh))
            grad = a("add", grad, a("mul", buffer, self.momentum)) if self.nesterov else buffer
        return a("sub", parameter, a("mul", grad, context.like(context.rate, parameter)))

    def _damping(self, context: Context, parameter: Value) -> Value:
        """1 in the first step, then 1 - dampening."""
        a = context.a
        first = a("less_equal", context.count, 1.0)
        return context.like(a("where", first, a.ones(context.count), 1.0 - self.dampening), parameter)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v = alpha v + (1 - alpha) g^2; d = sqrt(v) + eps (sqrt(v - m^2) + eps where centered, m the mean of g); b = momentum b + g / d;
    p -= lr b. torch.optim.RMSprop; Tieleman and Hinton 2012."""

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def step(self, context: Context, parameter: Value, grad: Value) -> Value:
        a = context.a
        grad = _decayed(a, parameter, grad, self.weight_decay)
        square = _average(context, context.moment(parameter, "square_avg"), a("mul", grad, grad), self.alpha)
        if self.centered:
            mean = _average(context, context.moment(parameter, "grad_avg"), grad, self.alpha)
            square = a("sub", square, a("mul", mean, mean))
        move = a("div", grad, a("add", a("sqrt", square), self.eps))
        if self.momentum:
            old = context.moment(parameter, "momentum_buffer")
            move = context.update(old, a("add", a("mul", old, self.momentum), move))
        return a("sub", parameter, a("mul", move, context.like(context.rate, parameter)))


@dataclass(frozen=True)
class Adam(Optimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).

    `amsgrad`: the largest v so far takes the place of v. torch.optim.Adam; Kingma and Ba 2015, arXiv:1412.6980. The corrections by powers
    are computed in float64, as PyTorch does.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise AttributeValueError(f"betas {self.betas}", hint="two numbers, at least 0 and below 1")

    def step(self, context: Context, parameter: Value, grad: Value) -> Value:
        a = context.a
        return a("sub", parameter, self._move(context, parameter, _decayed(a, parameter, grad, self.weight_decay)))

    def _move(self, context: Context, parameter: Value, grad: Value) -> Value:
        """What is subtracted."""
        a = context.a
        mean = _average(context, context.moment(parameter, "exp_avg"), grad, self.betas[0])
        square = _average(context, context.moment(parameter, "exp_avg_sq"), a("mul", grad, grad), self.betas[1])
        if self.amsgrad:
            old = context.moment(parameter, "max_exp_avg_sq")
            square = context.update(old, a("max", old, square))
        rate, scale = self._corrections(context)
        deviation = a("add", a("div", a("sqrt", square), context.like(scale, parameter)), self.eps)
        return a("mul", a("div", mean, deviation), context.like(rate, parameter))

    def _corrections(self, context: Context) -> tuple[Value, Value]:
        """lr / (1 - b1^t) and sqrt(1 - b2^t), f64 scalars."""
        a = context.a
        first, second = (a("sub", 1.0, a("pow", a.value(beta, f64), context.count)) for beta in self.betas)
        return a("div", context.rate, first), a("sqrt", second)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - lr weight_decay before the step. Loshchilov and Hutter 2019, arXiv:1711.05101."""

    weight_decay: float = 1e-2

    def step(self, context: Context, parameter: Value, grad: Value) -> Value:
        a = context.a
        move = self._move(context, parameter, grad)
        if self.weight_decay:
            keep = a("sub", 1.0, a("mul", context.rate, self.weight_decay))
            parameter = a("mul", parameter, context.like(keep, parameter))
        return a("sub", parameter, move)


def _decayed(a: Arithmetic, parameter: Value, grad: Value, weight_decay: float) -> Value:
    """The gradient of the loss plus weight_decay / 2 |p|^2."""
    return a("add", grad, a("mul", parameter, weight_decay)) if weight_decay else grad


def _average(context: Context, old: Value, fresh: Value, keep: float) -> Value:
    """keep * old + (1 - keep) * fresh, which becomes the state."""
    a = context.a
    return context.update(old, a("add", a("mul", old, keep), a("mul", fresh, 1.0 - keep)))


def _at_least(options: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(options, name, None)
        if value is not None and not value >= least:
            raise AttributeValueError(f"{type(options).__name__}: {name} = {value}", hint=f"at least {least}")


_REST = Group()
