"""The networks that are timed are the same in the DSL and in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from bench.char_net import char_net
from bench.net import Net, ordered
from bench.train import Graphc, Torch, report
from bench.train_nets import NETS


@pytest.mark.parametrize("name", NETS)
def test_parameters_pair_up_in_order(name: str) -> None:
    net = NETS[name]
    parameters = net.model.parameters()
    twin = ordered(net.torch(parameters))
    for array, tensor in zip(net.convert(parameters).values(), twin.values(), strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("net", [NETS["lenet5"], char_net("gru", 16, 2, 11, batch=3, steps=8)], ids=["lenet5", "char_gru"])
def test_steps_agree(net: Net) -> None:
    mine = Graphc(net, 2)
    theirs = Torch(net, dict(mine.step.parameters), 2)
    for seed in range(3):
        assert mine(*net.data(seed), net.check_rate) == pytest.approx(theirs(*net.data(seed), net.check_rate), rel=1e-5)
    for got, want in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_names_pair_up() -> None:
    """PyTorch's names are those of its parameters, in its order."""
    for cell in ("rnn", "lstm", "gru"):
        net = char_net(cell, 8, 2, 5, batch=2, steps=3)
        assert list(net.convert(net.model.parameters())) == list(ordered(net.twin()))


def test_report_is_markdown() -> None:
    from bench.train import Row

    times = {"graphc": 0.001, "eager": 0.004}
    row = Row("lenet5", 2, 64, 10**8, times, times, {"eager": 4.0}, {"graphc": 1e-6, "eager": 1e-6}, 10**6)
    lines = report([row], 4e11)
    assert lines[2].startswith("| lenet5 | 64 | 1.00 (1.00) | 4.00 (4.00) | **4.00** | 100 | 25%")
