"""Learning-rate schedules: the public names of `graphc.train.schedules`, for `from graphc.schedules import Cosine`."""

from graphc.train.schedules import *  # noqa: F403
from graphc.train.schedules import __all__ as __all__
