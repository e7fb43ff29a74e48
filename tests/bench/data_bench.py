"""Images per second of `graphc.data.Loader`: `python tests/bench/data_bench.py [--torch] [part of a name ...]`. Nothing is asserted.

Random bytes in the sizes of Fashion-MNIST (1x28x28) and CIFAR (3x32x32), batches of 64, the same normalisation. --torch adds PyTorch's
DataLoader over a TensorDataset (torch collates; its worker processes where workers > 0). "beside 1 ms": what a step of 1 ms without the GIL
waits for its batch, on average.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "frontends"), str(ROOT / "backends")]

from graphc import data as D  # noqa: E402, N812

BATCH, SECONDS = 64, 1.0
MEAN, STD = 0.3, 0.35
CROP = [D.RandomCrop(32, padding=4), D.HorizontalFlip()]
AUGMENTS: dict[str, tuple[tuple[int, ...], list[Any]]] = {
    "1x28x28": ((1, 28, 28), []),
    "1x28x28 shift, flip": ((1, 28, 28), [D.Shift(2), D.HorizontalFlip()]),
    "1x28x28 shift, rotation, shear, zoom": ((1, 28, 28), [D.Shift(2), D.Rotation(10), D.Shear(10), D.Zoom()]),
    "3x32x32": ((3, 32, 32), []),
    "3x32x32 crop, flip": ((3, 32, 32), CROP),
    "3x32x32 crop, flip, cutout": ((3, 32, 32), [*CROP, D.Cutout(8)]),
    "3x32x32 crop, flip, colours": ((3, 32, 32), [*CROP, D.ColorJitter(0.4, 0.4, 0.4, 0.1)]),
    "3x32x32 crop, flip, light": ((3, 32, 32), [*CROP, D.Illumination()]),
    "3x32x32 crop, flip, rotation, zoom": ((3, 32, 32), [*CROP, D.Rotation(10), D.Zoom()]),
}


def images_per_second(batches: Iterable[Any]) -> float:
    """Whole epochs for about SECONDS, after one that is not counted."""
    for _ in batches:
        pass
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for x, _ in batches:
            count += len(x)
    return count / (time.perf_counter() - start)


def waiting(loader: D.Loader) -> float:
    """Seconds that the consumer waits for a batch, steps of 1 ms between."""
    waits, last = [], 0.0
    for _ in loader:
        waits.append(time.perf_counter() - last)
        time.sleep(1e-3)
        last = time.perf_counter()
    return float(np.mean(waits[1:]))


def pixels(shape: tuple[int, ...], count: int = 12800) -> D.Arrays:
    rng = np.random.default_rng(0)
    return D.Arrays(rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 10, count))


def folder(path: Path) -> D.ImageFolder:
    """96 photograph-like JPEG files of 500 x 375 pixels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(96):
        file = path / f"class{number % 4}" / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375)).save(file, quality=90)
    return D.ImageFolder(path, 256)


def torch_loader(source: D.Arrays, workers: int) -> Iterable[Any]:
    """The usual Dataset: a sample at a time, normalised; no augmentation."""
    import torch

    class Samples(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, index: int) -> Any:
            x, y = source[index]
            return (torch.from_numpy(x).float() / 255 - MEAN) / STD, int(y)

    loader: Iterable[Any] = torch.utils.data.DataLoader(Samples(), BATCH, shuffle=True, num_workers=workers)
    return loader


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*")
    options.add_argument("--torch", action="store_true")
    chosen = options.parse_args()
    wanted: Callable[[str], bool] = lambda name: not chosen.names or any(part in name for part in chosen.names)  # noqa: E731
    print(f"{'images/s':42} {'0 workers':>12} {'1 worker':>12} {'2 workers':>12}   beside 1 ms")
    for name, (shape, augment) in AUGMENTS.items():
        if wanted(name):
            source = pixels(shape)
            loaders = [D.Loader(source, BATCH, augment=augment, normalise=(MEAN, STD), workers=workers) for workers in (0, 1, 2)]
            rates = "".join(f"{images_per_second(loader):13,.0f}" for loader in loaders)
            print(f"{name:42}{rates}   {waiting(loaders[1]) * 1e6:6.0f} us")
    with tempfile.TemporaryDirectory() as path:
        if wanted("folder"):
            source = folder(Path(path))
            augment = [D.RandomResizedCrop(224), D.HorizontalFlip()]
            loaders = [D.Loader(source, 32, augment=augment, workers=workers) for workers in (0, 1, 2)]
            print(f"{'folder: JPEG 500x375 to 3x224x224':42}" + "".join(f"{images_per_second(loader):13,.0f}" for loader in loaders))
    for shape in ((1, 28, 28), (3, 32, 32)) if chosen.torch else ():
        rates = "".join(f"{images_per_second(torch_loader(pixels(shape), workers)):13,.0f}" for workers in (0, 1, 2))
        print(f"PyTorch DataLoader {'x'.join(map(str, shape)):23}{rates}")


if __name__ == "__main__":
    main()
