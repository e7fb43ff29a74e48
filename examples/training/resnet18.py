"""ResNet-18 in the form for 32x32 pictures, on Fashion-MNIST or CIFAR-10.

    python examples/training/resnet18.py --data FOLDER          (IDX files, padded from 28x28 to 32x32; 10,000 images unless --images)
    python examples/training/resnet18.py --cifar10 FOLDER       (data_batch_1.bin to _5, test_batch.bin)

Prints loss and accuracy of each epoch, then the test accuracy and the time. SGD with momentum, the rate falling by a cosine after a short
warm-up, weight decay on weights but not on biases and scales of normalisation. --augment: random crops of the padded picture, and flips.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385: the 7x7 stem and the max pooling of the
ImageNet form give way to one 3x3 convolution, as in section 4.2.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from datasets import first, idx_folder

import graphc


def conv_bn(x: graphc.Tensor, channels: int, kernel: int = 3, stride: int = 1, activation: str | None = "relu") -> graphc.Tensor:
    x = graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, bias=False, name="conv")
    return graphc.batch_norm(x, activation=activation, name="bn")


@graphc.block
def basic(x: graphc.Tensor, channels: int, stride: int) -> graphc.Tensor:
    """Two 3x3 convolutions beside the identity, or a projection where the shape changes."""
    with graphc.scope("first"):
        y = conv_bn(x, channels, stride=stride)
    with graphc.scope("second"):
        y = conv_bn(y, channels, activation=None)
    if stride > 1:
        with graphc.scope("projection"):
            x = conv_bn(x, channels, kernel=1, stride=stride, activation=None)
    return graphc.relu(x + y)


@graphc.model
def resnet18(image: graphc.f32["N", 3, 32, 32], *, width: int = 64, classes: int = 10):
    with graphc.scope("stem"):
        x = conv_bn(image, width)
    for stage in range(4):
        for number in range(2):
            x = basic(x, width << stage, stride=2 if stage and not number else 1, name=f"layer{stage + 1}.{number}")
    return graphc.linear(graphc.global_avg_pool(x).flatten(), classes, name="fc")


def as_cifar(source: graphc.data.Arrays) -> graphc.data.Arrays:
    """Grey 28x28 bytes as 3x32x32."""
    return graphc.data.Arrays(np.repeat(np.pad(source.x, ((0, 0), (0, 0), (2, 2), (2, 2))), 3, axis=1), source.y)


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(help="ResNet-18 on Fashion-MNIST or CIFAR-10: prints each epoch, then test accuracy and time.")
@click.option("--data", type=FOLDER, help="Folder of four IDX files of 28x28 pictures.")
@click.option("--cifar10", type=FOLDER, help="Folder of the binary files of CIFAR-10.")
@click.option("--images", type=click.IntRange(1), help="The first so many training images; 10,000 of IDX files, all of CIFAR-10.")
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--lr", default=0.05, show_default=True)
@click.option("--width", type=click.IntRange(1), default=64, show_default=True, help="Channels of the first stage.")
@click.option("--augment", is_flag=True, help="Random crops and flips.")
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="Keep checkpoints here, and go on from the last one.")
@click.option("--output", type=click.Path(), help="Write the network here (.onnx).")
@click.option("--small", is_flag=True, help="512 images, 8 channels.")
def main(
    data: Path | None, cifar10: Path | None, images: int | None, epochs: int, batch: int, lr: float, width: int, augment: bool,
    threads: int | None, checkpoints: Path | None, output: str | None, small: bool,
) -> None:  # fmt: skip
    if (data is None) == (cifar10 is None):
        raise click.UsageError("one of --data and --cifar10")
    if data is not None:
        train, test = map(as_cifar, idx_folder(data))
    else:
        train, test = graphc.data.cifar10(cifar10), graphc.data.cifar10(cifar10, train=False)
    train = first(train, images or (len(train) if cifar10 else 10_000))
    if small:
        train, test, width = first(train, 512), first(test, 256), 8
    normalise = graphc.data.mean_std(train)
    augmentation = [graphc.data.RandomCrop(32, padding=4), graphc.data.HorizontalFlip()] if augment else []
    loader = graphc.data.Loader(train, batch, augment=augmentation, normalise=normalise, drop_last=True)
    held_out = graphc.data.Loader(test, 256, shuffle=False, normalise=normalise)
    steps, warm = epochs * len(loader), len(loader) // 4
    trainer = graphc.Trainer(
        resnet18.configure(width=width),
        optimizer=graphc.optim.SGD(lr, momentum=0.9, weight_decay=5e-4, groups=graphc.optim.Group(max_rank=1, weight_decay=0.0)),
        schedule=graphc.schedules.Warmup(warm, graphc.schedules.Cosine(steps - warm, per="step"), 0.1),
        threads=threads, checkpoint_dir=checkpoints,
    )  # fmt: skip
    history = trainer.fit(loader, epochs, validation=held_out, resume=checkpoints is not None)
    print(f"test accuracy {history['val_accuracy'][-1]:.2%} of {len(test)} images, {sum(history['seconds']):.0f} s with tests")
    if output:
        graphc.save_onnx(trainer, output)
        print(f"{output} written")


if __name__ == "__main__":
    main()
