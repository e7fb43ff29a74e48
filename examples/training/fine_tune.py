"""Fine-tuning of an imported ONNX classifier: a new last layer first, then all layers.

    python examples/training/fine_tune.py

The model that examples/digits carries reads digits. The new task: is a digit even or odd, mirrored as on a stamp, and only 100 labelled
pictures. Prints the accuracy on 360 held-out pictures after each of two stages: `head only` trains a new layer on the imported network's
features, `all layers` then everything, at a smaller rate. `from scratch` trains all layers as often with the imported weights shuffled.
The result is written as ONNX under its original names, and where onnxruntime is installed its predictions are compared.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import numpy as np
from datasets import digits, first

import graphc

MODEL = Path(__file__).resolve().parent.parent / "digits" / "lenet5.onnx"
CLASSES = ("even", "odd")


def new_task(source: graphc.data.Arrays) -> graphc.data.Arrays:
    """Mirrored; 0: even, 1: odd."""
    return graphc.data.Arrays(source.x[..., ::-1].copy(), source.y % 2, CLASSES)


def tune(graph: graphc.Graph, train: graphc.data.Arrays, epochs: int, lr: float, freeze: tuple[str, ...] = ()) -> graphc.Trainer:
    """A trainer that has trained for so many epochs, with pictures shifted by up to two pixels."""
    loader = graphc.data.Loader(train, 25, augment=[graphc.data.Shift(2)])
    schedule = graphc.schedules.Cosine(epochs * len(loader), per="step")
    trainer = graphc.Trainer(graph, optimizer=graphc.optim.Adam(lr), schedule=schedule, freeze=freeze, progress=False)
    trainer.fit(loader, epochs)
    return trainer


def shuffled(graph: graphc.Graph, seed: int = 0) -> graphc.Graph:
    """The same network without what it has learned: the entries of every parameter in another order."""
    made, rng = graph.copy(), np.random.default_rng(seed)
    for value in made.parameters.values():
        value.data = rng.permutation(value.data.ravel()).reshape(value.data.shape)
    return made


@click.command(help="Fine-tunes an ONNX classifier for another task: prints the accuracy of each stage.")
@click.option("--images", type=click.IntRange(1), default=100, show_default=True, help="Labelled pictures of the new task.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Of each stage.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the result here (.onnx).")
@click.option("--small", is_flag=True, help="12 epochs.")
def main(images: int, epochs: int, output: Path | None, small: bool) -> None:
    epochs = 12 if small else epochs
    train, test = map(new_task, digits())
    train = first(train, images)
    held_out = graphc.data.Loader(test, len(test), shuffle=False)
    graph = graphc.replace_head(MODEL, len(CLASSES))
    graph.metadata["labels"] = json.dumps(CLASSES)
    head = tune(graph, train, epochs, 1e-2, freeze=graphc.backbone(graph))
    tuned = tune(head.graph(), train, epochs, 1e-3)
    scratch = tune(shuffled(graph), train, 2 * epochs, 2e-3)
    for name, trainer in {"head only": head, "all layers": tuned, "from scratch": scratch}.items():
        print(f"{name:12} {trainer.evaluate(held_out)['accuracy']:.1%}")
    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "tuned.onnx"
        graphc.save_onnx(tuned, path)
        x = test.x.astype(np.float32) / 255
        compare(path, x, tuned.predict(x, len(x)))


def compare(path: Path, x: np.ndarray, expected: np.ndarray) -> None:
    """Print whether ONNX Runtime reads the written file as the trainer does."""
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: the written file was not compared")
        return
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    equal = int((found.argmax(1) == expected.argmax(1)).sum())
    print(f"onnxruntime  {equal} of {len(x)} predictions equal, logits differ by at most {np.abs(found - expected).max():.1e}")


if __name__ == "__main__":
    main()
