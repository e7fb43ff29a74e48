"""Optimizers: the public names of `graphc.autodiff.optim`, for `from graphc.optim import SGD`."""

from graphc.autodiff.optim import *  # noqa: F403
from graphc.autodiff.optim import __all__ as __all__
