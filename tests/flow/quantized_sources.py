"""Models that other tools quantized, or whose nodes quantize as theirs do."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper
from onnxruntime import quantization as tool
from small_models import Array, f32, model, node, pair, start_over

import qdqc
from qdqc.ir.graph import Module
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

Source = Callable[[], onnx.ModelProto]


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


def resized_net(mode: str) -> Source:
    """A Resize of integers beside another reader of them, and a Softmax over classes."""

    def make() -> onnx.ModelProto:
        constants = {
            "w1": f32(8, 3, 3, 3, scale=0.3),
            "w2": f32(8, 8, 3, 3, scale=0.15),
            "w3": f32(4, 8, 1, 1, scale=0.3),
            "twice": np.array([1, 1, 2, 2], np.float32),
        }
        nodes = [
            node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
            node("Relu", ["c1"], ["r1"]),
            node("Resize", ["r1", "", "twice"], ["u"], mode=mode),
            node("Conv", ["u", "w2"], ["c2"], pads=[1] * 4, strides=[2, 2]),
            node("Conv", ["r1", "w2"], ["c3"], pads=[1] * 4),
            node("Add", ["c2", "c3"], ["a"]),
            node("Conv", ["a", "w3"], ["z"]),
            node("Transpose", ["z"], ["t"], perm=[0, 2, 3, 1]),
            node("Softmax", ["t"], ["y"], axis=-1),
        ]
        return model(nodes, {"x": [1, 3, 12, 12]}, constants)

    return make


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
    "resize-nearest-qop": by_tool(resized_net("nearest"), "QOperator", "u8", "s8", False),
    "resize-linear-qop": by_tool(resized_net("linear"), "QOperator", "u8", "s8", False),
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
        start_over(1)
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
