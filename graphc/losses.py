"""Losses: the public names of `graphc.train.losses`, for `from graphc.losses import MSE`."""

from graphc.train.losses import *  # noqa: F403
from graphc.train.losses import __all__ as __all__
