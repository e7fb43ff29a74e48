"""The IDX format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist): two zero bytes, a dtype code, the rank, the sizes as
big-endian 32-bit numbers, the elements in row-major big-endian order. Plain or gzip."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Union

import numpy as np

from graphc.errors import InputError
from graphc.ir.graph import Array
from graphc.limits import MemoryFor, check_bytes
from graphc.train.data.binary import end, opened, take
from graphc.train.data.source import Arrays

AnyPath = Union[str, PathLike[str]]
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8


def idx(images: AnyPath, labels: AnyPath, classes: Sequence[str] = ()) -> Arrays:
    """Pictures and labels of a pair of IDX files: x bytes (N, 1, H, W), or (N, C, H, W) where the file has four axes; y integers (N,).

    Raises InputError for files that are broken or do not fit together, ResourceError where they are larger than the memory limit.
    """
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise InputError(f"holds {x.dtype}{list(x.shape)}, pictures are bytes (N, H, W)", where=str(images))
    if y.dtype.kind not in "ui" or y.ndim != 1:
        raise InputError(f"holds {y.dtype}{list(y.shape)}, labels are integers (N,)", where=str(labels))
    if len(x) != len(y):
        raise InputError(f"has {len(x)} pictures, {labels} has {len(y)} labels", where=str(images), hint="two files that belong together")
    return Arrays(x, y, classes)


def read_idx(path: AnyPath) -> Array:
    """The array of one IDX file, in the byte order of the machine. Raises InputError for a broken file, ResourceError for a large one."""
    path = Path(path)
    where = str(path)
    with opened(path) as file:
        magic = take(file, 4, path, "the header")
        dtype, rank = _DTYPES.get(magic[2]), magic[3]
        if magic[:2] != b"\0\0" or dtype is None:
            raise InputError(f"is no IDX file: it begins with {magic.hex(' ')}", where=where, hint="00 00 08 03 is one of pictures")
        if not 1 <= rank <= _MOST_AXES:
            raise InputError(f"an IDX array of {rank} axes", where=where, hint=f"1 to {_MOST_AXES} axes")
        shape = tuple(np.frombuffer(take(file, 4 * rank, path, "the header"), ">u4").tolist())
        kind = np.dtype(dtype)
        size = check_bytes(shape, kind.itemsize, f"the IDX array of {where}")
        with MemoryFor(f"for {where}"):
            data = take(file, size, path, f"an array of shape {list(shape)}")
            end(file, path, f"an array of shape {list(shape)}")
            return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)
