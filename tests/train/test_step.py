"""Training steps of whole networks against PyTorch: gradients, updates, running statistics; the same bits for any number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError, ShapeError
from graphc.ops import loss as losses
from graphc.train.build import build_step
from graphc.train.step import TrainStep
from train.nets import CASES, Case, lenet5

torch: Any = pytest.importorskip("torch")

Array = np.ndarray[Any, np.dtype[Any]]
SLACK = 8  # our error against float64 is at most this many times PyTorch's own


def _torch_gradients(case: Case, parameters: Any, x: Array, y: Array, dtype: Any) -> dict[str, Array]:
    net = case.torch(parameters, dtype)
    image = torch.from_numpy(x).to(dtype).requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(image), torch.from_numpy(y))
    loss.backward()
    grads: dict[str, Any] = {name: p.grad for name, p in net.named_parameters()}
    grads.update(image=image.grad, loss=loss.detach())
    return {name: np.asarray(grad.double().numpy()) for name, grad in grads.items()}


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_are_as_exact_as_torch(name: str) -> None:
    case = CASES[name]
    step = TrainStep(case.model, threads=2)
    x, y = case.batch(7)
    parameters = dict(step.parameters)
    exact, rough = (_torch_gradients(case, parameters, x, y, dtype) for dtype in (torch.float64, torch.float32))
    found = step.gradients(x, y)
    ours = {**found["grads"], **found["input_grads"], "loss": np.asarray(found["loss"])}
    assert ours.keys() == exact.keys()
    for key, truth in exact.items():
        size = np.abs(truth).max()
        allowed = SLACK * max(float(np.abs(rough[key] - truth).max()), 2e-7 * float(size)) + 1e-9
        assert np.abs(ours[key] - truth).max() <= allowed, key
    assert all(np.array_equal(step.parameters[key], parameters[key]) for key in parameters), "gradients must change nothing"


@pytest.mark.parametrize("name", list(CASES))
def test_five_steps_follow_torch(name: str) -> None:
    case = CASES[name]
    step = TrainStep(case.model, optimizer=graphc.optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3), threads=2)
    net = case.torch(dict(step.parameters))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for turn in range(5):
        x, y = case.batch(7, seed=turn)
        optimizer.zero_grad()
        outputs = net(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        found = step(x, y)
        assert found["loss"] == pytest.approx(loss.item(), rel=2e-4)
        np.testing.assert_allclose(found["outputs"], outputs.detach().numpy(), rtol=2e-3, atol=2e-4)
    state = net.state_dict()
    for key, ours in step.parameters.items():
        np.testing.assert_allclose(ours, state[key].numpy(), rtol=2e-3, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", list(CASES))
def test_same_bits_for_any_number_of_threads(name: str) -> None:
    case = CASES[name]
    states = []
    for threads in (1, 2, 4):
        step = TrainStep(case.model, optimizer=graphc.optim.Adam(), threads=threads)
        for turn in range(2):
            step(*case.batch(5, seed=turn))
        states.append(step.state)
    assert len(states[0]) > len(dict(TrainStep(case.model).parameters))
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        for key, array in other.items():
            np.testing.assert_array_equal(array, states[0][key], err_msg=key)


def test_steps_equal_the_reference() -> None:
    case = CASES["residual"]
    ours, reference = (TrainStep(case.model, backend=backend, threads=1) for backend in ("cpu", "reference"))
    for turn in range(2):
        batch = case.batch(4, seed=turn)
        assert ours(*batch)["loss"] == pytest.approx(reference(*batch)["loss"], rel=1e-5)
    for key, array in ours.state.items():
        np.testing.assert_allclose(array, reference.state[key], rtol=1e-4, atol=1e-6, err_msg=key)


def test_batches_of_several_sizes_share_their_state() -> None:
    case = CASES["lenet5"]
    mixed, split = (TrainStep(case.model, optimizer=graphc.optim.SGD(lr=0.1, momentum=0.9)) for _ in range(2))
    for size in (3, 2, 3):
        mixed(*case.batch(size, seed=size))
    for size in (3, 2):
        split(*case.batch(size, seed=size))
    halfway = TrainStep(case.model, optimizer=graphc.optim.SGD(lr=0.1, momentum=0.9))
    halfway.state = split.state
    halfway(*case.batch(3, seed=3))
    assert int(halfway.state["train.step"]) == 3
    for key, array in mixed.state.items():
        np.testing.assert_array_equal(array, halfway.state[key], err_msg=key)


def test_parameters_can_be_set() -> None:
    case = CASES["lenet5"]
    step, other = TrainStep(case.model), TrainStep(case.model)
    step(*case.batch(3))
    fresh = np.full_like(step.parameters["c1.weight"], 0.25)
    for each in (step, other):
        for name in each.parameters:
            each.parameters[name] = np.zeros_like(each.parameters[name])
        each.parameters["c1.weight"] = fresh
    fresh[...] = 7  # the step has a copy
    assert step(*case.batch(3))["loss"] == other(*case.batch(3))["loss"] == pytest.approx(np.log(10), rel=1e-6)
    with pytest.raises(InputError, match=r"'c1.weight' is float32\[6, 1, 5, 5\]"):
        step.parameters["c1.weight"] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match="no parameter 'c9'"):
        step.parameters["c9"] = np.zeros(3, np.float32)


def test_frozen_parameters_stay() -> None:
    case = CASES["residual"]
    step = TrainStep(case.model, freeze=["a.*", "an.*"])
    before = dict(step.parameters)
    for turn in range(2):
        step(*case.batch(4, seed=turn))
    after = dict(step.parameters)
    frozen = {name for name in before if np.array_equal(before[name], after[name])}
    assert frozen == {"a.weight", "an.weight", "an.bias", "an.running_mean", "an.running_var"}
    step.parameters["a.weight"] = np.zeros_like(before["a.weight"])  # a constant of the program: it is compiled anew
    loss, alone = step(*case.batch(4))["loss"], TrainStep(step.graph(), freeze=["a.*", "an.*"])
    assert np.isfinite(loss)
    assert not alone.parameters["a.weight"].any()
    with pytest.raises(InputError, match="no parameter matches the frozen pattern 'z"):
        TrainStep(case.model, freeze=["z*"])(*case.batch(2))


def test_the_trained_model_infers_with_running_statistics() -> None:
    case = CASES["residual"]
    step = TrainStep(case.model)
    for turn in range(3):
        step(*case.batch(6, seed=turn))
    x, _ = case.batch(4, seed=9)
    net = case.torch(dict(step.parameters)).eval()
    expected = net(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(graphc.compile(step.graph())(x), expected, rtol=1e-4, atol=1e-5)


def test_onnx_classifier_with_softmax(root: Path) -> None:
    """The loss looks through the final Softmax: it is that of the logits, finite where a probability is 0."""
    step = TrainStep(str(root / "examples" / "digits" / "lenet5.onnx"), optimizer=graphc.optim.Adam(), threads=1)
    x = np.random.default_rng(0).random((4, 1, 32, 32), np.float32)
    y = np.array([1, 2, 3, 4])
    step.parameters["output.bias"] = np.array([300] + [0] * 9, np.float32)
    first = step(x, y)
    assert 200 < first["loss"] < 400
    np.testing.assert_allclose(first["outputs"].sum(1), 1, rtol=1e-5)
    assert step(x, y)["loss"] < first["loss"]
    assert {"c1.weight", "f6.bias"} <= step.gradients(x, y)["grads"].keys()


LOSSES: dict[str, Any] = {
    "mse": torch.nn.functional.mse_loss, "l1": torch.nn.functional.l1_loss, "huber": torch.nn.functional.huber_loss,
    "bce_with_logits": torch.nn.functional.binary_cross_entropy_with_logits,
}  # fmt: skip


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_of_numbers(name: str) -> None:
    @graphc.model
    def net(x: graphc.f32["N", 6]) -> Any:
        return graphc.linear(x, 3, name="fc")

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 6)).astype(np.float32), rng.random((5, 3), np.float32)
    step = TrainStep(net, loss=name, threads=1)
    weight, bias = (torch.from_numpy(step.parameters[f"fc.{part}"]).requires_grad_() for part in ("weight", "bias"))
    loss = LOSSES[name](torch.nn.functional.linear(torch.from_numpy(x), weight, bias), torch.from_numpy(y))
    loss.backward()
    found = step.gradients(x, y)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(found["grads"]["fc.weight"], weight.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grads"]["fc.bias"], bias.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_clipping() -> None:
    case = CASES["lenet5"]
    x, y = case.batch(4)
    start = dict(TrainStep(lenet5).parameters)
    grads = TrainStep(lenet5).gradients(x, y)["grads"]
    norm = float(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads.values())))
    for options, expected in (
        ({"clip_norm": norm / 3}, {name: g / 3 for name, g in grads.items()}),
        ({"clip_norm": norm * 2}, grads),
        ({"clip_value": 1e-2}, {name: np.clip(g, -1e-2, 1e-2) for name, g in grads.items()}),
    ):
        step = TrainStep(lenet5, optimizer=graphc.optim.SGD(lr=1.0), **options)
        step(x, y)
        for name, grad in expected.items():
            np.testing.assert_allclose(start[name] - step.parameters[name], grad, rtol=1e-3, atol=2e-6, err_msg=name)


def test_a_loss_of_ones_own() -> None:
    case = CASES["lenet5"]
    x, _ = case.batch(3)
    target = np.zeros((3, 10), np.float32)
    step = TrainStep(lenet5, loss=lambda builder, prediction, goal: losses.mse(builder, prediction, goal, "sum"))
    assert step.gradients(x, target)["loss"] == pytest.approx(float(np.sum(graphc.compile(lenet5)(x) ** 2)), rel=1e-4)


def test_refusals() -> None:
    case = CASES["lenet5"]
    x, y = case.batch(3)
    step = TrainStep(lenet5)
    with pytest.raises(InputError, match="labels from 0 to 10"):
        step(x, [0, 10, 1])
    with pytest.raises(InputError, match="class numbers as integers"):
        step(x, np.eye(10, dtype=np.float32)[:3])
    with pytest.raises(InputError, match="N=3"):
        step(x, y[:2])
    with pytest.raises(AttributeValueError, match="unknown loss"):
        TrainStep(lenet5, loss="hinge")
    with pytest.raises(ShapeError, match="one floating point number"):
        TrainStep(lenet5, loss=lambda builder, prediction, goal: prediction)(x, np.zeros((3, 10), np.float32))
    with pytest.raises(AttributeValueError, match="clip_norm"):
        TrainStep(lenet5, clip_norm=0.0)
    assert all(not array.any() for name, array in step.state.items() if name == "train.step"), "a refused batch is no step"


def test_state_is_written_in_place_and_plans_say_so() -> None:
    step = TrainStep(lenet5, optimizer=graphc.optim.Adam(), threads=1)
    graph = build_step(lenet5.graph().bind({"N": 2}), step.recipe)
    plan = step.compiled({"N": 2}).plan
    assert {state.name for state in plan.states} == set(graph.states)
    written = {ref.index for made in plan.steps for ref in made.args[-1:] if ref.space == "state"}
    assert written == set(range(len(plan.states)))
    assert not any(made.label.endswith(":store") for made in plan.steps)
