"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def digits(root: Path) -> Path:
    """The folder of the model that the repository carries."""
    return root / "examples" / "digits"


@pytest.fixture
def lenet(digits: Path) -> Path:
    return digits / "lenet5.onnx"
