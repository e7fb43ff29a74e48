"""IDX and CIFAR files: what is written comes back; whatever else the bytes are, the answer is an array or a GraphcError."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.errors import GraphcError, InputError, ResourceError
from train_data.files import IDX_CODES, cifar_records, idx_bytes, write


@pytest.mark.parametrize("kind", IDX_CODES)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path: Path, kind: str, packed: bool) -> None:
    array = (np.arange(-12, 12).reshape(2, 3, 4) * 5).astype(kind)
    data = idx_bytes(array)
    got = graphc.data.read_idx(write(tmp_path / "array", gzip.compress(data) if packed else data))
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_idx_pair_is_a_source(tmp_path: Path) -> None:
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([1, 0], np.uint8)
    source = graphc.data.idx(write(tmp_path / "x", idx_bytes(x)), write(tmp_path / "y", idx_bytes(y)), ["cat", "dog"])
    assert (len(source), source.classes) == (2, ("cat", "dog"))
    np.testing.assert_array_equal(source[1][0], x[1][None])
    assert source[1][1] == 0


def _read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    """What is read; None where a GraphcError that names the file refuses it."""
    try:
        return read(path)
    except GraphcError as error:
        if str(path) not in str(error):
            pytest.fail(f"{error} does not name the file")
        return None


GOOD = idx_bytes(np.zeros((2, 3, 4), np.uint8))
BROKEN_IDX = {
    "empty": (b"", "ends after 0 of 4"),
    "header cut": (GOOD[:9], "of the header"),
    "wrong magic": (b"\x89PNG" + GOOD[4:], "no IDX file"),
    "unknown dtype": (b"\0\0\x0a" + GOOD[3:], "no IDX file"),
    "no axes": (b"\0\0\x08\0", "0 axes"),
    "too many axes": (b"\0\0\x08\xff" + bytes(2000), "255 axes"),
    "data cut": (GOOD[:-1], "ends after 23 of 24"),
    "data left over": (GOOD + b"\0", "more bytes"),
    "gzip cut": (gzip.compress(GOOD)[:-12], "gzip|ends after"),
    "gzip broken": (b"\x1f\x8b" + bytes(40), "cannot be read|gzip"),
    "gzip checksum": (gzip.compress(GOOD)[:-8] + bytes(8), "cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_broken_idx_is_named(tmp_path: Path, case: str) -> None:
    data, reason = BROKEN_IDX[case]
    path = write(tmp_path / "broken", data)
    with pytest.raises(InputError, match=reason) as caught:
        graphc.data.read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**32 - 1,) * 8, (2**20, 2**20, 64)])
def test_absurd_sizes_take_no_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "absurd", struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(100))
    with pytest.raises(ResourceError, match="GRAPHC_MAX_BYTES"):
        graphc.data.read_idx(path)


def test_a_claim_below_the_limit_is_not_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 GB are allowed here, and claimed; the file has 100 bytes."""
    monkeypatch.setenv("GRAPHC_MAX_BYTES", str(2**40))
    path = write(tmp_path / "claim", struct.pack(">BBBB2I", 0, 0, 8, 2, 2**20, 2**16) + bytes(100))
    with pytest.raises(InputError, match="ends after 100"):
        graphc.data.read_idx(path)


def test_idx_files_that_do_not_fit_together(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "x", GOOD), write(tmp_path / "y", idx_bytes(np.zeros(3, np.uint8)))
    for pair, reason in (((images, labels), "2 pictures"), ((labels, labels), "pictures are bytes"), ((images, images), "labels are")):
        with pytest.raises(InputError, match=reason):
            graphc.data.idx(*pair)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "fifo", "\0", "/dev/zero"):
        with pytest.raises(InputError):
            graphc.data.read_idx(path)


@given(data=st.binary(max_size=64), head=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x0d\x02", b"\0\0\x08\x03\0\0\0", b"\x1f\x8b\x08"]))
def test_idx_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, head: bytes, data: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.idx", head + data)
    array = _read_or_refused(graphc.data.read_idx, path)
    assert array is None or idx_bytes(array) == head + data


def test_cifar10(tmp_path: Path) -> None:
    parts = [cifar_records(number + 1, 1, 10, number) for number in range(5)]
    folder = tmp_path / "cifar-10-batches-bin"
    for number, (data, _, _) in enumerate(parts):
        write(folder / f"data_batch_{number + 1}.bin", data)
    write(folder / "test_batch.bin", parts[0][0])
    for path in (folder, tmp_path, [folder / f"data_batch_{number}.bin" for number in range(1, 6)]):
        source = graphc.data.cifar10(path)
        np.testing.assert_array_equal(source.x, np.concatenate([x for _, x, _ in parts]))
        np.testing.assert_array_equal(source.y, np.concatenate([y[:, 0] for _, _, y in parts]))
        assert source.classes[3] == "cat"
    assert len(graphc.data.cifar10(folder, train=False)) == 1
    write(folder / "batches.meta.txt", "\n".join("abcdefghij").encode() + b"\n\n")
    assert graphc.data.cifar10(folder / "test_batch.bin").classes == tuple("abcdefghij")


def test_cifar100(tmp_path: Path) -> None:
    data, x, y = cifar_records(7, 2, 20)
    write(tmp_path / "train.bin", data)
    write(tmp_path / "fine_label_names.txt", "\n".join(f"fine{i}" for i in range(100)).encode())
    for coarse in (False, True):
        source = graphc.data.cifar100(tmp_path, coarse=coarse)
        np.testing.assert_array_equal(source.x, x)
        np.testing.assert_array_equal(source.y, y[:, 0 if coarse else 1])
        assert len(source.classes) == (0 if coarse else 100)


def test_broken_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, _ = cifar_records(2, 1, 10)
    for case, (content, reason) in {
        "cut": (data[:-1], "whole records"), "empty": (b"", "whole records"), "label": (b"\x0b" + data[1:], "labels from"),
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=reason) as caught:
            graphc.data.cifar10([write(tmp_path / case, content)])
        assert case in str(caught.value)
    with pytest.raises(InputError, match=r"data_batch_1\.bin"):
        graphc.data.cifar10(tmp_path)
    with pytest.raises(InputError, match="no files"):
        graphc.data.cifar10([])
    write(tmp_path / "batches.meta.txt", b"only one")
    with pytest.raises(InputError, match="1 names"):
        graphc.data.cifar10([write(tmp_path / "good", data)])
    (tmp_path / "batches.meta.txt").unlink()
    monkeypatch.setenv("GRAPHC_MAX_BYTES", "5000")
    with pytest.raises(ResourceError):
        graphc.data.cifar10([tmp_path / "good"])


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "sparse", b"")
    os.truncate(path, 3073 * 2**29)
    with pytest.raises(ResourceError):
        graphc.data.cifar10([path])


@given(data=st.one_of(st.binary(max_size=64), st.binary(min_size=3073, max_size=3073)), fine=st.booleans())
def test_cifar_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, fine: bool) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any" / "cifar.bin", data)
    source = _read_or_refused(graphc.data.cifar100 if fine else graphc.data.cifar10, path)
    assert source is None or len(source) * (3074 if fine else 3073) == len(data)


def test_real_fashion_mnist(shared_data: Path) -> None:
    folder = shared_data / "fashion-mnist"
    source = graphc.data.idx(folder / "t10k-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz")
    assert source.x.shape == (10000, 1, 28, 28)
    assert np.bincount(source.y).tolist() == [1000] * 10
    mean, std = graphc.data.mean_std(source)
    assert mean == pytest.approx([source.x.mean() / 255], rel=1e-9)
    assert std == pytest.approx([source.x.std() / 255], rel=1e-9)
