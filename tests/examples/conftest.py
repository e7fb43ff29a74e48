"""Examples are run as from the command line, in their small form."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

Run = Callable[..., str]


@pytest.fixture(scope="session")
def scripts(root: Path) -> Callable[[str], AbstractContextManager[Run]]:
    """Of a folder below examples/: its scripts can be imported, and run with --small by name and options; gives what one printed."""

    def small(name: str, *options: str) -> str:
        result = CliRunner().invoke(importlib.import_module(name).main, ["--small", *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    @contextmanager
    def opened(folder: str) -> Iterator[Run]:
        path = root / "examples" / folder
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(path))
            try:
                yield small
            finally:
                for script in path.glob("*.py"):
                    sys.modules.pop(script.stem, None)

    return opened
