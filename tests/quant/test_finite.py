"""Weights that are not finite are named, masks of infinity are left alone."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import deploy
from qdqc.flow.listener import Listener
from qdqc.quant.deployment import Deployment

MODES = ("INT8", "DYN8", "W8", "W4", "F16")
LISTENER = Listener(warn=lambda _: None)
RNG = np.random.default_rng(0)
SAMPLES = [{"x": RNG.standard_normal((2, 32)).astype(np.float32)} for _ in range(4)]


def network(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """x [N,32] -> the nodes -> y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [0.2 * np.random.default_rng(1).standard_normal(s).astype(np.float32) for s in shapes]


def deployed(model: onnx.ModelProto, mode: str) -> qdqc.Module:
    """The model in a mode, without any warning of numpy's."""
    module = qdqc.transform(model).module
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = None
        if mode == "INT8":
            table = qdqc.calibrate(module, SAMPLES, listener=LISTENER)
        return deploy(module, Deployment(mode=mode), table=table, listener=LISTENER).module


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", ["w", "b"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_and_a_bias_are_named_in_every_mode(mode: str, place: str, number: float) -> None:
    w, b = weights((16, 32), (16,))
    {"w": w, "b": b}[place].reshape(-1)[3] = number
    model = network([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"w": w, "b": b})
    at = r"\[0, 3\]" if place == "w" else r"\[3\]"
    what = "NaN" if np.isnan(number) else "infinite"
    with pytest.raises(QdqcError, match=rf"'{place}' has 1 {what} of .*first at {at}: 'y' can't"):
        deployed(model, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_of_infinity_that_is_added_stays(mode: str) -> None:
    """Behind a product, and behind a softmax's scores: the probabilities are those of float."""
    w, v = weights((32, 32), (32, 8))
    mask = np.zeros((1, 32), np.float32)
    mask[:, 20:] = -np.inf
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "mask"], ["m"]),
        helper.make_node("Softmax", ["m"], ["s"], axis=-1),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    model = network(nodes, {"w": w, "v": v, "mask": mask})
    module = deployed(model, mode)
    from qdqc.runtime.sessions.session import Runner

    right = Runner(qdqc.transform(model).module).run(SAMPLES[0])["y"]
    out = Runner(module).run(SAMPLES[0])["y"]
    assert np.isfinite(out).all()
    assert float((right * out).sum() / np.sqrt((right**2).sum() * (out**2).sum())) > 0.98


def test_a_node_that_stays_float_keeps_its_infinity() -> None:
    w, b = weights((16, 32), (16,))
    b[3] = -np.inf
    model = network([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"w": w, "b": b})
    module = qdqc.transform(model).module
    said: list[str] = []
    listener = Listener(warn=lambda w: said.append(str(getattr(w, "message", w))))
    modes = qdqc.Qtable.of({"y": "F32"})
    deploy(module, Deployment(mode="W8"), qtable=modes, listener=listener)
    assert any("'b' has 1 infinite of 16 elements" in text for text in said)


def test_a_weight_beyond_half_precision_stays_f32() -> None:
    (w,) = weights((32, 16))
    w[5, 2] = 7e4
    model = network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": w})
    said: list[str] = []
    listener = Listener(warn=lambda w: said.append(str(getattr(w, "message", w))))
    deployed_ = deploy(qdqc.transform(model).module, Deployment(mode="F16"), listener=listener)
    assert all(np.isfinite(c.data.array()).all() for c in deployed_.module.constants.values())
    assert said[0] == "'y' stays f32: half precision ends at 65504"
    assert said[1].startswith("NOTHING WAS QUANTIZED")
