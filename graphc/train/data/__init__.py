"""Training data, as `graphc.data`: sources of samples, augmentation, and the loader that makes batches of them ahead of time.

    train = graphc.data.idx("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    loader = graphc.data.Loader(train, 64, augment=[graphc.data.Shift(2), graphc.data.Rotation(10)], normalise=(0.286, 0.353))
    graphc.data.preview(loader, "sheet.png")

A file per kind of source (`source`, `idx`, `cifar`, `folder`, `text`) and of augmentation (`augment`, `geometry`, `color`); `chain` makes
one of a list, `draws` its random numbers, `ahead` the threads.
"""

from graphc.train.data.ahead import Stream
from graphc.train.data.augment import Augmentation, Cutout, HorizontalFlip, RandomCrop, VerticalFlip
from graphc.train.data.cifar import cifar10, cifar100
from graphc.train.data.color import ColorJitter, Illumination
from graphc.train.data.folder import ImageFolder
from graphc.train.data.geometry import RandomResizedCrop, Rotation, Shear, Shift, Zoom
from graphc.train.data.idx import idx, read_idx
from graphc.train.data.loader import Loader
from graphc.train.data.preview import preview
from graphc.train.data.source import Arrays, Source, in_memory, mean_std
from graphc.train.data.text import Alphabet, TextStreams

__all__ = [
    "Arrays", "ImageFolder", "Source", "Stream", "cifar10", "cifar100", "idx", "in_memory", "mean_std", "read_idx",
    "Augmentation", "ColorJitter", "Cutout", "HorizontalFlip", "Illumination", "RandomCrop", "RandomResizedCrop", "Rotation", "Shear",
    "Shift", "VerticalFlip", "Zoom",
    "Alphabet", "TextStreams",
    "Loader", "preview",
]  # fmt: skip
