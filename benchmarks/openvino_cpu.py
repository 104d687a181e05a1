"""EfficientNet-Lite0 for the target openvino, as OpenVINO runs it, beside float and ort-cpu.

    pip install -e '.[openvino]'; QDQC_ASSETS=... python benchmarks/openvino_cpu.py [--rounds 100]

Calibrated on the same 100 photos. Top-1 of the centre view of the photos in ``val``: the openvino
target under OpenVINO, the ort-cpu target under onnxruntime. Latency: OpenVINO's CPU plugin, one
thread, batch 1, interleaved; the float model in float32 and in the plugin's own default, which may
be a shorter float. ``integer layers`` are convolutions and products that run on u8 or s8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from assets import assets_folder
from fidelity import agreement, bootstrap, top1
from markdown import print_table
from ort_quantizer import fixed_model, session
from photos import PREPROCESS_OPTIONS, Labelled, centre, labelled_photos
from qdqc_commands import run, transform

from qdqc.runtime.audit.kernels import openvino_layers
from qdqc.runtime.timing.latency import interleave, ratio, spread

__all__ = ["main"]

FLOAT, DEFAULT, OPENVINO, ORT = "float32", "float, plugin's default", "openvino", "ort-cpu"
_HEAVY = ("Convolution", "FullyConnected", "MatMul")


def main(argv: Sequence[str] | None = None) -> int:
    """Deploy for both targets, then print accuracy, latency and what runs in integers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="rounds of timing (default: 100)")
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/labels.tsv") is None:
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
        qir = transform(net, folder, *PREPROCESS_OPTIONS)
        table = qir.with_suffix(".table")
        data = assets / "imagenet_dev" / "calib"
        run("run_calibration", folder / "c.json", qir, "--dataset", data, "-o", table, "--no_cache")
        paths = {target: _deployed(qir, table, target) for target in (OPENVINO, ORT)}
        plain = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = {
            FLOAT: _compiled(net, plain),
            DEFAULT: _compiled(net, {}),
            OPENVINO: _compiled(paths[OPENVINO], {}),
        }
        photos = labelled_photos(assets / "imagenet_dev", "val")
        ort = session(paths[ORT])
        runs: dict[str, Callable[[Any], Any]] = {n: partial(_run, c) for n, c in compiled.items()}
        runs[ORT] = lambda image: ort.run(None, {"input": image})[0]
        _accuracy(runs, photos)
        image = centre(photos[0].path)
        _latency({n: partial(runs[n], image) for n in compiled}, compiled, args.rounds)
    return 0


def _deployed(qir: Path, table: Path, target: str) -> Path:
    out = qir.with_name(f"{target}.onnx")
    given = ("--mlir", qir, "--calibration_table", table, "--target", target, "--model", out)
    run("model_deploy", out.with_suffix(".json"), *given)
    return out


def _compiled(model: Path, options: dict[str, str]) -> Any:
    import openvino

    core = openvino.Core()
    one = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(core.read_model(str(model)), "CPU", one | options)


def _run(compiled: Any, image: Any) -> Any:
    return np.array(compiled({0: image})[0])


def _accuracy(runs: dict[str, Callable[[Any], Any]], photos: list[Labelled]) -> None:
    labels = [p.label for p in photos]
    logits = {n: np.stack([call(centre(p.path)) for p in photos]) for n, call in runs.items()}
    rows: list[list[object]] = []
    hits = {n: top1(found[:, 0], labels) for n, found in logits.items()}
    for name, found in logits.items():
        less = bootstrap((hits[name] - hits[ORT]) * 100).text(2)
        same = bootstrap(agreement(found, logits[FLOAT])).text()
        rows.append([name, bootstrap(hits[name]).text(), less, same])
    head = ["model", "top-1", f"points over {ORT}", "agreement with float32"]
    print_table(f"Accuracy on {len(photos)} photos, centre view", head, rows)


def _latency(calls: dict[str, Callable[[], object]], compiled: dict[str, Any], rounds: int) -> None:
    times = interleave(calls, rounds, warmup=10)
    rows = [
        [
            name,
            spread(found).text(scale=1e3, digits=3),
            ratio(times[FLOAT], found).text(),
            ratio(times[DEFAULT], found).text(),
            _integer_layers(compiled[name]),
        ]
        for name, found in times.items()
    ]
    head = ["model", "ms", f"over {FLOAT}", f"over {DEFAULT}", "integer layers"]
    print_table(f"Latency under OpenVINO, one thread, {rounds} rounds", head, rows)


def _integer_layers(compiled: Any) -> str:
    """Heavy layers on 8-bit integers, of all heavy ones, by the plugin's own graph."""
    heavy = [kernel for kernel, _ in openvino_layers(compiled) if kernel.op in _HEAVY]
    return f"{sum(kernel.integer for kernel in heavy)} of {len(heavy)}"


if __name__ == "__main__":
    raise SystemExit(main())
