"""Callbacks: the public names of `graphc.train.callbacks`, for `from graphc.callbacks import Checkpoint`."""

from graphc.train.callbacks import *  # noqa: F403
from graphc.train.callbacks import __all__ as __all__
