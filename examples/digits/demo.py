"""The main job on handwritten digits: transform, calibrate, deploy INT8, deploy mixed, compare.

``python examples/digits/demo.py [FOLDER]`` runs the commands as a user types them, writes what
they make into FOLDER, and ends with one table.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qdqc.runtime.sessions.session import open_session
from qdqc.runtime.timing.latency import ratio, time_models

HERE = Path(__file__).resolve().parent
QTABLE = """\
# the layer nearest to the pixels stays float
/stem/* F32
"""
PREPROCESSING = "--pixel_format gray --resize_dims 32,32 --mean 127.5 --scale 0.0078125"
ROUNDS = {64: 25, 1: 200}


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    name: str
    model: Path
    integer: str


def run(command: str, folder: Path) -> None:
    """Run one command of qdqc in the folder, showing it as it is typed."""
    print(f"\n$ {command}", flush=True)
    name, *arguments = shlex.split(command)
    script = Path(sys.executable).with_name(name)
    done = subprocess.run([script, *arguments], cwd=folder)
    if done.returncode:
        raise SystemExit(f"'{name}' failed with exit code {done.returncode}")


def integer_nodes(report: Path) -> str:
    """``14 of 14`` convolutions and products that run in integers, from a deployment report."""
    audit = json.loads(report.read_text())["audit"]
    return f"{audit['integer']} of {audit['integer'] + audit['float']}"


def logits(model: Path, images: Any) -> Any:
    """What the model says of all images, [images, 10]."""
    session = open_session(str(model), threads=1)
    parts = [images[i : i + 100] for i in range(0, len(images), 100)]
    return np.concatenate([np.asarray(session.run(None, {"image": p})[0]) for p in parts])


def closing_table(rows: list[Row]) -> Table:
    """Accuracy, agreement, size and speed of every model on the held-out digits."""
    with np.load(HERE / "test.npz", allow_pickle=False) as data:
        images, labels = data["image"], data["label"]
    answers = {r.name: logits(r.model, images).argmax(axis=1) for r in rows}
    float_name = rows[0].name
    models = {r.name: str(r.model) for r in rows}
    timings = {
        batch: time_models(models, {n: {"image": images[:batch]} for n in models}, rounds=rounds)
        for batch, rounds in ROUNDS.items()
    }
    table = Table(title=f"{len(images)} held-out digits; speed-up over float, one thread, median")
    for column in ("model", "accuracy", "agreement", "bytes", "batch 64", "batch 1", "integer"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        found = answers[row.name]
        speed = [ratio(t[float_name], t[row.name]).median for t in timings.values()]
        table.add_row(
            row.name,
            f"{(found == labels).mean():.3f}",
            f"{(found == answers[float_name]).mean():.3f}",
            f"{row.model.stat().st_size:,}",
            *(f"{s:.2f}x" for s in speed),
            row.integer,
        )
    return table


def main() -> None:
    """Run the demo in a folder of its own."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model, data = shlex.quote(str(HERE / "digits.onnx")), shlex.quote(str(HERE / "calib.npz"))
    (folder / "mixed.qtable").write_text(QTABLE)
    run(f"model_transform --model_def {model} {PREPROCESSING} -o digits.qir", folder)
    run(f"run_calibration digits.qir --dataset {data} -o digits.cali_table", folder)
    deploy = "model_deploy --mlir digits.qir --calibration_table digits.cali_table"
    test = f"--test_input {data}"
    run(f"{deploy} {test} --model digits_int8.onnx --report int8.json", folder)
    mixed = "--quantize_table mixed.qtable --model digits_mixed.onnx --report mixed.json"
    run(f"{deploy} {test} {mixed}", folder)
    print()
    rows = [
        Row("float", HERE / "digits.onnx", "0 of 14"),
        Row("INT8", folder / "digits_int8.onnx", integer_nodes(folder / "int8.json")),
        Row("mixed", folder / "digits_mixed.onnx", integer_nodes(folder / "mixed.json")),
    ]
    Console().print(closing_table(rows))


if __name__ == "__main__":
    main()
