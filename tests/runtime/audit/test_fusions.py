"""Fusions that compute something else than the casts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdqc.ir.graph import Module
from qdqc.onnx_io.saver import save_onnx
from qdqc.runtime.audit.fusions import bad_fusions
from qdqc.runtime.machine import has_vnni

Samples = list[dict[str, Any]]


def dead_channel(path: Path, bias: float) -> Path:
    """A QDQ Conv as others write it: the weight's second channel is next to nothing, its bias is
    float and large, so that its integer has no room."""
    weight = np.full((2, 1, 1, 1), 0.5, np.float32)
    weight[1] = 1e-9
    scales = np.array([0.5 / 127, 1e-9 / 127], np.float32)
    held = {
        "xs": np.float32(0.01),
        "xz": np.uint8(0),
        "w": np.rint(weight / scales[:, None, None, None]).astype(np.int8),
        "ws": scales,
        "wz": np.zeros(2, np.int8),
        "b": np.array([0.1, bias], np.float32),
        "ys": np.float32(0.02),
        "yz": np.uint8(0),
    }
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        make("Conv", ["xd", "wd", "b"], ["c"]),
        make("QuantizeLinear", ["c", "ys", "yz"], ["yq"]),
        make("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    shapes = ("x", [1, 1, 4, 4]), ("y", [1, 2, 4, 4])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "dead", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_a_lost_bias_is_found(tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(0).random((1, 1, 4, 4), np.float32)}
    found = bad_fusions(dead_channel(tmp_path / "m.onnx", 1.0), feeds)
    assert [(f.name, f.op) for f in found] == [("y", "Conv")]
    assert found[0].steps == pytest.approx(50, abs=1), "the bias of 1 is 50 steps of 0.02"
    assert not bad_fusions(dead_channel(tmp_path / "n.onnx", 0.0), feeds)


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
