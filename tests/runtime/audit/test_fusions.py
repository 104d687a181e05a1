"""Fusions that compute something else than the casts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import qdqc
from qdqc.ir.graph import Module
from qdqc.onnx_io.saver import save_onnx
from qdqc.runtime.audit.fusions import bad_fusions
from qdqc.runtime.machine import has_vnni

Samples = list[dict[str, Any]]
make = helper.make_node


def dead_channel(path: Path, bias: float, *, signed: bool = False) -> Path:
    """A QDQ Conv as others write it: the weight's second channel is next to nothing, its bias is
    float and large, so that its integer has no room. ``signed`` activations are i8."""
    kind, low = (np.int8, -128) if signed else (np.uint8, 0)
    weight = np.full((2, 1, 1, 1), 0.5, np.float32)
    weight[1] = 1e-9
    scales = np.array([0.5 / 127, 1e-9 / 127], np.float32)
    held = {
        "xs": np.float32(0.01),
        "xz": kind(low),
        "w": np.rint(weight / scales[:, None, None, None]).astype(np.int8),
        "ws": scales,
        "wz": np.zeros(2, np.int8),
        "b": np.array([0.1, bias], np.float32),
        "ys": np.float32(0.02),
        "yz": kind(low),
        "v": np.full((1, 2, 1, 1), 0.3, np.float32),
        "vs": np.float32(0.01),
    }
    nodes = [
        make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        make("Conv", ["xd", "wd", "b"], ["c"]),
        make("QuantizeLinear", ["c", "ys", "yz"], ["yq"]),
        make("DequantizeLinear", ["yq", "ys", "yz"], ["h"]),
        make("Conv", ["h", "v"], ["d"]),
        make("Mul", ["d", "d"], ["y"]),
    ]
    return saved(path, nodes, held, [1, 1, 4, 4])


def saved(path: Path, nodes: list[NodeProto], constants: dict[str, Any], x: list[int]) -> Path:
    """A model from ``x`` to ``y``."""
    x_info, y_info = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", None))
    )
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "m", [x_info], [y_info], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("signed", [False, True])
def test_a_lost_bias_is_found(signed: bool, tmp_path: Path) -> None:
    """Of the values behind it none is named, though all are wrong. onnxruntime turns i8 into u8
    under other names."""
    feeds = {"x": np.random.default_rng(0).random((1, 1, 4, 4), np.float32)}
    found = bad_fusions(dead_channel(tmp_path / "m.onnx", 1.0, signed=signed), feeds)
    assert [(f.name, f.op) for f in found] == [("h", "Conv")]
    assert found[0].steps == pytest.approx(50, abs=1), "the bias of 1 is 50 steps of 0.02"
    assert not bad_fusions(dead_channel(tmp_path / "n.onnx", 0.0, signed=signed), feeds)


def wrong_axis(path: Path, rows: int) -> Path:
    """A QDQ Gemm with a float result, whose weight has its scales along the wrong axis."""
    rng = np.random.default_rng(1)
    scales = np.linspace(0.001, 0.05, 16).astype(np.float32)
    held = {
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
        "w": rng.integers(-127, 128, (16, 16)).astype(np.int8),
        "ws": scales,
        "wz": np.zeros(16, np.int8),
        "b": np.zeros(16, np.int32),
        "bs": (np.float32(0.02) * scales).astype(np.float32),
        "bz": np.zeros(16, np.int32),
    }
    nodes = [
        make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        make("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0),
        make("Gemm", ["xd", "wd", "bd"], ["g"], transB=1),
        make("Sigmoid", ["g"], ["y"]),
    ]
    return saved(path, nodes, held, [rows, 16])


@pytest.mark.parametrize("rows", [1, 4])
def test_scales_along_the_wrong_axis_are_found(rows: int, tmp_path: Path) -> None:
    """The float result of the product itself is judged, not what a Sigmoid makes of it."""
    feeds = {"x": np.random.default_rng(0).standard_normal((rows, 16), np.float32)}
    (found,) = bad_fusions(wrong_axis(tmp_path / "m.onnx", rows), feeds)
    assert (found.name, found.op) == ("g", "Gemm")
    assert found.steps > 10


def steep(path: Path, width: int, out: int) -> Path:
    """Two products, and a Sigmoid so steep that it makes a step of any rounding before it."""
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.standard_normal((width, width)).astype(np.float32),
        "b": rng.standard_normal(width).astype(np.float32),
        "v": rng.standard_normal((width, out)).astype(np.float32),
        "k": np.float32(2),
    }
    nodes = [
        make("MatMul", ["x", "w"], ["p"]),
        make("Add", ["p", "b"], ["s"]),
        make("Tanh", ["s"], ["t"]),
        make("MatMul", ["t", "v"], ["q"]),
        make("Mul", ["q", "k"], ["m"]),
        make("Sigmoid", ["m"], ["y"]),
    ]
    return saved(path, nodes, constants, [1, 3, width])


@pytest.mark.parametrize("mode", ["int8", "dyn8", "w8", "w4", "f16"])
@pytest.mark.parametrize(("width", "out"), [(40, 5), (64, 1)])
def test_what_float_ops_make_of_a_rounding_is_no_bad_fusion(
    mode: str, width: int, out: int, tmp_path: Path
) -> None:
    """Kernels of W8 and W4 round their activations; steps of a saturated result mean nothing."""
    data = [{"x": np.random.default_rng(0).standard_normal((1, 3, width), np.float32)}]
    model = steep(tmp_path / "m.onnx", width, out)
    assert qdqc.quantize(model, data, mode=mode).report.proof.bad_fusions == []


@pytest.mark.parametrize("mode", ["int8", "dyn8", "w8", "w4", "f16"])
def test_one_number(mode: str, tmp_path: Path) -> None:
    """It has no extent in which a difference could be counted."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((8, 1)).astype(np.float32),
    }
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        make("Relu", ["c"], ["r"]),
        make("GlobalAveragePool", ["r"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("MatMul", ["f", "v"], ["d"]),
        make("Sigmoid", ["d"], ["y"]),
    ]
    model = saved(tmp_path / "m.onnx", nodes, constants, [1, 3, 8, 8])
    data = [{"x": rng.standard_normal((1, 3, 8, 8), np.float32)}]
    assert qdqc.quantize(model, data, mode=mode).report.proof.bad_fusions == []


def test_a_branch_that_the_run_decides(tmp_path: Path) -> None:
    """An If of one number, behind a kernel that rounds."""
    value = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [make("Mul", ["top", factor], [name])], name, [], [value(name, 1, [])]
        )
        for name, factor in (("then", "k"), ("else", "zero"))
    }
    rng = np.random.default_rng(6)
    constants = {
        "w": rng.standard_normal((32, 32)).astype(np.float32),
        "k": np.float32(3),
        "zero": np.float32(0),
    }
    nodes = [
        make("MatMul", ["x", "w"], ["p"]),
        make("Relu", ["p"], ["r"]),
        make("ReduceMax", ["r"], ["top"], keepdims=0),
        make("Greater", ["top", "zero"], ["any"]),
        make("If", ["any"], ["y"], **branches),
    ]
    model = saved(tmp_path / "m.onnx", nodes, constants, [4, 32])
    data = [{"x": rng.standard_normal((4, 32), np.float32)}]
    for mode in ("int8", "dyn8", "w8"):
        assert qdqc.quantize(model, data, mode=mode).report.proof.bad_fusions == []


def test_numbers_that_are_none_are_not_judged(tmp_path: Path) -> None:
    feeds = {"x": np.full((1, 1, 4, 4), np.nan, np.float32)}
    assert not bad_fusions(dead_channel(tmp_path / "m.onnx", 0.0), feeds)


def test_right_kernels_are_no_bad_fusions(
    lowered: Module, tmp_path: Path, samples: Samples
) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(lowered, path)
    for feeds in samples[:3]:
        assert not bad_fusions(path, feeds)


def test_the_processor_is_read_from_its_flags(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert has_vnni(told) is True
    told.write_text("flags : fpu avx2\n")
    assert has_vnni(told) is False
    told.write_text("Features : fp asimd asimddp\n")
    assert has_vnni(told) is None
    assert has_vnni(tmp_path / "none") is None
