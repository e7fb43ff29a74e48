"""LeNet-5 on MNIST or Fashion-MNIST.

    python examples/training/lenet5_mnist.py --data FOLDER

FOLDER holds the four IDX files, plain or gzip: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,
t10k-labels-idx1-ubyte (https://github.com/zalandoresearch/fashion-mnist). Prints loss and accuracy of each epoch on training and test
images, then the test accuracy: at least 90 % of Fashion-MNIST after 10 epochs. --augment shifts pictures by up to 2 pixels, --flip
mirrors half of them (clothes, not digits): slower to learn, better after many epochs.

The network is that of examples/lenet5.py with the parts that --activation and --pool choose.
"""

from __future__ import annotations

from pathlib import Path

import click
from datasets import first, idx_folder

import graphc

SCHEDULES = {
    "constant": lambda lr, steps: None,
    "cosine": lambda lr, steps: graphc.schedules.Cosine(steps, per="step"),
    "onecycle": lambda lr, steps: graphc.schedules.OneCycle(lr, steps),
}


@graphc.model
def lenet5(image: graphc.f32["N", 1, 28, 28], *, activation: str = "tanh", pool: str = "avg"):
    shrink = {"avg": graphc.avg_pool2d, "max": graphc.max_pool2d}[pool]
    x = graphc.conv2d(image, 6, kernel=5, padding=2, activation=activation, name="c1")
    x = graphc.conv2d(shrink(x, 2, name="s2"), 16, kernel=5, activation=activation, name="c3")
    x = graphc.conv2d(shrink(x, 2, name="s4"), 120, kernel=5, activation=activation, name="c5")
    x = graphc.linear(x.flatten(), 84, activation=activation, name="f6")
    return graphc.linear(x, 10, name="output")


@click.command(help="LeNet-5 on a folder of IDX files (MNIST, Fashion-MNIST): prints each epoch, then the test accuracy.")
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the four IDX files.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--lr", default=2e-3, show_default=True, help="Learning rate of Adam.")
@click.option("--schedule", type=click.Choice(list(SCHEDULES)), default="cosine", show_default=True)
@click.option("--augment", is_flag=True, help="Shift by up to 2 pixels.")
@click.option("--flip", is_flag=True, help="Mirror half of the pictures.")
@click.option("--activation", default="tanh", show_default=True)
@click.option("--pool", type=click.Choice(["avg", "max"]), default="avg", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--output", type=click.Path(), help="Write the network here (.onnx).")
@click.option("--curves", type=click.Path(), help="Draw the learning curves here (.png).")
@click.option("--small", is_flag=True, help="1,024 images, 6 epochs.")
def main(
    data: Path, epochs: int, batch: int, lr: float, schedule: str, augment: bool, flip: bool, activation: str, pool: str,
    threads: int | None, output: str | None, curves: str | None, small: bool,
) -> None:  # fmt: skip
    train, test = idx_folder(data)
    if small:
        train, test, epochs = first(train, 1024), first(test, 256), 6
    normalise = graphc.data.mean_std(train)
    augmentation = [graphc.data.Shift(2)] * augment + [graphc.data.HorizontalFlip()] * flip
    loader = graphc.data.Loader(train, batch, augment=augmentation, normalise=normalise, drop_last=True)
    held_out = graphc.data.Loader(test, 256, shuffle=False, normalise=normalise)
    trainer = graphc.Trainer(
        lenet5.configure(activation=activation, pool=pool), optimizer=graphc.optim.Adam(lr), threads=threads,
        schedule=SCHEDULES[schedule](lr, epochs * len(loader)), callbacks=[graphc.callbacks.Curves(curves)] if curves else [],
    )  # fmt: skip
    history = trainer.fit(loader, epochs, validation=held_out)
    print(f"test accuracy {history['val_accuracy'][-1]:.2%} of {len(test)} images, {sum(history['seconds']):.1f} s with tests")
    if output:
        graphc.save_onnx(trainer, output)
        print(f"{output} written")


if __name__ == "__main__":
    main()
