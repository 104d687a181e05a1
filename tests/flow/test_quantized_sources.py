"""Models that other tools quantized give in every mode what onnxruntime makes of the source."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import quantization as tool

import qdqc
from qdqc.ir.core import Constant
from qdqc.ir.graph import Module
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import parse_qtable
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import open_session

Array = npt.NDArray[Any]
Source = Callable[[], onnx.ModelProto]

RNG = np.random.default_rng(1)
PRODUCTS = ("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul")
MODES = {"F32": 0.9999, "F16": 0.999, "W8": 0.999, "W4": 0.999, "DYN8": 0.999, "INT8": 0.999}
"""Least cosine with the source."""


def f32(*shape: int, scale: float = 1.0) -> Array:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, Any],
    opset: int = 17,
    elem: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model whose output is y, of whatever shape and type."""
    ins = [helper.make_tensor_value_info(n, elem, s) for n, s in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [
        c if isinstance(c, TensorProto) else numpy_helper.from_array(np.asarray(c), n)
        for n, c in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", ins, [out], held)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 11)


node = helper.make_node


def pair(x: str, y: str, scale: str, zero: str) -> list[NodeProto]:
    """x quantized to y_q, and back to y."""
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{y}_q"]),
        node("DequantizeLinear", [f"{y}_q", scale, zero], [y]),
    ]


def image_net() -> onnx.ModelProto:
    constants = {
        "w1": f32(8, 3, 3, 3, scale=0.3),
        "b1": f32(8, scale=0.2),
        "w2": f32(8, 8, 3, 3, scale=0.15),
        "w3": f32(8, 1, 3, 3, scale=0.3),
        "w4": f32(16, 16, scale=0.4),
        "b4": f32(16, scale=0.2),
        "w5": f32(16, 10, scale=0.3),
        "to": np.array([-1, 16]),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m", "w2"], ["c2"], pads=[1] * 4),
        node("Add", ["c2", "m"], ["a"]),
        node("LeakyRelu", ["a"], ["l"], alpha=0.1),
        node("Conv", ["l", "w3"], ["c3"], group=8, pads=[1] * 4),
        node("Sigmoid", ["c3"], ["s"]),
        node("Mul", ["c3", "s"], ["g"]),
        node("Concat", ["g", "m"], ["j"], axis=1),
        node("AveragePool", ["j"], ["p"], kernel_shape=[2, 2]),
        node("GlobalAveragePool", ["p"], ["q"]),
        node("Reshape", ["q", "to"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["h"], transB=1),
        node("MatMul", ["h", "w5"], ["z"]),
        node("Softmax", ["z"], ["y"], axis=-1),
    ]
    return model(nodes, {"x": [1, 3, 12, 12]}, constants)


def token_net() -> onnx.ModelProto:
    constants = {
        "w1": f32(24, 32, scale=0.25),
        "b1": f32(32, scale=0.2),
        "w2": f32(32, 32, scale=0.2),
        "w3": f32(32, 8, scale=0.2),
        "one": np.ones(32, np.float32),
    }
    nodes = [
        node("MatMul", ["x", "w1"], ["m1"]),
        node("Add", ["m1", "b1"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w2"], ["m2"]),
        node("LayerNormalization", ["m2", "one"], ["n"], axis=-1),
        node("Transpose", ["n"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["r", "t"], ["k"]),
        node("Softmax", ["k"], ["s"], axis=-1),
        node("MatMul", ["s", "r"], ["v"]),
        node("MatMul", ["v", "w3"], ["y"]),
    ]
    return model(nodes, {"x": [1, 6, 24]}, constants)


class _Reader(tool.CalibrationDataReader):
    def __init__(self, shape: Sequence[int]) -> None:
        rng = np.random.default_rng(5)
        self.left: Iterator[dict[str, Array]] = iter(
            [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(8)]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


def by_tool(net: Source, how: str, activation: str, weight: str, per_channel: bool) -> Source:
    """What onnxruntime's own quantization makes of a net."""

    def make() -> onnx.ModelProto:
        import tempfile

        proto = net()
        types = {"u8": "QUInt8", "s8": "QInt8", "u16": "QUInt16"}
        weights = getattr(tool.QuantType, types[weight])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "out.onnx"
            logging.disable(logging.WARNING)
            if how == "dynamic":
                tool.quantize_dynamic(
                    proto,
                    path,
                    weight_type=weights,
                    per_channel=per_channel,
                    op_types_to_quantize=["MatMul", "Gemm", "Conv"],
                )
            else:
                shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
                tool.quantize_static(
                    proto,
                    path,
                    _Reader(shape),
                    quant_format=getattr(tool.QuantFormat, how),
                    activation_type=getattr(tool.QuantType, types[activation]),
                    weight_type=weights,
                    per_channel=per_channel,
                )
            logging.disable(logging.NOTSET)
            return onnx.load(path)

    return make


QUANT = {
    "s1": np.float32(0.02),
    "z0": np.uint8(0),
    "s2": np.float32(0.013),
    "z40": np.uint8(40),
    "z128": np.uint8(128),
    "s3": np.float32(0.005),
    "i20": np.int8(-20),
    "s16": np.float32(4e-5),
    "u16": np.uint16(0),
    "i16": np.int16(0),
}


def small(nodes: list[NodeProto], x: Sequence[int] = (4, 24), **options: Any) -> Source:
    """A net of few nodes that reads some of the scales and weights at hand."""

    def make() -> onnx.ModelProto:
        rng = np.random.default_rng(2)
        shapes = {"W": (24, 16), "V": (16, 8), "K": (3, 3, 3, 3), "U": (4, 8)}
        made = {n: (rng.normal(size=s) * 0.25).astype(np.float32) for n, s in shapes.items()}
        made["G"] = rng.integers(-127, 128, (24, 16)).astype(np.int8)
        made["sG"] = (rng.random(16) * 0.01 + 0.005).astype(np.float32)
        made |= {"to": np.array([4, 4, 4])}
        read = {i for n in nodes for i in n.input}
        constants = {k: v for k, v in {**QUANT, **made}.items() if k in read}
        return model(nodes, {"x": list(x)}, constants, **options)

    return make


IMAGE = (1, 3, 8, 8)
SOURCES: dict[str, Source] = {
    "image-qdq-u8s8": by_tool(image_net, "QDQ", "u8", "s8", True),
    "image-qdq-u16s8": by_tool(image_net, "QDQ", "u16", "s8", False),
    "image-qop-s8s8": by_tool(image_net, "QOperator", "s8", "s8", False),
    "image-qop-u8u8": by_tool(image_net, "QOperator", "u8", "u8", False),
    "image-dynamic": by_tool(image_net, "dynamic", "u8", "u8", False),
    "tokens-qdq-s8s8": by_tool(token_net, "QDQ", "s8", "s8", False),
    "tokens-qop-u8s8": by_tool(token_net, "QOperator", "u8", "s8", True),
    "tokens-dynamic": by_tool(token_net, "dynamic", "u8", "s8", True),
    "pair-is-relu": small(
        [
            node("MatMul", ["x", "W"], ["h"]),
            *pair("h", "d", "s1", "z0"),
            node("MatMul", ["d", "V"], ["y"]),
        ]
    ),
    "second-pair-narrower": small(
        [
            *pair("x", "c", "s1", "z128"),
            *pair("c", "d", "s2", "z40"),
            node("MatMul", ["d", "W"], ["y"]),
        ]
    ),
    "two-readers": small(
        [
            node("MatMul", ["x", "W"], ["h"]),
            *pair("h", "a", "s1", "z0"),
            *pair("h", "b", "s3", "i20"),
            node("MatMul", ["a", "V"], ["c"]),
            node("MatMul", ["b", "V"], ["d"]),
            node("Concat", ["c", "d", "h"], ["y"], axis=1),
        ]
    ),
    "float-reader": small(
        [
            node("Conv", ["x", "K"], ["c"], pads=[1] * 4),
            *pair("c", "d", "s3", "z0"),
            node("Conv", ["d", "K"], ["e"], pads=[1] * 4),
            node("Add", ["c", "e"], ["y"]),
        ],
        IMAGE,
    ),
    "ends": small(
        [*pair("x", "a", "s3", "z40"), node("Tanh", ["a"], ["b"]), *pair("b", "y", "s3", "z40")]
    ),
    "u16": small(
        [
            node("Conv", ["x", "K"], ["c"], pads=[1] * 4),
            *pair("c", "d", "s16", "u16"),
            node("Conv", ["d", "K"], ["e"], pads=[1] * 4),
            *pair("e", "y", "s16", "i16"),
        ],
        IMAGE,
        opset=21,
    ),
    "moved-as-integers": small(
        [
            node("MatMul", ["x", "W"], ["h"]),
            node("QuantizeLinear", ["h", "s1", "z0"], ["q"]),
            node("Reshape", ["q", "to"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
            node("DequantizeLinear", ["t", "s1", "z0"], ["d"]),
            node("MatMul", ["d", "U"], ["y"]),
        ]
    ),
    "read-as-integers": small(
        [
            node("MatMul", ["x", "W"], ["h"]),
            *pair("h", "d", "s1", "z0"),
            node("Cast", ["d_q"], ["c"], to=TensorProto.FLOAT),
            node("MatMul", ["d", "V"], ["a"]),
            node("MatMul", ["c", "V"], ["b"]),
            node("Concat", ["a", "b"], ["y"], axis=0),
        ]
    ),
    "output-dtype": small(
        [
            node("QuantizeLinear", ["x", "s2"], ["q"], output_dtype=TensorProto.INT8),
            node("DequantizeLinear", ["q", "s2"], ["d"]),
            node("MatMul", ["d", "W"], ["y"]),
        ],
        opset=21,
    ),
    "weight-only": small(
        [
            node("DequantizeLinear", ["G", "sG"], ["w"], axis=1),
            node("MatMul", ["x", "w"], ["y"]),
        ]
    ),
}


def blocks() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    constants = {
        "q": helper.make_tensor(
            "q", TensorProto.UINT4, [32, 16], rng.integers(0, 16, 512).tolist()
        ),
        "z": helper.make_tensor("z", TensorProto.UINT4, [2, 16], [8] * 32),
        "s": (rng.random((2, 16)) * 0.1).astype(np.float32),
    }
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0, block_size=16),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    return model(nodes, {"x": [4, 32]}, constants, opset=21)


SOURCES["blocks"] = blocks


class Case:
    """A source, its transformed module and what onnxruntime makes of the source."""

    def __init__(self, name: str) -> None:
        self.proto = SOURCES[name]()
        session = open_session(self.proto, optimise="off", threads=1)
        shape = session.get_inputs()[0].shape
        rng = np.random.default_rng(3)
        self.feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(8)]
        self.wanted = [session.run(None, f)[0] for f in self.feeds]
        self.module: Module = qdqc.transform(self.proto).module

    @functools.cached_property
    def table(self) -> Any:
        return qdqc.calibrate(self.module, self.feeds, method="max")

    def deployed(self, mode: str, table: Any = None) -> onnx.ModelProto:
        made = qdqc.deploy(self.module, Deployment(mode=mode), table=table)
        return qdqc.export_onnx(made.module)

    def outputs(self, proto: onnx.ModelProto) -> list[Array]:
        session = open_session(proto, threads=1)
        return [np.asarray(session.run(None, f)[0]) for f in self.feeds]

    def cosine(self, proto: onnx.ModelProto) -> float:
        a = np.concatenate([o.ravel() for o in self.outputs(proto)]).astype(np.float64)
        b = np.concatenate([o.ravel() for o in self.wanted]).astype(np.float64)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@functools.cache
def case(name: str) -> Case:
    return Case(name)


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
