"""What `graphc train --data` names: a folder of pictures, IDX files, CIFAR-10, an .npz archive; as samples that fit the model.

Pictures go through the same preprocessing as in `graphc run`, in two halves: size and order of the channels first, which leaves bytes for
the augmentation, then scale, mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.cli import feeds, pictures, show
from graphc.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from graphc.cli.pictures import Options, Preprocessing
    from graphc.ir.graph import Array, Value
    from graphc.train.data import Arrays

IN_MEMORY = 1 << 30  # bytes; smaller folders are read once, before the training, larger ones in every epoch
_MANY = 20  # pictures whose reading shows a progress bar
_KEYS = (("x", "y"), ("images", "labels"))


@dataclass(frozen=True)
class Data:
    """`source`: of `graphc.data`. `labels`: class numbers (N,), or numbers like the model's output. `classes`: names, where there are any.

    `preprocessing`: of pictures; None where the model gets the arrays as they are.
    """

    source: Any
    labels: Array
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counted(self) -> bool:
        """Whether the labels are class numbers."""
        return self.labels.dtype.kind in "iu" and self.labels.ndim == 1

    @property
    def class_count(self) -> int:
        return len(self.classes) or int(self.labels.max()) + 1

    def take(self, rows: Array) -> Data:
        return Data(Part(self.source, rows), self.labels[rows], self.classes, self.preprocessing)


class Part:
    """Some samples of a source, by their numbers."""

    def __init__(self, source: Any, rows: Array) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.source[int(self.rows[index])]  # type: ignore[no-any-return]

    def gather(self, indices: Array) -> tuple[Array, Array]:
        x, y = self.source.gather(self.rows[indices])
        return x, y


class Pictures:
    """Files of a folder through `Preprocessing.pixels`: bytes (C, H, W) and class numbers."""

    def __init__(self, files: Sequence[Path], labels: Array, preprocessing: Preprocessing) -> None:
        self.files, self.labels, self.preprocessing = files, labels, preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        from graphc.picture import open_picture

        return self.preprocessing.pixels(open_picture(self.files[index])).transpose(2, 0, 1), self.labels[index]

    def gather(self, indices: Array) -> tuple[Array, Array]:
        import numpy as np

        return np.stack([self[int(index)][0] for index in indices]), self.labels[indices]


def load(spec: str, input: Value, options: Options, metadata: dict[str, str], train: bool = True) -> Data:
    """The data of a --data or --validation option for a model's input. Raises InputError for what is missing, broken or does not fit."""
    kind, colon, rest = spec.partition(":")
    if kind == "idx" and colon:
        images, comma, labels = rest.partition(",")
        if not comma:
            raise InputError(f"{spec!r} names one file", hint="idx:IMAGES,LABELS")
        return _arrays(_data().idx(images, labels), input, options, metadata)
    if kind == "cifar10" and colon:
        return _arrays(_data().cifar10(rest, train=train), input, options, metadata)
    if spec.endswith(".npz"):
        return _archive(Path(spec), input, options, metadata)
    if Path(spec).is_file():
        raise InputError("is a file", where=spec, hint="a folder with a folder of pictures for each class, or a file that ends in .npz")
    return _folder(spec, input, options, metadata)


def split(data: Data, fraction: float, seed: int) -> tuple[Data, Data]:
    """Training and validation: of each class this part, chosen by `seed`, but at least one sample for the training."""
    import numpy as np

    from graphc.train.batches import shuffled

    groups = [np.flatnonzero(data.labels == label) for label in np.unique(data.labels)] if data.counted else [np.arange(len(data))]
    held: list[Array] = []
    for group in groups:
        count = min(round(fraction * len(group)), len(group) - 1)
        held.append(group[shuffled(len(group), seed, 0)[:count]])
    rows = np.sort(np.concatenate(held))
    if not len(rows):
        raise InputError(f"--validation {fraction:g} of {len(data)} examples holds none", hint="a larger part, or a folder of its own")
    return data.take(np.setdiff1d(np.arange(len(data)), rows)), data.take(rows)


def check_same_classes(data: Data, validation: Data) -> None:
    """Raises InputError where the validation has other classes than the training."""
    if data.classes and validation.classes and data.classes != validation.classes:
        missing, more = (sorted(set(a) - set(b)) for a, b in ((data.classes, validation.classes), (validation.classes, data.classes)))
        text = "; ".join(f"{what} {', '.join(names)}" for what, names in (("it lacks", missing), ("only there:", more)) if names)
        raise InputError(f"the classes of --validation differ: {text}", hint="the same folders in both")


def normalisation(data: Data, options: Options) -> tuple[Any, Any] | None:
    """(mean, std) for `graphc.data.Loader`, which takes them in units after bytes became 0..1."""
    if any(number <= 0 for number in options.std or ()):
        raise InputError(f"--std {', '.join(f'{number:g}' for number in options.std or ())}", hint="numbers above 0")
    if data.preprocessing is not None:
        found = data.preprocessing.options
        factor, offset = 255 * (found.scale or 0.0), found.offset or 0.0
        if factor <= 0:
            raise InputError(f"pixels would be scaled by {factor / 255:g}", hint="--scale above 0, --range LOW..HIGH with LOW below HIGH")
        mean = tuple((number - offset) / factor for number in found.mean or ())
        return mean, tuple(number / factor for number in found.std or ())
    given = options.mean is not None or options.std is not None
    return (options.mean or (0.0,), options.std or (1.0,)) if given else None


# kinds ----------------------------------------------------------------------------------------------------------------------


def _folder(path: str, input: Value, options: Options, metadata: dict[str, str]) -> Data:
    settled = _settled(input, options, metadata)
    found = _data().ImageFolder(path, size=1)  # the size does not matter: only its list of files is used
    if len(found.classes) < 2:
        raise InputError(f"holds one class only, {found.classes[0]!r}", where=path, hint="a folder for each of at least two classes")
    if found.ignored:
        show.note(f"{len(found.ignored)} files in {path} are no pictures, such as {found.ignored[0].name}")
    source: Any = Pictures(found.files, found.labels, settled)
    first = source[0][0]
    if len(source) * first.nbytes <= IN_MEMORY:
        numbers = range(len(source))
        every = (source[i][0] for i in (show.progress(numbers, "reading pictures", len(source)) if len(source) > _MANY else numbers))
        source = _data().Arrays(_stacked(every, first.shape, len(source)), found.labels)
    return Data(source, found.labels, found.classes, settled)


def _arrays(found: Arrays, input: Value, options: Options, metadata: dict[str, str]) -> Data:
    """Bytes as pictures of the model's size and channels; anything else as it is."""
    if found.x.dtype != "uint8" or found.x.ndim != 4:
        if options.scale is not None or options.bgr:
            raise InputError("--scale, --range and --bgr are for bytes", hint="--mean and --std, or arrays of bytes (N, C, H, W)")
        return Data(found, found.y, found.classes, None)
    from PIL import Image

    settled = _settled(input, options, metadata)
    channels = found.x.shape[1]
    if channels not in (1, 3, 4):
        raise InputError(f"pictures of {channels} channels", hint="1, 3 or 4")

    def pixels(sample: Array) -> Array:
        picture = Image.fromarray(sample[0] if channels == 1 else sample.transpose(1, 2, 0))
        return settled.pixels(picture).transpose(2, 0, 1)

    shape = pixels(found.x[0]).shape
    if shape == found.x.shape[1:] and not settled.options.bgr and settled.options.resize is None:
        return Data(found, found.y, found.classes, settled)
    numbers = show.progress(range(len(found)), f"fitting pictures to {shape[2]}x{shape[1]}", len(found))
    made = _stacked((pixels(found.x[number]) for number in numbers), shape, len(found))
    return Data(_data().Arrays(made, found.y, found.classes), found.y, found.classes, settled)


def _archive(path: Path, input: Value, options: Options, metadata: dict[str, str]) -> Data:
    arrays = feeds.load_archive(path)
    for x, y in _KEYS:
        if x in arrays and y in arrays:
            return _arrays(_data().Arrays(arrays[x], arrays[y]), input, options, metadata)
    hint = f"the arrays {' or '.join(' and '.join(keys) for keys in _KEYS)}"
    raise InputError(f"holds {', '.join(arrays) or 'nothing'}", where=str(path), hint=hint)


def _settled(input: Value, options: Options, metadata: dict[str, str]) -> Preprocessing:
    settled = pictures.settle(input.name, input.type, options, metadata)
    if settled.axes != "NCHW" or settled.dtype != "float32":
        reason = f"training on pictures needs an input float32 (N, C, H, W), {input.name!r} is {input.type} ({settled.axes})"
        raise UnsupportedError(reason, hint="arrays in an .npz file as the model takes them")
    if settled.cover is None and settled.options.crop is None and not isinstance(settled.options.resize, tuple):
        raise InputError(f"the size of the pictures is open in {input.type}", hint="--dims H=224 --dims W=224, or --resize 224x224")
    return settled


def _stacked(samples: Any, shape: tuple[int, ...], count: int) -> Array:
    import numpy as np

    from graphc.limits import MemoryFor, check_bytes

    check_bytes((count, *shape), 1, "the pictures")
    with MemoryFor("for the pictures"):
        made = np.empty((count, *shape), np.uint8)
        for row, sample in zip(made, samples, strict=True):
            row[...] = sample
    return made


def _data() -> Any:
    from graphc.train import data

    return data


