"""Train the digits example: a small MobileNet-style classifier of handwritten digits.

The data are the 1797 images of 8x8 pixels that scikit-learn ships, enlarged to 32x32. The run is
seeded, uses one thread, takes a minute or two, and writes `digits.onnx`, `calib.npz`, `test.npz`
and `photos/` beside this file.

    pip install 'qdqc[train]'
    python examples/digits/train.py
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
SIZE = 32
MEAN, SCALE = 127.5, 0.0078125  # what the network takes: (pixel - MEAN) * SCALE, pixels 0..255
TEST_IMAGES, CALIB_IMAGES, PHOTOS = 500, 200, 20
OPSET = 17


class Split(NamedTuple):
    """Images u8 [N,1,32,32] and their digits, in three sets; `calib` is a part of `train`."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    calib: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]


class ConvNorm(nn.Sequential):
    """Convolution without bias, BatchNormalization, and an activation where one is given."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.add_module("conv", conv)
        self.add_module("norm", nn.BatchNorm2d(outputs))
        if act is not None:
            self.add_module("act", act())


class Separable(nn.Sequential):
    """Depthwise 3x3 convolution, then a pointwise one (MobileNet v1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.add_module("depth", ConvNorm(inputs, inputs, 3, stride, inputs, act))
        self.add_module("point", ConvNorm(inputs, outputs, act=act))


class Residual(nn.Module):
    """Inverted residual: widen, depthwise 3x3, narrow without activation, add (MobileNet v2)."""

    def __init__(self, channels: int, wide: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, wide, act=act)
        self.depth = ConvNorm(wide, wide, 3, groups=wide, act=act)
        self.project = ConvNorm(wide, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depth(self.expand(x)))


class Digits(nn.Module):
    """The network: `image` f32 [N,1,32,32] to `logits` f32 [N,10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 32, 3, 2, act=nn.Hardswish)
        self.block1 = Separable(32, 64, 1, nn.ReLU6)
        self.block2 = Residual(64, 128, nn.ReLU6)
        self.block3 = Separable(64, 96, 2, nn.ReLU6)
        self.block4 = Residual(96, 192, nn.ReLU6)
        self.block5 = Separable(96, 128, 2, nn.Hardswish)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.stem(x)))
        x = self.block5(self.block4(self.block3(x)))
        return self.classifier(self.flatten(self.pool(x)))


def enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """An 8x8 image with values 0..16 as a 32x32 one with grey pixels 0..255.

    Pixels are multiples of 8, so that the files compress well: the source has but 17 levels.
    """
    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) & np.uint8(0xF8)


def split_digits() -> Split:
    """Load, enlarge and split the data; every set holds the ten digits in equal shares.

    The last images of every digit are held out rather than random ones: neighbours seem to be by
    the same hand, so a random split would mix the writers and flatter the network.
    """
    values, target = load_digits(return_X_y=True)
    images = np.stack([enlarge(row.reshape(8, 8)) for row in values])[:, None]
    labels = np.asarray(target, np.int64)
    rng = np.random.default_rng(SEED)
    places = [np.flatnonzero(labels == digit) for digit in range(10)]
    learn = [place[: -TEST_IMAGES // 10] for place in places]
    held = [place[-TEST_IMAGES // 10 :] for place in places]
    calib = [rng.choice(place, CALIB_IMAGES // 10, replace=False) for place in learn]
    sets = [rng.permutation(np.concatenate(part)) for part in (learn, calib, held)]
    train_set, calib_set, test_set = ((images[part], labels[part]) for part in sets)
    return Split(train_set, calib_set, test_set)


def preprocess(pixels: Tensor) -> Tensor:
    """Pixels 0..255 as the network takes them."""
    return (pixels.float() - MEAN) * SCALE


def augment(pixels: Tensor) -> Tensor:
    """Turn, scale and shift by a little, and add noise: another hand, another camera."""
    count = len(pixels)
    angle = (torch.rand(count) * 2 - 1) * math.radians(12)
    zoom = 1 + (torch.rand(count) * 2 - 1) * 0.1
    shift = (torch.rand(count, 2) * 2 - 1) * 0.14
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels.float(), grid, align_corners=False)
    noise = torch.randn_like(moved) * torch.rand(count, 1, 1, 1) * 16
    return (moved + noise).clamp(0, 255)


def accuracy(net: Digits, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """The share of images whose largest logit is their digit."""
    net.eval()
    with torch.no_grad():
        guess = net(preprocess(torch.from_numpy(images))).argmax(1)
    return float((guess == torch.from_numpy(labels)).float().mean())


def train(data: Split, epochs: int, batch: int = 64) -> Digits:
    """Train on `data.train`; the test images are only looked at to print the accuracy."""
    net = Digits()
    images, labels = (torch.from_numpy(array) for array in data.train)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    start = time.perf_counter()
    for epoch in range(epochs):
        net.train()
        total = 0.0
        order = torch.randperm(len(labels))
        for part in order[: len(order) // batch * batch].view(-1, batch):
            logits = net(preprocess(augment(images[part])))
            loss = functional.cross_entropy(logits, labels[part], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * batch / len(order)
        print(f"epoch {epoch + 1:2}: loss {total:.4f}, {time.perf_counter() - start:.0f} s")
    return net.eval()


def export(net: Digits, path: Path) -> None:
    """Write the network in inference form, with its BatchNormalization nodes left in place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of this exporter, which keeps norms
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 1, SIZE, SIZE),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    model = onnx.load(path)
    model.graph.name = "digits"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_data(data: Split, folder: Path) -> None:
    """Write what the network takes as npz, and some training images as they are."""
    calib, test = (preprocess(torch.from_numpy(part[0])).numpy() for part in data[1:])
    np.savez_compressed(folder / "calib.npz", image=calib)
    np.savez_compressed(folder / "test.npz", image=test, label=data.test[1])
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    images, labels = data.train
    for digit in range(10):
        for number, image in enumerate(images[labels == digit][: PHOTOS // 10]):
            Image.fromarray(image[0]).save(photos / f"{digit}_{number}.png", optimize=True)


def main() -> None:
    """Split the data, train, and write the files."""
    parser = argparse.ArgumentParser(description="Train the digits example and write its files.")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder (default: this one)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    data = split_digits()
    write_data(data, args.out)
    net = train(data, args.epochs)
    export(net, args.out / "digits.onnx")
    print(f"accuracy on the {TEST_IMAGES} held-out images: {accuracy(net, *data.test):.2%}")


if __name__ == "__main__":
    main()
