"""Gradients of loops and choices: against finite differences, against layers of equal meaning, against PyTorch; training steps on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autodiff.reverse import unsupported_gradients
from graphc.errors import UnsupportedError
from graphc_reference import ReferenceExecutable

Array = np.ndarray[Any, np.dtype[Any]]
N, T, D, H = 2, 5, 3, 4


def _zeros(x: graphc.Tensor, units: int = H) -> graphc.Tensor:
    return graphc.expand(graphc.constant(np.zeros((1, units), x.dtype.numpy)), (x.shape[0], units))


def _check_differences(model: graphc.Model, feeds: dict[str, Array], wrt: list[str] | None = None, count: int = 4) -> None:
    """Every gradient along random directions, against a central difference of the loss in float64; machine code like the reference."""
    graph = graphc.grad(model, wrt)
    exact, compiled = ReferenceExecutable(graph).run(feeds), graphc.compile(graph).run(feeds)
    parameters = model.parameters()
    rng = np.random.default_rng(0)
    for name, grad in exact.items():
        np.testing.assert_allclose(compiled[name], grad, rtol=1e-9, atol=1e-10)
        if not name.startswith("grad("):
            continue
        changed = name[5:-1]
        for _ in range(count):
            direction = rng.standard_normal(grad.shape)
            ahead, behind = (_loss(model, parameters, feeds, changed, sign * 1e-6 * direction) for sign in (1, -1))
            assert (grad * direction).sum() == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7), changed


def _loss(model: graphc.Model, parameters: dict[str, Array], feeds: dict[str, Array], name: str, move: Array) -> float:
    given = {**parameters, **feeds}
    given[name] = given[name] + move
    graph = model.graph(parameters={key: given[key] for key in parameters})
    return float(next(iter(ReferenceExecutable(graph).run({key: given[key] for key in feeds}).values())))


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse: bool) -> None:
    """States, results, scanned and captured values, an initial state that depends on a parameter, an integer state."""

    @graphc.model
    def net(x: graphc.f64["N", "T", D]):
        first = graphc.tanh(graphc.linear(x[:, 0], H, name="first"))
        scale = graphc.parameter("scale", (H,), init="ones", dtype=graphc.f64)

        def cell(h, seen, xt):
            h = graphc.tanh(graphc.linear(xt, H, name="in") + graphc.linear(h, H, bias=False, name="back") * scale)
            return h, seen + 1, h * seen.cast(graphc.f64), xt.sum(1)

        (y, sums), (h, _) = graphc.scan(cell, x, (first, x[0, 0, 0].cast(graphc.i64) * 0), reverse=reverse)
        return {"loss": (y * y).sum() + (h * h * h).sum() + graphc.sin(sums).sum()}

    _check_differences(net, {"x": np.random.default_rng(1).standard_normal((N, T, D))}, ["x", *net.parameters()])


def test_scan_along_another_axis() -> None:
    @graphc.model
    def net(x: graphc.f64[T, N, D]):
        y, h = graphc.scan(lambda h, xt: (h * graphc.sigmoid(xt), h + xt), x, x[0] * 0.5, axis=0)
        return {"loss": (y * y).sum() + h.sum()}

    _check_differences(net, {"x": np.random.default_rng(2).standard_normal((T, N, D))})


def test_products_are_kept_for_the_backward_loop() -> None:
    """It takes the sum of both products from the forward loop, and computes what is cheap again."""

    @graphc.model
    def net(x: graphc.f64[2, 5, 3], h: graphc.f64[2, 4], w: graphc.f64[3, 4], r: graphc.f64[4, 4]):
        def cell(h, xt):
            z = xt @ w + h @ r
            return (graphc.tanh(z) * graphc.sigmoid(z),)

        return graphc.scan(cell, x, h)[1].sum()

    graph = graphc.grad(net, ["x", "h", "w", "r"])
    forward, backward = ([node.op.name for node in body.nodes] for loop in graph.nodes for body in loop.op.bodies())
    assert forward.count("matmul") == 2
    assert backward.count("matmul") == 4, "two for each product, none of them made again"
    assert backward.count("tanh") == 1
    rng = np.random.default_rng(3)
    arrays = {v.name: rng.standard_normal(v.type.static_shape) for v in graph.inputs}
    found = graphc.compile(graph).run(arrays)
    total = graphc.compile(net)
    for name in ("x", "r"):
        step = np.zeros_like(arrays[name])
        step.flat[3] = 1e-6
        up, down = (total.run({**arrays, name: arrays[name] + sign * step}) for sign in (1, -1))
        slope = sum(float(a) - float(b) for a, b in zip(up.values(), down.values(), strict=True)) / 2e-6
        np.testing.assert_allclose(found[f"grad({name})"].flat[3], slope, rtol=1e-6)


def test_only_products_that_are_read_are_kept() -> None:
    """The first product is there for the second one alone, which is kept."""

    @graphc.model
    def net(x: graphc.f64[2, 5, 3], w: graphc.f64[3, 4]):
        def cell(s, xt):
            return (s + graphc.tanh((xt @ w) @ graphc.constant(np.arange(16.0).reshape(4, 4))),)

        return graphc.scan(cell, x, graphc.zeros((2, 4), graphc.f64))[1].sum()

    forward, backward = [loop.op for loop in graphc.grad(net, ["x", "w"]).nodes if loop.op.bodies()]
    assert [name for name in forward.body.output_names if ":saved" in name] == ["scan1.matmul2:saved2"]
    assert len(backward.x_axes) == 2, "x and the product"


def test_nested_scans() -> None:
    @graphc.model
    def net(x: graphc.f64[3, 4]):
        w = graphc.parameter("w", (), init="ones", dtype=graphc.f64)

        def outer(total, row):
            _, inner = graphc.scan(lambda s, v: (graphc.sin(s * w + v),), row, total * 0.3, axis=0)
            return graphc.tanh(total + inner * w), inner

        y, total = graphc.scan(outer, x, x[0, 0], axis=0)
        return {"loss": total * 2.0 + (y * y).sum()}

    _check_differences(net, {"x": np.random.default_rng(3).standard_normal((3, 4))}, ["x", "w"])


@pytest.mark.parametrize("sign", [1, -1])
def test_choice(sign: int) -> None:
    @graphc.model
    def net(x: graphc.f64[N, D]):
        y = graphc.cond(x.sum() > 0.0, lambda: graphc.tanh(graphc.linear(x, H, name="a")), lambda: graphc.linear(x * x, H, name="b"))
        return {"loss": (y * y).sum()}

    x = sign * np.random.default_rng(4).uniform(0.5, 1, (N, D))
    _check_differences(net, {"x": x}, ["x", *net.parameters()])
    grads = graphc.compile(graphc.grad(net)).run({"x": x})
    unused = "else.b" if sign > 0 else "then.a"
    assert not grads[f"grad(cond1.{unused}.weight)"].any()


def test_choice_inside_of_a_scan() -> None:
    @graphc.model
    def net(x: graphc.f64[T]):
        w = graphc.parameter("w", (), init="ones", dtype=graphc.f64)

        def cell(s: Any, v: Any) -> tuple[Any]:
            return (graphc.cond(v > 0.0, lambda: s * w + v, lambda: graphc.sin(s) - w * v),)

        return {"loss": graphc.scan(cell, x, x[0] * 0.0, axis=0)[1]}

    _check_differences(net, {"x": np.asarray([0.5, -1.0, 0.7, -0.2, 1.1])}, ["x", "w"])


def test_second_derivative() -> None:
    @graphc.model
    def net(x: graphc.f64[T]):
        _, s = graphc.scan(lambda s, v: (graphc.sin(s * 1.5 + v),), x, x[0] * 0.0, axis=0)
        return {"loss": s}

    first = graphc.grad(net, "x")
    first.set_outputs({"slope": first.outputs[1]})

    @graphc.model
    def slope(x: graphc.f64[T]):
        return x.sum()

    x = np.random.default_rng(5).standard_normal(T)
    run = ReferenceExecutable(first)
    from graphc.ir.builder import Builder
    from graphc.ops.reduce import Reduce

    total = Builder(first).add(Reduce("sum", (0,), False), first.outputs[0])
    first.set_outputs({"total": total})
    second = graphc.compile(graphc.grad(first, "x")).run({"x": x})["grad(x)"]
    run = ReferenceExecutable(first)
    for i in range(T):
        step = np.eye(T)[i] * 1e-6
        difference = (run(x + step) - run(x - step)) / 2e-6
        assert second[i] == pytest.approx(float(difference), rel=1e-5, abs=1e-7)


# the same as layers ---------------------------------------------------------------------------------------------------------


def _rnn(h: Any, x: Any) -> Any:
    h = graphc.tanh(graphc.linear(x, H, name="wx") + graphc.linear(h, H, bias=False, name="wh"))
    return h, h


def _gru(h: Any, x: Any) -> Any:
    xz, xr, xn = graphc.split(graphc.linear(x, 3 * H, name="wx"), 3, axis=1)
    hz, hr, hn = graphc.split(graphc.linear(h, 3 * H, bias=False, name="wh"), 3, axis=1)
    z, r = graphc.sigmoid(xz + hz), graphc.sigmoid(xr + hr)
    h = (1.0 - z) * graphc.tanh(xn + r * (hn + graphc.parameter("inner", (H,), dtype=graphc.f64))) + z * h
    return h, h


def _lstm(h: Any, c: Any, x: Any) -> Any:
    gates = graphc.linear(x, 4 * H, name="wx") + graphc.linear(h, 4 * H, bias=False, name="wh")
    i, o, f, g = graphc.split(gates, 4, axis=1)
    c = graphc.sigmoid(f) * c + graphc.sigmoid(i) * graphc.tanh(g)
    h = graphc.sigmoid(o) * graphc.tanh(c)
    return h, c, h


CELLS: dict[str, tuple[Callable[..., Any], int]] = {"rnn": (_rnn, 1), "gru": (_gru, 1), "lstm": (_lstm, 2)}


def _pair(kind: str) -> tuple[graphc.Model, graphc.Model, dict[str, str]]:
    """A cell by scan, the layer, and which parameter is which."""
    cell, states = CELLS[kind]

    @graphc.model
    def own(x: graphc.f64["N", "T", D]):
        y, _ = graphc.scan(cell, x, (_zeros(x),) * states, name="own")
        return {"loss": (y * y).sum()}

    @graphc.model
    def layer(x: graphc.f64["N", "T", D]):
        y = getattr(graphc, kind)(x, H, name="layer")[0]
        return {"loss": (y * y).sum()}

    names = {"own.wx.weight": "layer.0.weight", "own.wh.weight": "layer.0.recurrent_weight", "own.wx.bias": "layer.0.bias"}
    if kind == "gru":
        names["own.inner"] = "layer.0.recurrent_bias"
    rng = np.random.default_rng(6)
    own.load({name: rng.standard_normal(array.shape) for name, array in own.parameters().items()})
    layer.load({names[name]: array[None] for name, array in own.parameters().items() if name in names}, partial=True)
    return own, layer, names


@pytest.mark.parametrize("kind", list(CELLS))
def test_a_cell_equals_the_layer(kind: str) -> None:
    own, layer, names = _pair(kind)
    x = np.random.default_rng(7).standard_normal((N, T, D))
    ours, theirs = (graphc.compile(graphc.grad(model)).run({"x": x}) for model in (own, layer))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-12)
    for name, other in names.items():
        np.testing.assert_allclose(ours[f"grad({name})"], theirs[f"grad({other})"][0], rtol=1e-9, atol=1e-11)


def test_a_cell_equals_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    own, _, _ = _pair("gru")
    x, given = np.random.default_rng(8).standard_normal((N, T, D)), own.parameters()
    net = torch.nn.GRU(D, H, batch_first=True, dtype=torch.float64)
    order = [1, 0, 2]  # PyTorch's gates are r, z, n
    given["own.inner"] = np.concatenate([np.zeros(2 * H), given["own.inner"]])
    for ours, theirs in {"wx.weight": "weight_ih_l0", "wh.weight": "weight_hh_l0", "wx.bias": "bias_ih_l0", "inner": "bias_hh_l0"}.items():
        array = given[f"own.{ours}"]
        getattr(net, theirs).data = torch.tensor(array.reshape(3, H, *array.shape[1:])[order].reshape(array.shape))
    data = torch.tensor(x, requires_grad=True)
    loss = (net(data)[0] ** 2).sum()
    loss.backward()
    found = graphc.compile(graphc.grad(own, ["x", "own.wh.weight"])).run({"x": x})
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(found["grad(x)"], data.grad.numpy(), rtol=1e-9, atol=1e-12)
    wh = net.weight_hh_l0.grad.numpy().reshape(3, H, H)[order].reshape(3 * H, H)
    np.testing.assert_allclose(found["grad(own.wh.weight)"], wh, rtol=1e-9, atol=1e-12)


# training -------------------------------------------------------------------------------------------------------------------


@graphc.model
def parity(x: graphc.f32[16, 6, 1]):
    def cell(h, xt):
        return (graphc.tanh(graphc.linear(graphc.concat([h, xt], 1), 12, name="step")),)

    _, h = graphc.scan(cell, x, _zeros(x, 12), name="cell")
    return graphc.linear(h, 2, name="out")


@pytest.mark.parametrize("threads", [1, 2])
def test_training(threads: int) -> None:
    """The sum of a sequence of signs, above 0 or not; the same bits for any number of threads."""
    rng = np.random.default_rng(9)
    step = graphc.TrainStep(parity, loss="cross_entropy", optimizer=graphc.optim.Adam(lr=0.02), threads=threads)
    losses = []
    for _ in range(60):
        x = rng.choice([-1.0, 1.0], (16, 6, 1)).astype(np.float32)
        losses.append(float(step(x, (x.sum((1, 2)) > 0).astype(np.int64))["loss"]))
    assert np.mean(losses[-10:]) < 0.35 * np.mean(losses[:5])
    _TRAINED[threads] = {name: array.tobytes() for name, array in step.parameters.items()}
    assert all(trained == _TRAINED[threads] for trained in _TRAINED.values())


_TRAINED: dict[int, dict[str, bytes]] = {}


def test_what_cannot_be_differentiated() -> None:
    @graphc.model
    def net(x: graphc.f32[3]):
        return graphc.while_loop(lambda v: v.sum() < 10.0, lambda v: v * 2.0, x).sum()

    with pytest.raises(UnsupportedError, match="how often the loop runs is known only when it has run"):
        graphc.grad(net)
    (missing,) = unsupported_gradients(net.graph())
    assert missing.op == "loop"


@pytest.mark.parametrize("layer", ["dropout", "batch_norm"])
def test_layers_that_train_otherwise_are_refused_in_a_body(layer: str) -> None:
    @graphc.model
    def net(x: graphc.f32[2, 3, 4]):
        def cell(h, xt):
            made = graphc.dropout(xt, 0.5) if layer == "dropout" else graphc.batch_norm(xt)
            return (h + made,)

        return graphc.scan(cell, x, x[:, 0])[1]

    with pytest.raises(UnsupportedError, match="inside of a loop or choice cannot be trained"):
        graphc.TrainStep(net, loss="mse", optimizer=graphc.optim.SGD(lr=0.1))(np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32))
