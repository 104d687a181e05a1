"""Time and private memory of calibration with kl, beside onnxruntime's entropy calibrator.

    QDQC_ASSETS=... python benchmarks/calibration.py

Both are whole processes, started by turns and measured from outside in the same way. Both read
the same photos from disk, decode and preprocess them, run EfficientNet-Lite0 fixed to batch 1
and end with a range for each activation: the project for the tensors that are left after its
fusions, with 2048 bins; onnxruntime for those that its quantize_static asks for, with 128. What
comes before (model_transform here, onnxruntime's quant_pre_process there) is measured for
neither.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from assets import ROOT, assets_folder
from markdown import print_table
from ort_quantizer import fixed_model, prepared
from photos import PREPROCESS_OPTIONS, photo_files
from process_cost import ProcessCost, measure
from qdqc_commands import argv as command_line
from qdqc_commands import transform

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both calibrations by turns and print their medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--peer-only", action="store_true", help="measure onnxruntime's alone")
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/calib") is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _compare(assets, Path(folder), args.runs, args.peer_only)
    return 0


def _compare(assets: Path, folder: Path, runs: int, peer_only: bool) -> None:
    photos = assets / "imagenet_dev" / "calib"
    fixed = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
    report = folder / "report.json"
    script = Path(__file__).with_name("ort_entropy.py")
    peer = prepared(fixed, folder / "prepared.onnx")
    lines = {"onnxruntime entropy": [sys.executable, str(script), str(peer), str(photos)]}
    if not peer_only:
        qir = transform(fixed, folder, *PREPROCESS_OPTIONS)
        options = (qir, "--dataset", photos, "--cali_method", "kl", "-q")
        out = ("-o", folder / "table", "--report", report)
        lines = {"qdqc kl": command_line("run_calibration", *options, *out), **lines}
    costs: dict[str, list[ProcessCost]] = {name: [] for name in lines}
    for _ in range(runs):
        for name, line in lines.items():
            costs[name].append(measure(line, cwd=ROOT))
    _print(costs, len(photo_files(photos)))
    told = costs["onnxruntime entropy"][-1].stdout.splitlines()
    print(f"\nonnxruntime's entropy calibrator: {told[-1]}")
    if not peer_only:
        _print_own_report(report)


def _print(costs: dict[str, list[ProcessCost]], photos: int) -> None:
    ours = next(iter(costs))
    seconds = {n: np.array([c.seconds for c in found]) for n, found in costs.items()}
    memory = {n: np.median([c.peak_bytes for c in found]) / 1e9 for n, found in costs.items()}
    medians = {n: float(np.median(found)) for n, found in seconds.items()}
    rows = [
        [
            name,
            f"{medians[name]:.1f} [{found.min():.1f}, {found.max():.1f}]",
            f"{memory[name]:.2f}",
            f"{medians[name] / medians[ours]:.2f}",
            f"{memory[name] / memory[ours]:.2f}",
        ]
        for name, found in seconds.items()
    ]
    head = ["whole process", "seconds [least, most]", "private GB", "x seconds", "x memory"]
    runs = len(next(iter(costs.values())))
    print_table(f"Calibration over {photos} photos, decoding included, {runs} runs", head, rows)


def _print_own_report(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    print(
        f"run_calibration's own report: {report['seconds']:.1f} s, "
        f"{report['peak_memory_bytes'] / 1e9:.2f} GB, {report['tensors']} tensors, "
        f"{report['samples']} samples, method {report['method']}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
