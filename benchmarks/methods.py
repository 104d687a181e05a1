"""All threshold methods on three networks: SQNR of the outputs in INT8, in dB.

    QDQC_ASSETS=... python benchmarks/methods.py [--only digits] [--samples 100]

Each network is calibrated once, on its calibration data; all methods take their ranges from the
same statistics. Each table is deployed as model_deploy does by default, biases corrected, with
free zero points and symmetric, and run on samples that calibration never saw: ``10 log10(sum r^2
/ sum (r - q)^2)`` of the outputs over all of them. EfficientNet-Lite0: logits of the
centre view. MiniLM: hidden states, sentences at their own length in calibration and run. The
embedded digits network: logits. Without QDQC_ASSETS the digits run alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from assets import DIGITS, VARIABLE
from markdown import print_table
from photos import centres, labelled_photos, photo_files
from sentences import Pairs, batch, calibration_samples

import qdqc
from qdqc.calibration.collection import collect
from qdqc.calibration.methods.method import METHODS
from qdqc.calibration.statistics import Detail
from qdqc.calibration.tables import make_table
from qdqc.quant.deployment import Deployment
from qdqc.runtime.comparison.fidelity import fidelity
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.mixed_models import MixedModels

if TYPE_CHECKING:
    from qdqc.ir.graph import Module

__all__ = ["main"]

Sample = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network ready to calibrate, its calibration samples, and samples to judge it on."""

    name: str
    module: Module
    calib: list[Sample]
    val: list[Sample]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of methods, networks and schemes, and the means that rank the methods."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="NAME", help="one network (default: all)")
    parser.add_argument("--samples", type=int, default=100, help="samples judged on (default: 100)")
    args = parser.parse_args(argv)
    found: dict[str, dict[str, list[float]]] = {}
    for network in _networks(args.only, args.samples):
        found[network.name] = _judge(network)
        _print({network.name: found[network.name]})
    if len(found) > 1:
        _print(found)
    return 0


def _networks(only: str, samples: int) -> Iterator[Network]:
    makers = {"digits": _digits, "lite0": _lite0, "minilm": _minilm}
    assets = os.environ.get(VARIABLE)
    for name, make in makers.items():
        if only in ("", name) and (assets or name == "digits"):
            yield make(Path(assets or ""), samples)


def _digits(_: Path, samples: int) -> Network:
    with np.load(DIGITS / "calib.npz") as calib, np.load(DIGITS / "test.npz") as test:
        held = [
            [{"image": d["image"][i : i + 1]} for i in range(n)]
            for d, n in ((calib, len(calib["image"])), (test, samples))
        ]
    return Network("digits", _transformed(DIGITS / "digits.onnx"), *held)


def _lite0(assets: Path, samples: int) -> Network:
    photos = assets / "imagenet_dev"
    module = _transformed(assets / "models" / "effnet_lite0.onnx", {"input": (1, 3, 224, 224)})
    val = [photo.path for photo in labelled_photos(photos, "val")[:samples]]
    return Network(
        "EfficientNet-Lite0",
        module,
        list(centres(photo_files(photos / "calib"))),
        list(centres(val)),
    )


def _minilm(assets: Path, samples: int) -> Network:
    module = _transformed(assets / "models" / "minilm.onnx")
    calib = [_trimmed(sample) for sample in calibration_samples(assets / "sts" / "calib")]
    pairs = Pairs.load(assets / "sts" / "headlines_val.npz", samples)
    return Network("MiniLM", module, calib, [batch(pairs, [row]) for row in range(samples)])


def _trimmed(sample: Mapping[str, Any]) -> Sample:
    """A sentence without its padding."""
    length = int(sample["attention_mask"].sum(-1).max())
    return {name: array[:, :length] for name, array in sample.items()}


def _transformed(path: Path, shapes: dict[str, tuple[int, ...]] | None = None) -> Module:
    return qdqc.run(qdqc.import_onnx(path, input_shapes=shapes), "@transform")


def _judge(network: Network) -> dict[str, list[float]]:
    """SQNR by method: asymmetric, symmetric."""
    collector = collect(
        network.module.graph,
        network.calib,
        lambda names: Runner(network.module, names).run,
        detail=Detail.SAMPLES,
    )
    plain = Runner(network.module)
    pairs = [(sample, plain.run(sample)) for sample in network.val]
    found: dict[str, list[float]] = {}
    for method in METHODS:
        table = make_table(collector, method)
        found[method.name] = [
            fidelity(
                Runner(MixedModels(network.module, Deployment(symmetric=s)).lowered(table)),
                pairs,
                plain.outputs,
            ).sqnr
            for s in (False, True)
        ]
    return found


def _print(found: dict[str, dict[str, list[float]]]) -> None:
    """A row a method, best on average first; two columns a network."""
    head = ["method", *(f"{n}{s}" for n in found for s in ("", ", symmetric")), "mean"]
    rows = {m: [x for by in found.values() for x in by[m]] for m in METHODS.names()}
    order = sorted(rows, key=lambda m: -np.mean(rows[m]))
    cells = [[m, *(f"{x:.2f}" for x in [*rows[m], np.mean(rows[m])])] for m in order]
    print_table("SQNR of the outputs in INT8, dB", head, cells)


if __name__ == "__main__":
    raise SystemExit(main())
