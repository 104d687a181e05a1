"""The commands whose faults are tried: their words, what they read, and what they write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["COMMANDS", "Command", "inputs"]


@dataclass(frozen=True)
class Command:
    """A command line, and ``other``: one of which the same outputs come otherwise.

    ``writes`` ends with the file that people name, as it is put in its place last.
    """

    name: str
    tool: str
    words: tuple[str, ...]
    other: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    def main(self) -> Callable[[list[str]], int]:
        """What the console script calls."""
        return import_module(f"qdqc.tools.{self.tool}").main


def _command(name: str, words: str, other: str, reads: str, writes: str) -> Command:
    tool, *rest = words.split()
    changed = tuple(other.split()[1:])
    return Command(name, tool, tuple(rest), changed, tuple(reads.split()), tuple(writes.split()))


_NET = "net.qir net.safetensors"
_TABLE = f"{_NET} net.table net.table.samples.npz data.npz"
_SEARCH = "net.qir --dataset data.npz --calibration_table net.table -o net.qtable"
_SHORT = "--inference_num 4 --input_num 8"

COMMANDS = (
    _command(
        "transform",
        "model_transform --model_def net.onnx -o out.qir --test_result values.npz",
        "model_transform --model_def net.onnx -o out.qir --test_result values.npz "
        "--model_name other --output_names m",
        "net.onnx",
        "values.npz out.safetensors out.qir",
    ),
    _command(
        "calibrate",
        "run_calibration net.qir --dataset data.npz -o out.table",
        "run_calibration net.qir --dataset data.npz -o out.table --cali_method max",
        f"{_NET} data.npz",
        "out.table.samples.npz out.table",
    ),
    _command(
        "calibrate with a recipe",
        "run_calibration net.qir --dataset data.npz --recipe fast --tuned tuned.qir -o out.table",
        "run_calibration net.qir --dataset data.npz --recipe fast --tuned tuned.qir -o out.table "
        "--cali_method max",
        f"{_NET} data.npz",
        "tuned.safetensors tuned.qir out.table.samples.npz out.table",
    ),
    _command(
        "deploy",
        "model_deploy --mlir net.qir --calibration_table net.table --model out.onnx",
        "model_deploy --mlir net.qir --quantize W8 --model out.onnx",
        _TABLE,
        "out.safetensors out.qir out.onnx",
    ),
    _command(
        "sensitive layers",
        f"run_sensitive_layer {_SEARCH} {_SHORT} --max_float_layers 1",
        f"run_sensitive_layer {_SEARCH} {_SHORT} --max_float_layers 2",
        _TABLE,
        "net_new_cali_table.samples.npz net_new_cali_table SensitiveLayerSearch net.qtable",
    ),
    _command(
        "qtable",
        f"run_qtable {_SEARCH} {_SHORT} --strategy mix --min_layer_cos 1 --expected_cos 1",
        f"run_qtable {_SEARCH} {_SHORT} --strategy mix --fp_type F16",
        _TABLE,
        "full_loss_table.txt net.qtable",
    ),
    _command(
        "float layers",
        "fp_forward net.qir --inputs m -o out.qtable",
        "fp_forward net.qir --outputs m -o out.qtable",
        _NET,
        "out.qtable",
    ),
    _command(
        "run",
        "model_runner --input data.npz --model net.qir -o out.npz --dump_all_tensors",
        "model_runner --input data.npz --model net.qir -o out.npz",
        f"{_NET} data.npz",
        "out.npz",
    ),
    _command(
        "merge",
        "npz_tool merge data.npz one.npz out.npz",
        "npz_tool rename data.npz out.npz x z",
        "data.npz one.npz",
        "out.npz",
    ),
    _command(
        "compare",
        "npz_tool compare data.npz data.npz --save out.csv",
        "npz_tool statistic data.npz --save out.csv",
        "data.npz",
        "out.csv",
    ),
    _command(
        "passes",
        "qir_opt net.qir --passes canonicalize -o out.qir",
        "qir_opt net_int8.qir -o out.qir",
        f"{_NET} net_int8.qir net_int8.safetensors",
        "out.safetensors out.qir",
    ),
    _command(
        "inspect",
        "model_inspect --reference net.qir --quantized net_int8.qir --input data.npz "
        "--dot out.dot --onnx out.onnx",
        "model_inspect --reference net.qir --dot out.dot --onnx out.onnx",
        f"{_TABLE} net_int8.qir net_int8.safetensors",
        "out.dot out.onnx",
    ),
)


def inputs(folder: Path) -> None:
    """Write net.onnx, x -> conv -> m -> conv -> y, its data, its table and its deployment."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 4, 3, 3)).astype(np.float32), name)
        for name in ("w1", "w2")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["m"], name="first"),
        helper.make_node("Conv", ["m", "w2"], ["y"], name="second"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, size, size])
        for name, size in (("x", 8), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    samples = rng.standard_normal((12, 4, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=samples)
    np.savez(folder / "one.npz", one=samples[:1])
    lines = (
        "model_transform --model_def net.onnx -o net.qir -q",
        "run_calibration net.qir --dataset data.npz -o net.table --no_cache -q",
        "model_deploy --mlir net.qir --calibration_table net.table --model net_int8.onnx -q",
    )
    for line in lines:
        _run(folder, line.split())


def _run(folder: Path, words: list[str]) -> None:
    """A command in a copy of this process, which has opened no session yet."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(folder)
            code = import_module(f"qdqc.tools.{words[0]}").main(words[1:])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)} failed")
