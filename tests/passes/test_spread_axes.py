"""Ops with axes between integer convolutions: integers on both sides, and the source's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from qdqc.flow.calibrate import calibrate
from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import open_session

RNG = np.random.default_rng(0)
F32 = np.float32


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def sandwich(op: str, inputs: tuple[str, ...], constants: Any, **attributes: Any) -> ModelProto:
    """conv -> op -> conv, at opset 19."""
    nodes = [
        make_node("Conv", ["x", "w"], ["c"]),
        make_node(op, ["c", *inputs], ["q"], **attributes),
        make_node("Conv", ["q", "v"], ["y"], pads=[1] * 4),
    ]
    weights = {
        n: RNG.normal(size=(4, k, 3, 3)).astype(F32) * F32(0.2) for n, k in (("w", 3), ("v", 4))
    }
    tensors = [numpy_helper.from_array(a, n) for n, a in (weights | constants).items()]
    x = make_tensor_value_info("x", 1, ["N", 3, 12, 12])
    graph = make_graph(nodes, "g", [x], [make_tensor_value_info("y", 1, None)], tensors)
    return make_model(graph, opset_imports=[make_opsetid("", 19)], ir_version=9)


CASES = {
    "pad": sandwich("Pad", ("p", "", "a"), {"p": ints(1, 2, 0, 1), "a": ints(2, 3)}),
    "pad from the end": sandwich("Pad", ("p", "", "a"), {"p": ints(1, 2), "a": ints(-1)}),
    "pad by edges": sandwich("Pad", ("p", "", "a"), {"p": ints(1, 1), "a": ints(2)}, mode="edge"),
    "scales": sandwich(
        "Resize", ("", "s"), {"s": np.array([2, 2], F32)}, axes=[2, 3], mode="linear"
    ),
    "sizes": sandwich("Resize", ("", "", "s"), {"s": ints(7, 13)}, axes=[3, 2], mode="nearest"),
    "proportion": sandwich(
        "Resize",
        ("", "", "s"),
        {"s": ints(20, 25)},
        axes=[2, 3],
        keep_aspect_ratio_policy="not_larger",
    ),
    "region": sandwich(
        "Resize",
        ("r", "", "s"),
        {"r": np.array([0.1, 0.2, 0.9, 0.8], F32), "s": ints(7, 7)},
        axes=[2, 3],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    "crop": sandwich("CenterCropPad", ("s",), {"s": ints(7, 13)}, axes=[2, 3]),
}


@pytest.mark.parametrize("name", CASES)
def test_both_convolutions_are_integer_and_right(name: str, tmp_path: Path) -> None:
    source = CASES[name]
    feeds = {"x": RNG.normal(size=(2, 3, 12, 12)).astype(F32)}
    wanted = open_session(source, optimise="off").run(None, feeds)[0]
    module = transform(source).module
    same = open_session(export_onnx(module)).run(None, feeds)[0]
    np.testing.assert_allclose(same, wanted, rtol=1e-4, atol=1e-5)
    file = tmp_path / "made.onnx"
    save_onnx(deploy(module, table=calibrate(module, [feeds])).module, file)
    ours = open_session(str(file)).run(None, feeds)[0]
    assert float((ours * wanted).sum() / np.linalg.norm(ours) / np.linalg.norm(wanted)) > 0.999
    kernels = [n.op_type for n in optimised_model(file).graph.node]
    assert kernels.count("QLinearConv") == 2
