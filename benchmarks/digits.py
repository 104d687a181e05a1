"""The embedded digits network in INT8, beside onnxruntime's quantize_static.

    python benchmarks/digits.py [--rounds 300]

Both are calibrated on the same 200 images. Accuracy and agreement are over the 500 held-out
images. Latency: one thread, the three models interleaved in one process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from assets import DIGITS
from fidelity import agreement, bootstrap, cosine, sqnr_db, top1
from markdown import print_table
from ort_quantizer import Sample, prepared, quantized, session
from qdqc_commands import calibrate, deploy, transform
from side_by_side import FLOAT, OWN, PEER, print_kernels, print_latency

__all__ = ["main"]

_REPEATS = {64: 1, 1: 20}
"""Calls timed as one, by batch: a single image takes too little for the clock."""


def main(argv: Sequence[str] | None = None) -> int:
    """Quantize with both, then print accuracy, size, kernels and latency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300, help="rounds of timing (default: 300)")
    parser.add_argument("--peer-only", action="store_true", help="leave the project's own out")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        models = _models(Path(folder), args.peer_only)
        _accuracy(models)
        print_kernels(models, Path(folder))
        for batch in _REPEATS:
            _print_latency(models, batch, args.rounds)
    return 0


def _models(folder: Path, peer_only: bool) -> dict[str, Path]:
    """The float model, and what both tools make of it."""
    net = DIGITS / "digits.onnx"
    models = {FLOAT: net}
    if not peer_only:
        qir = transform(net, folder)
        deployed = deploy(qir, calibrate(qir, DIGITS / "calib.npz"))
        print(f"audit: {deployed.products()} products in integers")
        models[OWN] = deployed.model
    ready = prepared(net, folder / "prepared.onnx")
    models[PEER] = quantized(ready, folder / "peer.onnx", _calibration_images())
    return models


def _calibration_images() -> Iterator[Sample]:
    with np.load(DIGITS / "calib.npz") as archive:
        images = archive["image"]
    for index in range(len(images)):
        yield {"image": images[index : index + 1]}


def _accuracy(models: dict[str, Path]) -> None:
    with np.load(DIGITS / "test.npz") as archive:
        images, labels = archive["image"], archive["label"]
    logits = {n: session(p).run(None, {"image": images})[0] for n, p in models.items()}
    exact = logits[FLOAT]
    rows: list[list[object]] = []
    for name in models:
        quantized_from = [""] * 3
        if name != FLOAT:
            same = agreement(logits[name][:, None], exact[:, None])
            sqnr = sqnr_db(logits[name], exact).mean()
            near = cosine(logits[name], exact).mean()
            quantized_from = [bootstrap(same).text(), f"{sqnr:.2f}", f"{near:.5f}"]
        hits = bootstrap(top1(logits[name], labels)).text()
        rows.append([name, hits, *quantized_from])
    head = ["model", "top-1", "agreement", "SQNR dB", "cosine"]
    print_table(f"Accuracy on {len(images)} held-out digits", head, rows)


def _print_latency(models: dict[str, Path], batch: int, rounds: int) -> None:
    with np.load(DIGITS / "test.npz") as archive:
        feeds = {"image": archive["image"][:batch]}
    print_latency(models, feeds, f"batch {batch}", rounds, repeats=_REPEATS[batch])


if __name__ == "__main__":
    raise SystemExit(main())
