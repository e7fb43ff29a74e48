"""Training data: the public names of `graphc.train.data`, for `from graphc.data import Loader`."""

from graphc.train.data import *  # noqa: F403
from graphc.train.data import __all__ as __all__
