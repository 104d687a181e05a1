"""Makes a folder with a tiny network at each stage, and with inputs that are wrong."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qdqc.tools import model_transform, run_calibration

PREPROCESSING = ["--pixel_format", "rgb", "--scale", "0.01,0.01,0.01"]


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3)}
    initializers = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in weights.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "tiny", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("empty", "photos", "alone", "folder.qir", "folder.onnx"):
        (folder / name).mkdir(parents=True)
    os.chdir(folder)
    node = helper.make_node
    good = [
        node("Conv", ["x", "w1"], ["block1/conv"], name="conv1"),
        node("Relu", ["block1/conv"], ["block1/relu"], name="relu1"),
        node("Conv", ["block1/relu", "w2"], ["y"], name="conv2"),
    ]
    onnx.save(model(good), "net.onnx")
    cyclic = [
        node("Conv", ["b", "w2"], ["a"], name="conv1"),
        node("Relu", ["a"], ["b"], name="relu1"),
        node("Add", ["x", "b"], ["y"], name="add1"),
    ]
    onnx.save(model(cyclic), "cyclic.onnx")
    blob = Path("net.onnx").read_bytes()
    Path("cut.onnx").write_bytes(blob[: len(blob) // 2])
    Path("text.onnx").write_text("This is no model.\n")
    Path("photos/broken.jpg").write_text("no photo")
    np.savez("data.npz", x=np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype("f4"))
    np.savez("shape.npz", x=np.ones((3, 5), np.float32))
    np.savez("pickled.npz", x=np.array([{}], dtype=object))
    np.savez("other.npz", z=np.ones(1))
    Path("text.npz").write_text("This is no archive.\n")
    with contextlib.redirect_stderr(io.StringIO()):
        assert model_transform.main(["--model_def", "net.onnx", *PREPROCESSING]) == 0
        words = ["net.qir", "--dataset", "data.npz", "-o", "net.cali_table"]
        assert run_calibration.main([*words, "--cali_method", "max"]) == 0
    shutil.copy("net.qir", "alone")
    table = Path("net.cali_table").read_text()
    for name, row in (("typo", "block1/rulu 15 0 15"), ("row", "block1/relu x15 0 15")):
        text = re.sub(r"(?m)^block1/relu .*$", row, table, count=1)
        Path(f"{name}.cali_table").write_text(text)
    Path("mode.qtable").write_text("# one node\nblock1/relu F23\n")
    Path("name.qtable").write_text("block1/rulu F32\n")


make(Path(sys.argv[1]))
