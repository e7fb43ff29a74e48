"""Text of `graphc train`'s options to optimizers, schedules, augmentations and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.autodiff.optim import Optimizer
    from graphc.train.metrics import Metric
    from graphc.train.schedules import Schedule

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = "cosine, step:EPOCHS[,FACTOR], exponential:FACTOR, onecycle, plateau[:PATIENCE[,FACTOR]], warmup:STEPS+cosine"
AUGMENTATIONS = "flip, vflip, shift:PIXELS, crop:PADDING, rotation:DEGREES, zoom:LOW,HIGH, shear:DEGREES, cutout:PIXELS, jitter:X, light"


def optimizer(name: str, lr: float | None, momentum: float | None, weight_decay: float | None) -> Optimizer:
    """Defaults are those of `graphc.optim`. Raises InputError for an option that the optimizer does not have."""
    from graphc.autodiff import optim

    makers: dict[str, Any] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD, "rmsprop": optim.RMSProp}
    given = {key: value for key, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)) if value is not None}
    if "momentum" in given and name not in ("sgd", "rmsprop"):
        raise InputError(f"--momentum: {name} has no momentum", hint="--optimizer sgd or rmsprop, or leave --momentum out")
    made: Optimizer = makers[name](**given)
    return made


def schedule(text: str, rate: float, steps: int, epochs: int) -> Schedule:
    """`steps`, `epochs`: of the whole training. cosine, onecycle and warmup count steps, the others epochs.

    Raises InputError for text that is no schedule.
    """
    from graphc.train import schedules

    first, plus, rest = text.partition("+")
    name, numbers = _parsed(first, "--schedule", SCHEDULES)
    if plus and name != "warmup":
        raise InputError(f"--schedule {text}: only a warmup is followed by another", hint="warmup:STEPS+cosine")
    match name, numbers:
        case "cosine", ():
            return schedules.Cosine(max(steps, 1), per="step")
        case "step", (size, *factor) if len(factor) <= 1:
            return schedules.Step(_whole(size, "--schedule step"), *factor)
        case "exponential", (factor,):
            return schedules.Exponential(factor)
        case "onecycle", ():
            return schedules.OneCycle(rate, max(steps, 1))
        case "plateau", (*given,) if len(given) <= 2:
            patience = _whole(given[0], "--schedule plateau") if given else 10
            return schedules.Plateau(patience=patience, factor=given[1] if len(given) > 1 else 0.1)
        case "warmup", (count,):
            length = _whole(count, "--schedule warmup")
            if length >= steps:
                reason = f"--schedule {text}: the training has {steps} steps in {epochs} epochs"
                raise InputError(reason, hint="a shorter warmup")
            return schedules.Warmup(length, schedule(rest, rate, steps - length, epochs) if plus else None)
    raise InputError(f"--schedule {text}", hint=SCHEDULES)


def augmentations(text: str, size: tuple[int, int] | None) -> list[Any]:
    """`flip,shift:2`; a number belongs to the name before it, as in `zoom:0.9,1.1`. size: (height, width) of the pictures, where known."""
    from graphc.train import data

    return [_augmentation(data, part, size) for part in _parts(text)]


def _augmentation(data: Any, text: str, size: tuple[int, int] | None) -> Any:
    name, numbers = _parsed(text, "--augment", AUGMENTATIONS)
    whole = "--augment " + name
    match name, numbers:
        case "flip", ():
            return data.HorizontalFlip()
        case "vflip", ():
            return data.VerticalFlip()
        case "shift", (pixels,):
            return data.Shift(_whole(pixels, whole))
        case "crop", (padding,) if size is None:
            raise InputError(f"--augment {text}: the size of the pictures is open", hint="--dims H=224 --dims W=224, or shift:PIXELS")
        case "crop", (padding,):
            return data.RandomCrop(size, _whole(padding, whole))
        case "rotation", (degrees,):
            return data.Rotation(degrees)
        case "zoom", (low, high):
            return data.Zoom(low, high)
        case "shear", (degrees,):
            return data.Shear(degrees)
        case "cutout", (pixels,):
            return data.Cutout(_whole(pixels, whole))
        case "jitter", (part,):
            return data.ColorJitter(brightness=part, contrast=part, saturation=part)
        case "light", ():
            return data.Illumination()
    raise InputError(f"--augment {text}", hint=AUGMENTATIONS)


def metrics(text: str, classes: int) -> list[Metric]:
    """Names of `graphc.metrics`, and f1 and balanced_accuracy."""
    from graphc.train import metrics as known

    own = {"f1": known.MacroF1, "balanced_accuracy": known.Confusion}
    names = [part.strip() for part in text.split(",") if part.strip()]
    return known.find_metrics([own[name](classes) if name in own else name for name in names])


def _parts(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        if found and _is_number(part):
            found[-1] += f",{part}"
        else:
            found.append(part.strip())
    return found


def _parsed(text: str, option: str, known: str) -> tuple[str, Sequence[float]]:
    name, _, given = text.partition(":")
    try:
        return name, tuple(float(part) for part in given.split(",")) if given else ()
    except ValueError as error:
        raise InputError(f"{option} {text}: {given!r} is no number", hint=known) from error


def _whole(number: float, what: str) -> int:
    if number != number // 1:
        raise InputError(f"{what}: {number:g} is no whole number", hint="a whole number")
    return int(number)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
