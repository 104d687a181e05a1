"""The networks that ``benchmarks/zoo.py`` quantizes, each with samples and a score of its task."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from assets import DIGITS, assets_folder
from ort_quantizer import fixed_model
from photos import centres, photo_files
from sentences import Pairs, batch, calibration_samples, embedding
from zoo_nets import NETS, Net, Outputs, Sample, cosine, same_class

__all__ = ["Case", "cases"]

RANDOM = ("resnet", "vit", "convnext", "segformer", "unet", "bilstm")
"""Public architectures with random weights, by their names in ``public_networks``."""

_SENTENCES = 100
_PHOTOS = 100


@dataclass(frozen=True)
class Case:
    """A float model, made in a folder, and its samples: those of the calibration, and others.

    ``score`` compares outputs of a quantized model with the float one's; ``bind`` gives inputs
    the value that they have in every run.
    """

    name: str
    model: Callable[[Path], Path]
    calibration: Callable[[], list[Sample]]
    test: Callable[[], list[Sample]]
    score: Callable[[Outputs, Outputs], float]
    task: str
    bind: Mapping[str, Any] = field(default_factory=dict[str, Any])


def cases() -> dict[str, Case]:
    """All of them by name, as far as assets and packages are there."""
    every = [_digits()]
    assets = assets_folder("zoo")
    if assets is not None:
        every += [_of_zoo(net, assets / "zoo") for net in NETS]
        every += [_lite0(assets), _minilm(assets)]
    if all(importlib.util.find_spec(n) for n in ("torch", "transformers", "onnxscript")):
        every += [_random(name) for name in RANDOM]
    else:
        print("left out: random weights want torch, transformers and onnxscript")
    return {case.name: case for case in every}


def _of_zoo(net: Net, zoo: Path) -> Case:
    return Case(
        net.name,
        lambda folder: net.model(zoo),
        lambda: net.samples(zoo, "calib"),
        lambda: net.samples(zoo, "test"),
        net.score,
        net.task,
        net.bind,
    )


def _digits() -> Case:
    def images(file: str) -> list[Sample]:
        with np.load(DIGITS / file, allow_pickle=False) as data:
            pixels = data["images"] if "images" in data.files else data[data.files[0]]
        return [{"image": _digit(p)} for p in pixels[:200]]

    model = DIGITS / "digits.onnx"
    calib, test = partial(images, "calib.npz"), partial(images, "test.npz")
    return Case("digits", lambda folder: model, calib, test, same_class, "class")


def _digit(pixels: Any) -> Any:
    array = np.asarray(pixels, np.float32)
    return array[None] if array.ndim == 3 else array[None, None]


def _lite0(assets: Path) -> Case:
    def photos(split: str, count: int) -> list[Sample]:
        return list(centres(photo_files(assets / "imagenet_dev" / split)[:count]))

    file = assets / "models" / "effnet_lite0.onnx"
    return Case(
        "effnet_lite0",
        lambda folder: fixed_model(file, folder / "lite0.onnx", "batch", 1),
        lambda: photos("calib", 1000),
        lambda: photos("val", _PHOTOS),
        same_class,
        "class",
    )


def _minilm(assets: Path) -> Case:
    pairs = Pairs.load(assets / "sts" / "headlines_val.npz", _SENTENCES // 2)

    def score(quantized: Outputs, exact: Outputs) -> float:
        """The mean cosine of the embeddings of sentences."""
        rows = zip(quantized, exact, range(len(exact)), strict=True)
        both = [
            [embedding(next(iter(o.values())), batch(pairs, [n])["attention_mask"]) for o in (a, b)]
            for a, b, n in rows
        ]
        return float(np.mean([(a * b).sum() for a, b in both]))

    return Case(
        "minilm",
        lambda folder: assets / "models" / "minilm.onnx",
        lambda: list(calibration_samples(assets / "sts" / "calib")),
        lambda: [batch(pairs, [n]) for n in range(len(pairs.ids))],
        score,
        "cosine",
    )


def _random(name: str) -> Case:
    def model(folder: Path) -> Path:
        import torch
        from public_networks import NETWORKS, export

        torch.manual_seed(0)
        path = folder / f"{name}.onnx"
        export(NETWORKS[name](), path, dynamo=False, dynamic=False)
        return path

    def samples(seed: int) -> list[Sample]:
        from public_networks import NETWORKS

        rng = np.random.default_rng(seed)
        inputs = {n: x.numpy() for n, x in NETWORKS[name]().inputs.items()}
        return [{n: _drawn(rng, x) for n, x in inputs.items()} for _ in range(20)]

    return Case(name, model, partial(samples, 1), partial(samples, 2), cosine, "cosine")


def _drawn(rng: np.random.Generator, like: Any) -> Any:
    """Whole numbers, or smooth noise: neighbours of an image are alike."""
    if like.dtype.kind == "i":
        return rng.integers(0, 100, like.shape).astype(like.dtype)
    array = rng.normal(size=like.shape)
    for axis in range(2, like.ndim):
        array = array + np.roll(array, 1, axis) + np.roll(array, 2, axis)
    return (array / array.std()).astype(like.dtype)
