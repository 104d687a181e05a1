"""EfficientNet-Lite0 in INT8: accuracy and latency beside onnxruntime's quantize_static.

    QDQC_ASSETS=... python benchmarks/effnet.py [--views 1] [--rounds 200] [--recipe balanced]

Both are calibrated on the same 100 photos, the project's by mse, onnxruntime's by MinMax (QDQ,
u8 activations, s8 weights per channel, after its quant_pre_process). All else is at its default;
model_deploy's default corrects biases, which quantize_static does not do. ``--recipe`` adds the
project's model with weights that run_calibration tuned on the same photos. Top-1 is of the centre
view; agreement is with the float model's top class, over ten views a photo (centre and corners
of the photo at 256, each flipped too). Intervals are 95 % bootstrap intervals over photos.
Latency: one thread, batch 1, the three models interleaved in one process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from assets import assets_folder
from fidelity import agreement, bootstrap, cosine, sqnr_db, top1
from markdown import print_table
from ort_quantizer import fixed_model, prepared, quantized, session
from photos import (
    PREPROCESS_OPTIONS,
    VIEWS,
    Labelled,
    centre,
    centres,
    labelled_photos,
    photo_files,
    views,
)
from qdqc_commands import Deployed, calibrate, deploy, transform
from side_by_side import FLOAT, OWN, PEER, print_kernels, print_latency

__all__ = ["logits_of", "main"]

PLAIN = f"{OWN} --no-correct-bias"
"""The project's model without the step that its peer lacks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Quantize with both, then print accuracy, kernels and latency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", type=int, default=VIEWS, help="views a photo (default: 10)")
    parser.add_argument("--photos", type=int, default=0, help="photos of val (default: all)")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of timing (default: 200)")
    parser.add_argument("--recipe", choices=("fast", "balanced", "best"), help="tuned as well")
    parser.add_argument("--peer-only", action="store_true", help="leave the project's own out")
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/labels.tsv") is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        models = _models(assets, Path(folder), args.peer_only, args.recipe)
        val = labelled_photos(assets / "imagenet_dev", "val")[: args.photos or None]
        _accuracy(models, val, args.views)
        print_kernels(models, Path(folder))
        print_latency(models, {"input": centre(val[0].path)}, "batch 1", args.rounds)
    return 0


def _models(assets: Path, folder: Path, peer_only: bool, recipe: str | None) -> dict[str, Path]:
    """The float model at batch 1, and what both tools make of it."""
    calib = assets / "imagenet_dev" / "calib"
    net = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
    models = {FLOAT: net}
    if not peer_only:
        qir = transform(net, folder, *PREPROCESS_OPTIONS)
        table = calibrate(qir, calib)
        deployed = deploy(qir, table)
        _print_audit(deployed)
        models[OWN] = deployed.model
        models[PLAIN] = deploy(qir, table, "--no-correct-bias").model
        if recipe is not None:
            tuned = folder / "tuned.qir"
            table = calibrate(qir, calib, "mse", "--recipe", recipe, "--tuned", tuned)
            models[f"{OWN} --recipe {recipe}"] = deploy(tuned, table).model
    ready = prepared(net, folder / "prepared.onnx")
    models[PEER] = quantized(ready, folder / "peer.onnx", centres(photo_files(calib)))
    return models


def _print_audit(deployed: Deployed) -> None:
    by_op = ", ".join(f"{op} {n}" for op, n in deployed.integer_by_op().items())
    print(f"audit: {deployed.products()} products in integers; integer nodes: {by_op}")


def logits_of(models: dict[str, Path], photos: list[Labelled], count: int) -> dict[str, Any]:
    """Logits of each model, f32 [photos,views,1000], photo by photo to keep memory small."""
    sessions = {name: session(path) for name, path in models.items()}
    found: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in models}
    for photo in photos:
        seen = views(photo.path, count)
        for name, net in sessions.items():
            rows = [net.run(None, {"input": view[None]})[0] for view in seen]
            found[name].append(np.concatenate(rows))
    return {name: np.stack(rows) for name, rows in found.items()}


def _accuracy(models: dict[str, Path], photos: list[Labelled], count: int) -> None:
    logits = logits_of(models, photos, count)
    labels = [photo.label for photo in photos]
    exact = logits[FLOAT]
    exact_hits = top1(exact[:, 0], labels)
    rows: list[list[object]] = [[FLOAT, bootstrap(exact_hits).text(), "", "", "", ""]]
    for name in list(models)[1:]:
        hits = top1(logits[name][:, 0], labels)
        rows.append(
            [
                name,
                bootstrap(hits).text(),
                bootstrap((exact_hits - hits) * 100).text(2),
                bootstrap(agreement(logits[name], exact)).text(),
                f"{sqnr_db(logits[name], exact).mean():.2f}",
                f"{cosine(logits[name], exact).mean():.5f}",
            ]
        )
    head = ["model", "top-1", "points under float", "agreement", "SQNR dB", "cosine"]
    print_table(f"Accuracy on {len(photos)} photos, {count} views each", head, rows)
    if {OWN, PEER} <= models.keys():
        own, peer = (agreement(logits[n], exact) for n in (OWN, PEER))
        print(f"\nagreement, {OWN} less {PEER}: {bootstrap(own - peer).text()}")


if __name__ == "__main__":
    raise SystemExit(main())
