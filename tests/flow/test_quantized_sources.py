"""Models that other tools quantized give in every mode what onnxruntime makes of the source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from quantized_sources import SOURCES, case
from small_models import model, node

import qdqc
from qdqc.ir.core import Constant
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import parse_qtable
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import open_session

PRODUCTS = ("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul")
MODES = {"F32": 0.9999, "F16": 0.999, "W8": 0.999, "W4": 0.999, "DYN8": 0.999, "INT8": 0.999}
"""Least cosine with the source."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SOURCES)
def test_every_mode_gives_what_the_source_gives(name: str, mode: str) -> None:
    one = case(name)
    table = one.table if mode == "INT8" else None
    assert one.cosine(one.deployed(mode, table)) > MODES[mode]


@pytest.mark.parametrize("name", [n for n in SOURCES if "qdq" in n or "qop" in n or "pair" in n])
def test_requantized_without_a_table(name: str) -> None:
    one = case(name)
    assert one.cosine(one.deployed("INT8")) > 0.999


def kernels(proto: onnx.ModelProto, path: Path) -> Counter[str]:
    onnx.save(proto, path)
    return Counter(n.op_type for n in optimised_model(path).graph.node)


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("image")])
def test_what_was_integer_runs_in_integers_without_a_clip(name: str, tmp_path: Path) -> None:
    one = case(name)
    ran = kernels(one.deployed("INT8", one.table), tmp_path / "m.onnx")
    assert not sum(ran[k] for k in PRODUCTS)
    assert ran["QLinearConv"] == 3
    assert not ran["Clip"]


def test_dynamic_products_are_laid_anew_with_their_own_integers() -> None:
    one = case("tokens-dynamic")
    for made, wanted in zip(one.outputs(one.deployed("DYN8")), one.wanted, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)


def test_a_qoperator_model_is_typed_throughout() -> None:
    found = Counter(n.op.name for n in case("image-qop-s8s8").module.graph.nodes())
    assert not found["onnx"]
    assert not found["qlinear_conv"]
    assert (found["quantize"], found["dequantize"]) == (1, 1)


def test_integer_ops_that_types_cannot_say_are_named() -> None:
    rng = np.random.default_rng(0)
    read = ["x", "xs", "xz", "w", "ws", "xz", "xs", "xz"]
    constants = {"xz": np.uint8(3), "w": rng.integers(0, 255, (24, 8)).astype(np.uint8)}
    constants |= {"ws": np.float32(0.1)}
    nodes = [
        node("DynamicQuantizeLinear", ["f"], ["x", "xs", "unused"]),
        node("QLinearMatMul", read, ["q"]),
        node("DequantizeLinear", ["q", "xs", "xz"], ["y"]),
    ]
    said: list[Any] = []
    listener = qdqc.Listener(warn=said.append)
    made = qdqc.transform(model(nodes, {"f": [2, 24]}, constants), listener=listener)
    assert any("QLinearMatMul" in str(w) for w in said)
    feed = {"f": rng.normal(size=(2, 24)).astype(np.float32)}
    proto = model(nodes, {"f": [2, 24]}, constants)
    after, before = (
        open_session(p, threads=1).run(None, feed)[0]
        for p in (qdqc.export_onnx(made.module), proto)
    )
    np.testing.assert_array_equal(after, before)


BEHIND: dict[str, tuple[list[int], int, list[str], dict[str, Any]]] = {
    "Reshape": ([4, 6, 16], 2, ["to"], {}),
    "Transpose": ([16, 24], 0, [], {"perm": [1, 0]}),
    "Squeeze": ([24, 16, 1], 1, ["axes"], {}),
    "Flatten": ([24, 4, 4], 0, [], {"axis": 1}),
    "Identity": ([24, 16], 1, [], {}),
    "Cast": ([24, 16], 1, [], {"to": TensorProto.FLOAT}),
    "Slice": ([30, 16], 1, ["first", "last", "zero"], {}),
}
"""Shape and axis of the stored weight, other inputs and attributes, by what stands behind it."""


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("op", BEHIND)
def test_a_constant_behind_its_cast_is_moved_as_integers(op: str, per_axis: bool) -> None:
    rng = np.random.default_rng(4)
    shape, axis, read, attributes = BEHIND[op]
    scale = (rng.random(shape[axis]) * 0.01 + 0.005).astype(np.float32)
    known = {"to": [24, 16], "axes": [2], "first": [2], "last": [26], "zero": [0]}
    constants: dict[str, Any] = {n: np.array(known[n]) for n in read}
    constants["q"] = rng.integers(-127, 128, shape).astype(np.int8)
    constants["s"] = scale if per_axis else np.float32(0.01)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["d"], **({"axis": axis} if per_axis else {})),
        node(op, ["d", *read], ["w"], **attributes),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = model(nodes, {"x": [4, 24]}, constants)
    module = qdqc.transform(proto).module
    assert [n.op.name for n in module.graph.nodes()] == ["matmul"]
    weight = next(iter(module.graph.nodes())).need("b")
    assert isinstance(weight, Constant)
    assert weight.tensor.quant is not None
    feed = {"x": rng.normal(size=(4, 24)).astype(np.float32)}
    made = qdqc.export_onnx(qdqc.deploy(module, Deployment(mode="F32")).module)
    after, before = (
        open_session(p, optimise="off", threads=1).run(None, feed)[0] for p in (made, proto)
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_joined_and_split_weights_have_the_scales_of_their_parts() -> None:
    rng = np.random.default_rng(6)
    constants: dict[str, Any] = {
        n: rng.integers(-127, 128, (24, 8)).astype(np.int8) for n in ("a", "b")
    }
    constants |= {"s": np.float32(0.01), "t": np.float32(0.02), "sizes": np.array([6, 10])}
    nodes = [
        node("DequantizeLinear", ["a", "s"], ["da"]),
        node("DequantizeLinear", ["b", "t"], ["db"]),
        node("Concat", ["da", "db"], ["w"], axis=1),
        node("Split", ["w", "sizes"], ["u", "v"], axis=1),
        node("MatMul", ["x", "u"], ["m"]),
        node("MatMul", ["x", "v"], ["n"]),
        node("Concat", ["m", "n"], ["y"], axis=1),
    ]
    module = qdqc.transform(model(nodes, {"x": [4, 24]}, constants)).module
    products = [n for n in module.graph.nodes() if n.op.name == "matmul"]
    scales = [n.need("b").quant for n in products]
    steps = [q.scale.tolist() for q in scales if q is not None]
    np.testing.assert_allclose(steps[0], [0.01] * 6)
    np.testing.assert_allclose(steps[1], [0.01] * 2 + [0.02] * 8)


def test_a_qtable_names_the_nodes_of_the_module_that_came_in(tmp_path: Path) -> None:
    one = case("image-qdq-u8s8")
    names = {n.op.name: n.name for n in one.module.graph.nodes()}
    text = "".join(f"{names[op]} F32\n" for op in ("concat", "gemm", "quantize"))
    qtable = parse_qtable(text, "q")
    proto = qdqc.export_onnx(qdqc.deploy(one.module, Deployment(), qtable=qtable).module)
    assert one.cosine(proto) > 0.999
    ran = kernels(proto, tmp_path / "m.onnx")
    assert (ran["Concat"], ran["QLinearConcat"], ran["Gemm"] + ran["FusedGemm"]) == (1, 0, 1)
    assert ran["QLinearConv"] == 3
