"""What the project promises about itself: imports only go down, the README's first two commands fit the files that are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_ROOTS = (".", "frontends", "backends")
PACKAGES = {"graphc": ".", "graphc_dsl": "frontends", "graphc_onnx": "frontends", "graphc_reference": "backends", "graphc_cpu": "backends"}


def _sh_blocks(root: Path) -> list[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S)]


def test_imports_only_go_down(root: Path) -> None:
    """The contracts are in pyproject.toml, under [tool.importlinter]."""
    path = os.pathsep.join(str(root / folder) for folder in IMPORT_ROOTS)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed_and_importable(root: Path, package: str) -> None:
    folder = root / PACKAGES[package] / package
    assert (folder / "py.typed").is_file()
    assert (folder / "__init__.py").is_file()


@pytest.mark.parametrize("line", [
    "from graphc.optim import SGD as found; assert found is graphc.optim.SGD",
    "from graphc.data import Loader as found; assert found is graphc.data.Loader",
    "import graphc.losses as found; assert found is graphc.losses and found.MSE",
    "import graphc.schedules, graphc.metrics, graphc.callbacks; assert graphc.schedules.Cosine and graphc.callbacks.Curves",
    "from graphc.decode import greedy as found; assert found is graphc.decode.greedy",
    "import graphc.metrics as found; assert len(found.__all__) == 10 and found.TopK.__module__ == 'graphc.train.metrics'",
])  # fmt: skip
def test_modules_are_found_by_attribute_and_by_import(line: str) -> None:
    """In either order; `import graphc` alone loads no numpy."""
    for code in (f"import sys, graphc; assert 'numpy' not in sys.modules; {line}", f"{line.partition(';')[0]}; import graphc; {line}"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_first_readme_block_runs_a_model_that_is_there(root: Path) -> None:
    block = _sh_blocks(root)[0]
    assert "\n" not in block
    assert "graphc run" in block
    patterns = re.findall(r"examples/\S+", block)
    assert patterns
    for pattern in patterns:
        assert list(root.glob(pattern)), pattern


def test_second_readme_block_runs_the_tests(root: Path) -> None:
    block = _sh_blocks(root)[1]
    assert "\n" not in block
    assert "'.[test]'" in block
    assert "-m pytest" in block
