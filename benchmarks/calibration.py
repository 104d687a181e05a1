"""Time and private memory of calibration, beside onnxruntime's calibrators.

    QDQC_ASSETS=... python benchmarks/calibration.py
    QDQC_ASSETS=... python benchmarks/calibration.py --samples 1000 --own

All are whole processes, started by turns and measured from outside in the same way. All read
the same samples from disk (photos are decoded and preprocessed), run EfficientNet-Lite0 fixed to
batch 1, or MiniLM, and end with a range for each activation: the project for all float values
that are left after its fusions, with an empty cache that it fills on the way; onnxruntime for
those that its quantize_static asks for. What comes before (model_transform here, onnxruntime's
quant_pre_process there) is measured for neither. ``--samples`` takes the data several times over.
MiniLM's masks are all set to one, so that padding counts as text: onnxruntime's histograms end in
an error on the -3.4e38 that a masked position gets.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from assets import ROOT, assets_folder
from markdown import print_table
from ort_quantizer import CALIBRATORS, fixed_model, prepared
from photos import PREPROCESS_OPTIONS
from process_cost import ProcessCost, measure
from qdqc_commands import argv as command_line
from qdqc_commands import transform
from sentences import calibration_samples

__all__ = ["main"]

PEERS = {
    "max": "MinMax",
    "kl": "Entropy",
    "mse": "Entropy",
    "percentile9999": "Percentile",
}
"""The project's methods, and the calibrator that each is held against."""


@dataclass(frozen=True)
class Network:
    """A network ready for both, and the folder of its samples."""

    title: str
    qir: Path
    prepared: Path
    data: Path

    @property
    def count(self) -> int:
        return len(list(self.data.iterdir()))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all calibrations by turns and print their medians, spread and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--samples", type=int, default=0, help="samples (default: the data once)")
    parser.add_argument("--own", action="store_true", help="leave onnxruntime's out")
    parser.add_argument("--networks", default="effnet,minilm", help="(default: both)")
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/calib") is None:
        return 0
    makers = {"effnet": _effnet, "minilm": _minilm}
    for name in args.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            network = makers[name](assets, Path(folder))
            _compare(network, Path(folder), args.runs, args.samples, own=args.own)
    return 0


def _effnet(assets: Path, folder: Path) -> Network:
    net = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
    qir = transform(net, folder, *PREPROCESS_OPTIONS)
    peer = prepared(net, folder / "prepared.onnx")
    return Network("EfficientNet-Lite0", qir, peer, assets / "imagenet_dev" / "calib")


def _minilm(assets: Path, folder: Path) -> Network:
    net = assets / "models" / "minilm.onnx"
    peer = prepared(net, folder / "prepared.onnx")
    data = folder / "sentences"
    data.mkdir()
    for number, sample in enumerate(calibration_samples(assets / "sts" / "calib")):
        mask = np.ones_like(sample["attention_mask"])
        np.savez(data / f"{number:03}.npz", **{**sample, "attention_mask": mask})
    return Network("MiniLM", transform(net, folder), peer, data)


def _compare(network: Network, folder: Path, runs: int, samples: int, *, own: bool) -> None:
    repeat = max(1, -(-samples // network.count))
    data = _repeated(network.data, folder / "data", repeat) if repeat > 1 else network.data
    cache = folder / "cache"
    lines: dict[str, list[str]] = {}
    for method in PEERS:
        options = (network.qir, "--dataset", data, "--cali_method", method, "--cache", cache)
        lines[f"qdqc {method}"] = command_line(
            "run_calibration", *options, "-o", folder / "table", "-q"
        )
    script = Path(__file__).with_name("ort_calibrator.py")
    for method in () if own else CALIBRATORS:
        given = [str(network.prepared), str(network.data), f"--repeat={repeat}"]
        lines[f"onnxruntime {method}"] = [sys.executable, str(script), *given, "--method", method]
    costs: dict[str, list[ProcessCost]] = {name: [] for name in lines}
    for _ in range(runs):
        for name, line in lines.items():
            shutil.rmtree(cache, ignore_errors=True)
            costs[name].append(measure(line, cwd=ROOT))
    _print(costs, f"{network.title}, {repeat * network.count} samples", runs)


def _repeated(data: Path, folder: Path, repeat: int) -> Path:
    """A folder with links to the files of another one, several to each."""
    folder.mkdir()
    for path in data.iterdir():
        for number in range(repeat):
            (folder / f"{path.stem}_{number}{path.suffix}").symlink_to(path.resolve())
    return folder


def _print(costs: dict[str, list[ProcessCost]], title: str, runs: int) -> None:
    seconds = {n: np.array([c.seconds for c in found]) for n, found in costs.items()}
    rows: list[list[str]] = []
    for name, found in seconds.items():
        peer = PEERS.get(name.removeprefix("qdqc "))
        held = seconds.get(f"onnxruntime {peer}")
        ratio = "" if held is None else f"{np.median(held) / np.median(found):.2f} of {peer}"
        memory = [c.peak_bytes / 1e9 for c in costs[name]]
        spread = f"{np.median(found):.2f} [{found.min():.2f}, {found.max():.2f}]"
        rows.append([name, spread, f"{np.median(memory):.2f}", ratio])
    head = ["whole process", "seconds [least, most]", "private GB", "times as fast"]
    print_table(f"Calibration: {title}, reading included, {runs} runs: medians", head, rows)


if __name__ == "__main__":
    raise SystemExit(main())
