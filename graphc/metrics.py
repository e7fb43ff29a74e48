"""Metrics: the public names of `graphc.train.metrics`, for `from graphc.metrics import Accuracy`."""

from graphc.train.metrics import *  # noqa: F403
from graphc.train.metrics import __all__ as __all__
