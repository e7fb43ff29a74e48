"""The choice of algorithm and form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.errors import AttributeValueError
from graphc.kernel.choose import ALGORITHMS, ERROR_RATIO, MAX_ERROR, ConvShape, candidates, choose_algorithm, choose_form
from graphc.target import TARGETS, named

LARGE = ConvShape(1, 64, 64, 56, 56)


def test_exact_means_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_algorithm(LARGE, named("avx512"), "exact") == "direct"
    monkeypatch.setenv("GRAPHC_CONV", "winograd4")
    assert choose_algorithm(LARGE, named("avx512"), "exact") == "direct"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_forced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CONV", name)
    assert choose_algorithm(LARGE, named("avx512"), "default") == name


def test_unknown_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CONV", "fft")
    with pytest.raises(AttributeValueError, match="fft"):
        choose_algorithm(LARGE, named("avx512"), "default")


def test_large_maps_use_the_large_tile() -> None:
    for level in ("avx512", "avx2"):
        assert choose_algorithm(LARGE, named(level), "default") == "winograd4"


def test_weights_that_grow_fourfold_need_tiles_to_pay() -> None:
    """7x7 maps with 512 channels: the weights of F(4, 3) take longer to arrive than its multiply-adds, at batch 1."""
    target = named("avx512")
    assert choose_algorithm(ConvShape(1, 512, 512, 7, 7), target, "default") == "winograd2"
    assert choose_algorithm(ConvShape(16, 512, 512, 7, 7), target, "default") == "winograd4"


def test_bits_do_not_depend_on_the_machine() -> None:
    """Cores and caches decide the form, never the sum."""
    for shape in (LARGE, ConvShape(1, 256, 256, 14, 14), ConvShape(1, 512, 512, 7, 7), ConvShape(2, 17, 33, 5, 9)):
        for target in TARGETS.values():
            machines = [target, replace(target, cores=32), replace(target, l2=1 << 18, l3=1 << 20), replace(target, cores=4, l2=4 << 20)]
            assert len({choose_algorithm(shape, machine, "default") for machine in machines}) == 1


def test_forms() -> None:
    two = replace(named("avx512"), cores=2)
    assert choose_form(LARGE, "winograd4", two).tiles > 0
    few = choose_form(ConvShape(1, 512, 512, 14, 14), "winograd4", replace(two, cores=16))
    assert few.tiles == 0, "16 tiles do not keep 16 cores busy"
    assert choose_form(LARGE, "direct", two).m == 0


def test_every_candidate_is_priced_and_possible() -> None:
    for target in TARGETS.values():
        for name in ALGORITHMS:
            for shape in (LARGE, ConvShape(1, 5, 3, 1, 1), ConvShape(8, 100, 40, 7, 7)):
                found = list(candidates(shape, name, target))
                assert found
                assert all(0 < c.cycles < 1e12 and c.algorithm == name for c in found)
                assert all(c.tiles <= shape.grid(c.m).count and c.chunk >= 1 for c in found if c.m)


def test_accuracy_rule() -> None:
    """What may be chosen at all."""
    assert set(ERROR_RATIO) == set(ALGORITHMS)
    assert ERROR_RATIO["winograd2"] <= 1 < ERROR_RATIO["winograd4"] <= MAX_ERROR
