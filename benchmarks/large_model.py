"""A model above 2 GB through the commands: seconds and private memory of each step.

    python benchmarks/large_model.py [--gigabytes 2.3] [--forms one many] [--modes INT8 DYN8]

An embedding and pairs of MatMuls with residuals, weights in one external file or in one a tensor.
Private memory (RssAnon) of each command, as its ``--report`` says and as it is sampled from
outside, is held against three times the largest tensor and 1 GB. The files take five times the
model on the disk, and are removed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from markdown import print_table
from onnx import TensorProto, helper
from process_cost import ProcessCost, measure
from qdqc_commands import argv

__all__ = ["ThroughCommands", "main", "through_commands", "write_model"]

_WIDTH, _INNER, _ROWS = 2048, 5120, 25_000
"""The largest tensor is the embedding, [_ROWS, _WIDTH]."""

_TOKENS = 16
_FORMS = ("one", "many")
_MODES = ("INT8", "DYN8", "W8", "W4", "F16", "F32")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a step takes more than the bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.3)
    parser.add_argument("--forms", nargs="+", choices=_FORMS, default=list(_FORMS))
    parser.add_argument("--modes", nargs="*", choices=_MODES, default=list(_MODES))
    parser.add_argument("--folder", help="where the files are made; by default a temporary one")
    args = parser.parse_args(argv)
    size = int(args.gigabytes * 1e9)
    return 0 if through_commands(size, args.forms, args.modes, args.folder) else 1


def through_commands(
    size: int,
    forms: Sequence[str] = _FORMS,
    modes: Sequence[str] = _MODES,
    folder: str | None = None,
) -> bool:
    """Print the tables of a model of so many bytes; whether all steps keep to the bound.

    The first of the forms goes through all modes, others through the first mode.
    """
    good = True
    for form in forms:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=folder) as made:
            through = ThroughCommands(Path(made))
            write_model(through.folder, size, form)
            through.transform_and_calibrate()
            for mode in modes if form == forms[0] else modes[:1]:
                through.deploy(mode)
            good &= through.show(f"{size / 1e9:.1f} GB, external data in {form} file")
    return good


def write_model(folder: Path, size: int, form: str) -> None:
    """``m.onnx`` of about so many bytes, with external data in ``one`` file or ``many``."""
    count = max(1, (size - 4 * _ROWS * _WIDTH) // (8 * _WIDTH * _INNER))
    weights = _Weights(folder, form)
    nodes = [helper.make_node("Gather", [weights.add("table", _ROWS, _WIDTH), "ids"], ["h0"])]
    for i in range(count):
        up, down = weights.add(f"up{i}", _WIDTH, _INNER), weights.add(f"down{i}", _INNER, _WIDTH)
        nodes += [
            helper.make_node("MatMul", [f"h{i}", up], [f"u{i}"]),
            helper.make_node("Relu", [f"u{i}"], [f"r{i}"]),
            helper.make_node("MatMul", [f"r{i}", down], [f"d{i}"]),
            helper.make_node("Add", [f"h{i}", f"d{i}"], [f"h{i + 1}"]),
        ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, _TOKENS])
    last = helper.make_tensor_value_info(f"h{count}", TensorProto.FLOAT, [1, _TOKENS, _WIDTH])
    graph = helper.make_graph(nodes, "large", [ids], [last], weights.tensors)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "m.onnx")
    rng = np.random.default_rng(1)
    draws = rng.integers(0, _ROWS, (4, 1, _TOKENS))
    (folder / "data").mkdir()
    for i, draw in enumerate(draws):
        np.savez(folder / "data" / f"{i}.npz", ids=draw)


class _Weights:
    """Normal numbers, written in pieces."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form
        self.tensors: list[TensorProto] = []
        self._rng = np.random.default_rng(0)

    def add(self, name: str, rows: int, columns: int) -> str:
        """A weight of that size; its name."""
        location = "m.data" if self.form == "one" else f"{name}.data"
        with (self.folder / location).open("ab") as out:
            offset = out.tell()
            self._write(out, rows, columns)
            length = out.tell() - offset
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, columns])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": length}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name

    def _write(self, out: BinaryIO, rows: int, columns: int) -> None:
        reach = np.float32(0.3 / rows**0.5)
        for start in range(0, rows, 256):
            shape = (min(256, rows - start), columns)
            out.write((self._rng.standard_normal(shape, dtype=np.float32) * reach).tobytes())


class ThroughCommands:
    """Runs each command as a process, and notes what it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.costs: dict[str, tuple[ProcessCost, int]] = {}
        self.bound = 3 * 4 * _ROWS * _WIDTH + 10**9

    def transform_and_calibrate(self) -> None:
        """``m.qir`` and ``m.cali_table``."""
        model = ("--model_def", "m.onnx", "--model_name", "m", "--mlir", "m.qir")
        self._run("transform", "model_transform", *model)
        self._run("calibrate", "run_calibration", "m.qir", "--dataset", "data", "-o", "m.table")

    def deploy(self, mode: str) -> None:
        """One mode, with its check, audit and proof; what it writes is removed."""
        given = ("--mlir", "m.qir", "--quantize", mode, "--model", "out.onnx")
        table = ("--calibration_table", "m.table") if mode == "INT8" else ()
        self._run(mode, "model_deploy", *given, *table, "--test_input", "data")
        if mode == "INT8":
            given = ("--input", "data/0.npz", "--model", "out.onnx", "--output", "run.npz")
            self._run("model_runner", "model_runner", *given)
            prove = "import qdqc.flow.prove; qdqc.flow.prove.prove('out.onnx')"
            cost = measure([sys.executable, "-c", prove], cwd=self.folder)
            self.costs["prove"] = cost, cost.peak_bytes
        for file in self.folder.glob("out*"):
            file.unlink()

    def show(self, title: str) -> bool:
        """Print the table; whether all steps keep to the bound."""
        rows: list[list[str]] = []
        for step, (cost, reported) in self.costs.items():
            megabytes = (f"{b / 1e6:.0f}" for b in (reported, cost.peak_bytes))
            rows.append([step, f"{cost.seconds:.0f}", *megabytes])
        bound = f"{self.bound / 1e6:.0f} MB allowed"
        print_table(f"{title}: {bound}", ["step", "s", "MB reported", "MB sampled"], rows)
        return all(max(c.peak_bytes, r) <= self.bound for c, r in self.costs.values())

    def _run(self, step: str, command: str, *options: str) -> None:
        report = self.folder / "report.json"
        words = argv(command, *options, "--report", str(report), "-q")
        cost = measure(words, cwd=self.folder)
        told = json.loads(report.read_text(encoding="utf-8"))["peak_memory_bytes"]
        self.costs[step] = cost, told
        print(f"{step}: {cost.seconds:.0f} s, {cost.peak_bytes / 1e6:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
