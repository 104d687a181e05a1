"""ONNX files run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.saver import save_onnx
from qdqc.runtime.sessions.onnx_file import OnnxRunner
from qdqc.runtime.sessions.session import Runner

Samples = list[dict[str, Any]]


def test_every_tensor_of_a_float_file(tiny_onnx: Path, samples: Samples) -> None:
    runner = OnnxRunner(tiny_onnx, every=True)
    found = runner.run(samples[0])
    assert list(found) == ["x", "c1", "r1", "c2", "a", "r2", "c3", "p", "f", "y"]
    np.testing.assert_array_equal(found["r1"], np.maximum(found["c1"], 0))
    alone = OnnxRunner(tiny_onnx).run(samples[0])
    assert list(alone) == ["y"]
    np.testing.assert_allclose(alone["y"], found["y"], atol=1e-5)
    assert [str(d) for d in runner.graph.inputs[0].tensor.shape or ()] == ["N", "3", "8", "8"]


@pytest.mark.parametrize("fixed", [False, True])
def test_a_deployed_file_gives_what_its_module_gives(
    lowered: Module, samples: Samples, tmp_path: Path, fixed: bool
) -> None:
    path = tmp_path / "deployed.onnx"
    save_onnx(lowered, path)
    theirs = OnnxRunner(path, every=True, fixed=fixed).run(samples[0])
    ours = Runner(lowered, None, fixed=fixed).run(samples[0])
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert (ours["r1"].dtype == np.uint8) == fixed


def test_external_data_and_taps(tiny_onnx: Path, samples: Samples, tmp_path: Path) -> None:
    target = tmp_path / "big.onnx"
    model = onnx.load(str(tiny_onnx))
    onnx.save(model, str(target), save_as_external_data=True, size_threshold=0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    found = OnnxRunner(target, every=True).run(samples[0])
    wanted = OnnxRunner(tiny_onnx, every=True).run(samples[0])
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_dequantize_without_a_zero_point_and_along_an_axis(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    tensors = [
        helper.make_tensor("s", TensorProto.FLOAT, [2], [0.5, 2.0]),
        helper.make_tensor("z", TensorProto.INT8, [2], [0, 3]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 2])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "axis.onnx"
    onnx.save(model, str(path))
    given = np.array([[[0.6, -1.0], [5.0, 1.1]]], np.float32)
    found = OnnxRunner(path, every=True).run({"x": given})
    np.testing.assert_array_equal(found["d"], np.array([[[0.5, -1.0], [4.0, 2.0]]], np.float32))
    fixed = OnnxRunner(path, every=True, fixed=True).run({"x": given})
    np.testing.assert_array_equal(fixed["d"], np.array([[[1, -2], [5, 4]]], np.int8))


def test_errors_name_the_file(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="no such file"):
        OnnxRunner(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello\n")
    with pytest.raises(QdqcError, match="it looks like a text file"):
        OnnxRunner(tmp_path / "text.onnx")
    with pytest.raises(QdqcError, match=r"tiny.onnx: error: onnxruntime can't run the model"):
        OnnxRunner(tiny_onnx).run({"x": np.ones((1, 4, 8, 8), np.float32)})
