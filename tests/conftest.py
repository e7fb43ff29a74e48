"""What every test shares: a private cache, checks between passes switched on, reproducible random tests, the folder of real data."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA_VARIABLE = "GRAPHC_SHARED_DATA"

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="write the text that tests found as what they expect; review the diff like code")


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """Verify graphs between passes, and keep compiled code out of the user's cache. Set before any session fixture compiles."""
    with tempfile.TemporaryDirectory(prefix="graphc-tests-") as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_VERIFY", "1")
        patch.setenv("GRAPHC_CACHE_DIR", cache)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data: $GRAPHC_SHARED_DATA, else ../shared/data beside the checkout. Skips where there is none."""
    given = os.environ.get(SHARED_DATA_VARIABLE)
    path = Path(given) if given else ROOT.parent / "shared" / "data"
    if given and not path.is_dir():
        pytest.fail(f"{SHARED_DATA_VARIABLE}={given} is not a folder")
    if not path.is_dir():
        pytest.skip(f"needs real data: {path} is not there ({SHARED_DATA_VARIABLE} names another folder)")
    return path
