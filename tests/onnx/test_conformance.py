"""The ONNX backend test suite, every CPU case: it passes, or `conformance_exclusions.txt` says why not.

GRAPHC_TEST_BACKEND=reference runs the numpy reference instead of the compiled CPU back end. A case that is listed and passes fails here:
the list stays true.
"""

from __future__ import annotations

import os
import unittest
from functools import cache

import pytest
from onnx_suite import build, excluded, node_models, tier

from graphc_onnx.backend import GraphcBackend, ReferenceBackend

BACKEND = os.environ.get("GRAPHC_TEST_BACKEND", "cpu")


@cache
def cases() -> dict[str, type[unittest.TestCase]]:
    """name -> the class that has it."""
    made = build({"cpu": GraphcBackend, "reference": ReferenceBackend}[BACKEND])
    return {name: case for case in made.values() for name in vars(case) if name.startswith("test_")}


@pytest.mark.parametrize("name", sorted(cases()))
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx")
def test_case(name: str) -> None:
    result = unittest.TestResult()
    cases()[name](name).run(result)
    reason = excluded(name, BACKEND)
    if reason:
        assert not result.wasSuccessful() or result.skipped, "this case passes: remove it from the exclusions"
        pytest.skip(reason)
    assert not result.skipped, f"not supported, and not excluded: {result.skipped[0][1]}"
    for _, trace in result.errors + result.failures:
        pytest.fail(trace)


def test_the_core_subset_is_the_known_one() -> None:
    """876 cases of float and integer models of common operators: 239 of tier 1, 637 of tier 2 (onnx 1.23)."""
    tiers = [tier(name) for name in node_models()]
    assert (tiers.count(1), tiers.count(2)) == (239, 637)


def test_what_is_excluded_from_the_core_is_little() -> None:
    """More cases of the core pass than any of onnxruntime, OpenVINO and tinygrad passes (833)."""
    passing = [name for name in node_models() if tier(name) and not excluded(name, BACKEND)]
    assert len(passing) > 833
