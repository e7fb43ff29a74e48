"""Input files as arrays: .npy, .npz, pictures; and how many files become how many runs of the model.

* An .npz file gives inputs by name. `--input NAME=FILE` gives one.
* Of the other files, each is a sample of its own where one input is left to give (pictures make one batch where the batch size is
  symbolic); else they are the inputs that are left, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from graphc.cli import pictures, show
from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.ir.graph import Array
    from graphc.types.tensor import TensorType

_MANY = 20  # files whose reading shows a progress bar
PictureLoader = Callable[[str, Path], "Array"]  # (input name, file) -> array with batch size 1, or without a batch axis


@dataclass(frozen=True)
class Run:
    """One call of the model. `samples`: the file of each row of the batch, or of the whole call."""

    feeds: dict[str, Array]
    samples: tuple[str, ...]


def named_files(files: Iterable[tuple[str, str]]) -> dict[str, Path]:
    """NAME=FILE options. Raises InputError for a name that is given twice."""
    found: dict[str, Path] = {}
    for name, file in files:
        if name in found:
            raise InputError(f"--input {name} is given twice", hint="name each input once")
        found[name] = Path(file)
    return found


def split(files: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The .npz files and the others."""
    paths = [Path(file) for file in files]
    return [path for path in paths if path.suffix == ".npz"], [path for path in paths if path.suffix != ".npz"]


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in pictures.SUFFIXES


def arrays_by_name(archives: Iterable[Path], named: Mapping[str, Path]) -> dict[str, Array]:
    """What .npz files and .npy files of `--input` hold (pictures of `--input` are not loaded here)."""
    found: dict[str, Array] = {}
    for path in archives:
        found.update(load_archive(path))
    found.update({name: load_array(path) for name, path in named.items() if not is_picture(path)})
    return found


def runs(
    types: Mapping[str, TensorType], fixed: Mapping[str, Array], files: Sequence[Path], picture: PictureLoader, batch: int | None
) -> list[Run]:  # fmt: skip
    """The calls to make. `batch`: at most so many pictures in one call, where the batch size is symbolic; None: all.

    Raises InputError where the files do not fit the inputs `types`.
    """
    _check_names(types, fixed)
    settled = {name: fit(name, types[name], array) for name, array in fixed.items()}
    free = [name for name in types if name not in settled]
    if not files and not free:
        return [Run(settled, ("the inputs",))]
    if len(free) == 1 and files:
        return _samples(free[0], types[free[0]], settled, files, picture, batch)
    if len(files) != len(free):
        missing = ", ".join(f"{name}: {types[name]}" for name in free)
        what = f"{len(files)} files for {len(free)} inputs ({missing})" if free else f"{len(files)} files, and every input is given by name"
        raise InputError(what, hint="give a .npy, .npz or picture file for each input, or --input NAME=FILE")
    given = {name: _load(name, types[name], path, picture) for name, path in zip(free, files, strict=True)}
    return [Run({**settled, **given}, (" ".join(path.name for path in files),))]


def _samples(
    name: str, type: TensorType, settled: Mapping[str, Array], files: Sequence[Path], picture: PictureLoader, batch: int | None
) -> list[Run]:  # fmt: skip
    paths = show.progress(files, "reading", len(files)) if len(files) > _MANY else iter(files)
    loaded = [(path, _load(name, type, path, picture)) for path in paths]
    return [
        Run({**settled, name: _joined([array for _, array in group])}, tuple(path.name for path, _ in group))
        for group in _groups(loaded, type, batch)
    ]


def _groups(loaded: Sequence[tuple[Path, Array]], type: TensorType, batch: int | None) -> list[list[tuple[Path, Array]]]:
    """Pictures that make one batch; everything else is alone."""
    if not all(is_picture(path) for path, _ in loaded) or type.rank == 0:
        return [[item] for item in loaded]
    size = type.shape[0]
    if isinstance(size, int):
        if size > 1 and type.rank == 4 and len(loaded) % size:
            raise InputError(f"{len(loaded)} pictures do not fill the model's batches of {size}", hint=f"{size} pictures at a time")
        limit = size if type.rank == 4 else 1
    else:
        limit = batch or len(loaded)
    groups: list[list[tuple[Path, Array]]] = []
    for item in loaded:
        if groups and len(groups[-1]) < limit and groups[-1][-1][1].shape == item[1].shape:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _joined(arrays: Sequence[Array]) -> Array:
    import numpy as np

    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _load(name: str, type: TensorType, path: Path, picture: PictureLoader) -> Array:
    return picture(name, path) if is_picture(path) else fit(name, type, load_array(path))


def fit(name: str, type: TensorType, array: Array) -> Array:
    """The array in the input's dtype and rank: numbers are converted within their kind (float64 to float32), a missing batch axis is
    added. Raises InputError where that would change the meaning."""
    import numpy as np

    wanted = type.dtype.numpy
    if array.dtype != wanted and not np.can_cast(array.dtype, wanted, "same_kind"):
        hint = f"convert it with .astype(np.{type.dtype.name})"
        raise InputError(f"input {name!r} takes {type}, the file holds {array.dtype}", hint=hint)
    converted = array.astype(wanted, copy=False)
    if wanted.kind in "iu" and not np.array_equal(converted, array):
        raise InputError(f"input {name!r} takes {type}, the file's {array.dtype} values do not fit", hint="values within its range")
    if array.ndim == type.rank - 1 and (not isinstance(type.shape[0], int) or type.shape[0] == 1):
        converted = converted[None]
    fits = converted.ndim == type.rank and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(type.shape, converted.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {name!r} takes {type}, the file holds shape {array.shape}", hint="an array of that shape")
    return converted


def load_array(path: Path) -> Array:
    """A .npy file."""
    import numpy as np

    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise _unreadable(path, error, "a .npy file, or a picture") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise InputError("holds several arrays", where=str(path), hint="name it .npz")
    return found


def load_archive(path: Path) -> dict[str, Array]:
    """An .npz file."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise _unreadable(path, error, "an .npz file written by numpy.savez") from error


def _unreadable(path: Path, error: Exception, hint: str) -> InputError:
    reason = getattr(error, "strerror", None)
    return InputError(f"cannot be read: {reason}" if reason else "not a numpy file, or truncated", where=str(path), hint=hint)


def _check_names(types: Mapping[str, TensorType], given: Mapping[str, Array]) -> None:
    unknown = sorted(given.keys() - types.keys())
    if unknown:
        known = ", ".join(f"{name}: {type}" for name, type in types.items())
        raise InputError(f"the model has no input {unknown[0]!r}", hint=f"its inputs: {known}")
