"""Make this folder's model and pictures: LeNet-5 trained on scikit-learn's handwritten digits, written as ONNX.

    pip install 'graphc[train]' && python examples/digits/train.py

The 1,797 digits of 8 x 8 pixels are enlarged to the 32 x 32 of the original network. A fifth of them, balanced over the classes, is held
out: training never sees it, the reported accuracy is measured on it, and the ten pictures come from it. Everything is seeded.

The network is that of Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE
86(11), 1998, figure 2, with today's usual simplifications: plain average pooling, every map of C3 sees every map of S2, softmax output.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SIZE = 32
EPOCHS = 60
BATCH = 64
SEED = 0
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LAYERS = ("c1", "c3", "c5", "f6", "output")

Images = NDArray[np.uint8]  # (samples, 32, 32), white ink on black
Labels = NDArray[np.int64]  # (samples,)


class LeNet5(nn.Module):
    """Image (N, 1, 32, 32) in [0, 1] -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(torch.tanh(self.c1(image)), 2)
        x = nn.functional.avg_pool2d(torch.tanh(self.c3(x)), 2)
        x = torch.tanh(self.c5(x)).flatten(1)
        logits: torch.Tensor = self.output(torch.tanh(self.f6(x)))
        return logits


def digits() -> tuple[Images, Labels]:
    """All digits at 32 x 32, and what they are."""
    data = load_digits()
    small = np.round(data.images * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in small]
    return np.stack(large), data.target.astype(np.int64)


def to_batch(images: Images) -> torch.Tensor:
    """(N, 32, 32) bytes -> (N, 1, 32, 32) float in [0, 1]: the whole preprocessing of the model."""
    return torch.from_numpy(images[:, None].astype(np.float32) / 255)


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to two pixels, the border filled with background: all the augmentation there is."""
    down, right = (int(d) for d in torch.randint(-2, 3, (2,)))
    padded = nn.functional.pad(batch, (2, 2, 2, 2))
    return padded[:, :, 2 + down : 2 + down + SIZE, 2 + right : 2 + right + SIZE]


def train(images: Images, labels: Labels) -> LeNet5:
    """A trained network: Adam, the learning rate falling to zero by a cosine."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same sums in the same order everywhere
    torch.use_deterministic_algorithms(True)
    net = LeNet5()
    x, y = to_batch(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(shifted(x[rows])), y[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(x):.4f}")
    return net


def predict(net: LeNet5, images: Images) -> NDArray[np.float32]:
    """Probabilities (N, 10)."""
    with torch.no_grad():
        return np.asarray(net(to_batch(images)).softmax(dim=1).numpy())


def build_onnx(net: LeNet5, accuracy: float, held_out: int) -> onnx.ModelProto:
    """The network as an ONNX model (opset 17): `image` (N, 1, 32, 32) in [0, 1] -> `probabilities` (N, 10), symbolic batch size N."""

    def pool(name: str, x: str) -> onnx.NodeProto:
        return helper.make_node("AveragePool", [x], [name], name, kernel_shape=[2, 2], strides=[2, 2])

    def layer(op: str, name: str, x: str, out: str, **attributes: int) -> onnx.NodeProto:
        return helper.make_node(op, [x, f"{name}.weight", f"{name}.bias"], [out], name, **attributes)

    def tanh(name: str) -> onnx.NodeProto:
        return helper.make_node("Tanh", [f"{name}.sum"], [name], f"{name}.tanh")

    nodes = [
        layer("Conv", "c1", "image", "c1.sum"), tanh("c1"), pool("s2", "c1"),
        layer("Conv", "c3", "s2", "c3.sum"), tanh("c3"), pool("s4", "c3"),
        layer("Conv", "c5", "s4", "c5.sum"), tanh("c5"),
        helper.make_node("Flatten", ["c5"], ["c5.flat"], "flatten", axis=1),
        layer("Gemm", "f6", "c5.flat", "f6.sum", transB=1), tanh("f6"),
        layer("Gemm", "output", "f6", "logits", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]  # fmt: skip
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    weights = [numpy_helper.from_array(state[f"{name}.{part}"], f"{name}.{part}") for name in LAYERS for part in ("weight", "bias")]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "lenet5", [image], [probabilities], weights)
    model = helper.make_model(graph, producer_name="graphc", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    model.doc_string = "LeNet-5 for handwritten digits; made by examples/digits/train.py"
    preprocessing = {"layout": "NCHW", "color": "gray", "size": [SIZE, SIZE], "scale": "1/255", "mean": [0.0], "std": [1.0]}
    helper.set_model_props(
        model,
        {
            "preprocessing": json.dumps(preprocessing),
            "labels": json.dumps(WORDS),
            "accuracy": f"{accuracy:.4f} on {held_out} held-out digits",
            "training_data": "UCI Optical Recognition of Handwritten Digits, as in sklearn.datasets.load_digits (CC BY 4.0)",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_pictures(images: Images, labels: Labels, probabilities: NDArray[np.float32]) -> None:
    """One held-out picture of each digit that the network reads rightly: the first of its class with at least 90 percent."""
    for digit in range(10):
        sure = np.flatnonzero((labels == digit) & (probabilities[:, digit] > 0.9))
        Image.fromarray(images[sure[0]]).save(HERE / f"{digit}.png", optimize=True)


def main() -> None:
    images, labels = digits()
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=SEED)
    net = train(x, y)
    probabilities = predict(net, x_test)
    right = probabilities.argmax(1) == y_test
    print(f"held-out accuracy {right.mean():.2%}: {right.sum()} of {len(right)}")
    onnx.save(build_onnx(net, float(right.mean()), len(right)), HERE / "lenet5.onnx")
    write_pictures(x_test, y_test, probabilities)
    (HERE / "labels.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")


if __name__ == "__main__":
    main()
