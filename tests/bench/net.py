"""What a network is whose training is timed beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Net:
    """A model, its PyTorch twin, the shape of one image, and the batch that is timed.

    `check_rate`: of the steps whose changes are compared: small, so that rounding does not grow from step to step, and so large that a
    change is not lost in the last digits of a parameter.
    """

    model: Any
    twin: Callable[[], nn.Module]
    image: tuple[int, ...]
    classes: int
    batch: int
    check_rate: float = field(default=1e-3, kw_only=True)

    @property
    def dims(self) -> dict[str, int]:
        """The sizes of the model's symbolic dims."""
        return {"N": self.batch}

    def data(self, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((self.batch, *self.image), np.float32), rng.integers(0, self.classes, self.batch)

    def convert(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """graphc's parameters as those of the twin, in its order."""
        return dict(parameters)

    def torch(self, parameters: Mapping[str, Array], dtype: Any = torch.float32) -> nn.Module:
        """The twin with these parameters of graphc, training."""
        net = self.twin()
        with torch.no_grad():
            for tensor, array in zip(ordered(net).values(), self.convert(parameters).values(), strict=True):
                assert tuple(tensor.shape) == array.shape, (tensor.shape, array.shape)
                tensor.copy_(torch.from_numpy(array))
        return net.to(dtype).train()


def ordered(net: nn.Module) -> dict[str, Any]:
    """Parameters and running statistics, in the order of the layers."""
    return {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
