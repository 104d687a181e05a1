"""QDQ models as they are commonly written, each with a trap, beside their float originals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["TRAPS", "Trap"]

Array = npt.NDArray[Any]


@dataclass
class Trap:
    """A float model with one product and its naive QDQ form. Both take ``x`` and give ``y``."""

    original: onnx.ModelProto
    naive: onnx.ModelProto
    x: Array


@dataclass
class _Layer:
    """One product ``op(x, w, b)``, and how it is quantized.

    ``axis`` is that of the weight's scales, None for one scale. ``bias`` is float, int32, or
    int32 with one wrong scale. ``returned`` says that no Q follows: the result is float.
    """

    op: str
    x: Array
    w: Array
    b: Array | None = None
    axis: int | None = 0
    bias: str = "float"
    returned: bool = False
    unsigned: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)

    def trap(self) -> Trap:
        y = self._float_result()
        return Trap(self._original(y), self._naive(y), self.x)

    def _original(self, y: Array) -> onnx.ModelProto:
        constants = {"w": self.w} | ({} if self.b is None else {"b": self.b})
        return _model(self._nodes("x", "w", "b", "y"), constants, self.x, y.shape)

    def _nodes(self, x: str, w: str, b: str, y: str) -> list[onnx.NodeProto]:
        """The product; a MatMul takes its bias by an Add."""
        if self.op == "MatMul":
            if self.b is None:
                return [helper.make_node("MatMul", [x, w], [y])]
            return [
                helper.make_node("MatMul", [x, w], [f"{y}_product"]),
                helper.make_node("Add", [f"{y}_product", b], [y]),
            ]
        given = [x, w] if self.b is None else [x, w, b]
        return [helper.make_node(self.op, given, [y], **self.attrs)]

    def _float_result(self) -> Array:
        import onnxruntime as ort

        constants = {"w": self.w} | ({} if self.b is None else {"b": self.b})
        proto = _model(self._nodes("x", "w", "b", "y"), constants, self.x, None)
        return np.asarray(
            ort.InferenceSession(proto.SerializeToString()).run(None, {"x": self.x})[0]
        )

    def _naive(self, y: Array) -> onnx.ModelProto:
        low, high = min(float(self.x.min()), 0), float(self.x.max())
        xs = np.float32((high - low) / 255)
        xz = np.uint8(np.rint(-low / xs))
        stored, ws, wz = self._stored_weight()
        held: dict[str, Any] = {"xs": xs, "xz": xz, "wq": stored, "ws": ws, "wz": wz}
        axis = {} if self.axis is None else {"axis": self.axis}
        make = helper.make_node
        nodes = [
            make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            make("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], **axis),
        ]
        if self.b is not None:
            nodes += self._bias(held, xs, ws)
        nodes += self._nodes("xd", "wd", "bd", "y" if self.returned else "yf")
        if not self.returned:
            low, high = min(float(y.min()), 0), float(y.max())
            held["ys"] = np.float32((high - low) / 255)
            held["yz"] = np.uint8(np.rint(-low / held["ys"]))
            nodes.append(make("QuantizeLinear", ["yf", "ys", "yz"], ["yq"]))
            nodes.append(make("DequantizeLinear", ["yq", "ys", "yz"], ["y"]))
        return _model(nodes, held, self.x, y.shape)

    def _stored_weight(self) -> tuple[Array, Array, Array]:
        others = tuple(i for i in range(self.w.ndim) if i != self.axis)
        absmax = np.abs(self.w).max(axis=others if self.axis is not None else None, keepdims=True)
        scale = (absmax / 127).astype(np.float32)
        stored = np.rint(self.w / scale)
        scales = scale.reshape(-1) if self.axis is not None else scale.reshape(())
        if not self.unsigned:
            return stored.astype(np.int8), scales, np.zeros(scales.shape, np.int8)
        zeros = (128 - np.arange(scales.size) % 2).astype(np.uint8).reshape(scales.shape)
        shifted = np.clip(stored + zeros.reshape(scale.shape), 0, 255)
        return shifted.astype(np.uint8), scales, zeros

    def _bias(self, held: dict[str, Any], xs: np.float32, ws: Array) -> list[onnx.NodeProto]:
        assert self.b is not None
        if self.bias == "float":
            held["bd"] = self.b
            return []
        scale = (xs * ws).astype(np.float32)
        if self.bias == "one scale":
            scale = np.full_like(scale, scale.max() * 4)
        held["bs"], held["bz"] = scale, np.zeros(scale.shape, np.int32)
        held["bq"] = np.rint(self.b / scale).astype(np.int32)
        axis = {"axis": 0} if scale.ndim else {}
        return [helper.make_node("DequantizeLinear", ["bq", "bs", "bz"], ["bd"], **axis)]


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    x: Array,
    shape: tuple[int, ...] | None,
) -> onnx.ModelProto:
    make = helper.make_tensor_value_info
    ends = [make("x", TensorProto.FLOAT, x.shape), make("y", TensorProto.FLOAT, shape)]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "trap", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def _conv(**given: Any) -> _Layer:
    b = given.pop("b", _normal(3, 6))
    return _Layer("Conv", _normal(1, 1, 4, 8, 8), _normal(2, 6, 4, 3, 3), b, **given)


def _gemm(**given: Any) -> _Layer:
    given = {"attrs": {"transB": 1}, "w": _normal(2, 16, 16)} | given
    return _Layer("Gemm", _normal(1, 4, 16), b=_normal(3, 16), **given)


def _dead_channel(axis: int | None) -> _Layer:
    """Weights next to nothing in one channel, or in all; its bias of 1 has no room in int32."""
    layer = _conv(axis=axis, b=np.array([1, 0, 0, 0, 0, 0], np.float32))
    layer.w[0 if axis == 0 else slice(None)] *= 1e-9
    return layer


TRAPS: dict[str, Callable[[], Trap]] = {
    "Conv, float bias, per channel": lambda: _conv().trap(),
    "Conv, float bias, per tensor": lambda: _conv(axis=None).trap(),
    "Conv, dead channel with a large bias": lambda: _dead_channel(0).trap(),
    "Conv, dead weights with a large bias, per tensor": lambda: _dead_channel(None).trap(),
    "Conv, one wrong bias scale": lambda: _conv(bias="one scale").trap(),
    "Conv, weight axis 1": lambda: _conv(axis=1, b=None).trap(),
    "Conv, u8 weights with differing zero points": lambda: _conv(unsigned=True, b=None).trap(),
    "Gemm, float bias, Q behind": lambda: _gemm().trap(),
    "Gemm, float bias, classifier": lambda: _gemm(returned=True).trap(),
    "Gemm, wrong axis": lambda: _gemm(axis=1, bias="int32", returned=True).trap(),
    "Gemm, alpha 2": lambda: _gemm(attrs={"transB": 1, "alpha": 2.0}, bias="int32").trap(),
    "MatMul, weight axis 0": lambda: _Layer(
        "MatMul", _normal(1, 2, 3, 16), _normal(2, 16, 6), returned=True
    ).trap(),
    "MatMul + float bias, static, no Q": lambda: _Layer(
        "MatMul", _normal(1, 2, 3, 16), _normal(2, 16, 6), _normal(3, 6), axis=1, returned=True
    ).trap(),
}
"""The traps by what is written naively in them."""
