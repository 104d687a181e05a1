"""What each integer op of onnxruntime is between casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from qdqc.onnx_io.qoperator import FORMS, Form, Scaled, Writing, as_casts

__all__ = ["as_casts"]


def form(*types: str) -> Callable[[Form], Form]:
    """Enters how ops of these types are written out."""

    def register(write: Form) -> Form:
        FORMS.update(dict.fromkeys(types, write))
        return write

    return register


def _scaled(node: NodeProto, name: int, scale: int, zero: int) -> Scaled | None:
    """The tensor, scale and zero point at these places; None where there is no tensor or scale."""
    read = [*node.input, *[""] * (zero + 1 - len(node.input))]
    return Scaled(read[name], read[scale], read[zero]) if read[name] and read[scale] else None


def _result(node: NodeProto, scale: int, zero: int) -> Scaled | None:
    read = [*node.input, *[""] * (zero + 1 - len(node.input))]
    return Scaled(node.output[0], read[scale], read[zero]) if read[scale] else None


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _unary(w: Writing, node: NodeProto, type_: str, **attributes: Any) -> bool:
    """An op of x, its scale and zero point, and those of the result."""
    x, y = _scaled(node, 0, 1, 2), _result(node, 3, 4)
    view = None if x is None else w.view(x)
    if view is None or y is None:
        return False
    return w.store(node, w.op(node, type_, [view], **attributes), y, x)


@form("QLinearSigmoid")
def _sigmoid(w: Writing, node: NodeProto) -> bool:
    return _unary(w, node, "Sigmoid")


@form("QLinearLeakyRelu")
def _leaky_relu(w: Writing, node: NodeProto) -> bool:
    return _unary(w, node, "LeakyRelu", **_attributes(node))


@form("QLinearAveragePool", "QLinearGlobalAveragePool")
def _pool(w: Writing, node: NodeProto) -> bool:
    attributes = _attributes(node)
    if attributes.pop("channels_last", 0):
        return False
    return _unary(w, node, node.op_type.removeprefix("QLinear"), **attributes)


@form("QLinearSoftmax")
def _softmax(w: Writing, node: NodeProto) -> bool:
    """Its own attribute says of which opset it is: before 13 all later axes belong together."""
    attributes = _attributes(node)
    if (attributes.pop("opset", 0) >= 13) != (w.opset >= 13):
        return False
    return _unary(w, node, "Softmax", **attributes)


@form("QLinearReduceMean")
def _mean(w: Writing, node: NodeProto) -> bool:
    attributes = _attributes(node)
    axes = attributes.pop("axes", None)
    x, y = _scaled(node, 0, 1, 2), _result(node, 3, 4)
    view = None if x is None else w.view(x)
    if view is None or y is None:
        return False
    read = [view]
    if axes is not None and w.opset >= 18:
        read.append(w.constant(f"{node.output[0]}_axes", np.array(axes, np.int64)))
    elif axes is not None:
        attributes["axes"] = axes
    return w.store(node, w.op(node, "ReduceMean", read, **attributes), y, x)


@form("QLinearAdd", "QLinearMul", "QLinearWhere")
def _binary(w: Writing, node: NodeProto) -> bool:
    """An op of two scaled tensors; the condition of a Where stands before them as it is."""
    type_ = node.op_type.removeprefix("QLinear")
    first = 1 if type_ == "Where" else 0
    a, b = (_scaled(node, i, i + 1, i + 2) for i in (first, first + 3))
    y = _result(node, first + 6, first + 7)
    if a is None or b is None or y is None:
        return False
    views = [w.view(a), w.view(b)]
    if None in views:
        return False
    read = [*node.input[:first], *(v for v in views if v)]
    return w.store(node, w.op(node, type_, read), y, a)


@form("QLinearConcat")
def _concat(w: Writing, node: NodeProto) -> bool:
    y = _result(node, 0, 1)
    parts = [_scaled(node, i, i + 1, i + 2) for i in range(2, len(node.input), 3)]
    views = [None if part is None else w.view(part) for part in parts]
    if y is None or None in views:
        return False
    made = w.op(node, "Concat", [v for v in views if v], **_attributes(node))
    return w.store(node, made, y, parts[0])


@form("QLinearConv")
def _conv(w: Writing, node: NodeProto) -> bool:
    attributes = _attributes(node)
    x, weight, y = _scaled(node, 0, 1, 2), _scaled(node, 3, 4, 5), _result(node, 6, 7)
    if attributes.pop("channels_last", 0) or x is None or weight is None or y is None:
        return False
    read = [w.view(x), w.view(weight, 0)]
    if None in read:
        return False
    if len(node.input) > 8 and node.input[8]:
        read.append(_bias(w, node.input[8], x, weight))
        if read[-1] is None:
            return False
    made = w.op(node, "Conv", [v for v in read if v], **attributes)
    return w.store(node, made, y, x)


def _bias(w: Writing, name: str, x: Scaled, weight: Scaled, factor: float = 1.0) -> str | None:
    """The numbers of a bias, whose scale is that of the product."""
    scales = [w.array(x.scale), w.array(weight.scale)]
    array = w.array(name)
    if array is None or any(s is None or s.dtype != np.float32 for s in scales):
        return None
    product = np.float32(factor) * scales[0].reshape(-1)[0] * scales[1]  # type: ignore[union-attr]
    if product.size == 1:
        product = product.reshape(())
    elif array.ndim != 1:
        return None
    scale = w.constant(
        f"{name}_scale", np.asarray(product.reshape(-1) if product.ndim else product)
    )
    return w.view(Scaled(name, scale), 0)


def _columns(w: Writing, b: Scaled, axis: int) -> str | None:
    """The view of a product's second operand; scales per column want a constant matrix."""
    array, scale = w.array(b.name), w.array(b.scale)
    if scale is None:
        return None
    if scale.size > 1 and (array is None or array.ndim != 2 or scale.ndim != 1):
        return None
    return w.view(b, axis)


@form("QLinearMatMul")
def _matmul(w: Writing, node: NodeProto) -> bool:
    a, b, y = _scaled(node, 0, 1, 2), _scaled(node, 3, 4, 5), _result(node, 6, 7)
    if a is None or b is None or y is None:
        return False
    views = [w.view(a), _columns(w, b, 1)]
    if None in views:
        return False
    return w.store(node, w.op(node, "MatMul", [v for v in views if v]), y, a)


@form("QGemm")
def _gemm(w: Writing, node: NodeProto) -> bool:
    a, b, y = _scaled(node, 0, 1, 2), _scaled(node, 3, 4, 5), _result(node, 7, 8)
    if a is None or b is None:
        return False
    attributes = _attributes(node)
    read = [w.view(a), _columns(w, b, 0 if attributes.get("transB", 0) else 1)]
    if None in read:
        return False
    if len(node.input) > 6 and node.input[6]:
        read.append(_bias(w, node.input[6], a, b, attributes.get("alpha", 1.0)))
        if read[-1] is None:
            return False
    made = w.op(node, "Gemm", [v for v in read if v], **attributes)
    return w.give(node, made) if y is None else w.store(node, made, y, a)


@form("MatMulIntegerToFloat")
def _to_float(w: Writing, node: NodeProto) -> bool:
    """With scales that the run finds, it is what ``quantize_dynamic`` writes."""
    read = [*node.input, *[""] * (7 - len(node.input))]
    a, b, bias = Scaled(read[0], read[2], read[4]), Scaled(read[1], read[3], read[5]), read[6]
    views = [w.view(a), _columns(w, b, 1)]
    if None in views:
        return _dynamic(w, node, a, b, bias)
    made = w.op(node, "MatMul", [v for v in views if v])
    return w.give(node, w.op(node, "Add", [made, bias]) if bias else made)


@form("DynamicQuantizeMatMul")
def _dynamic_matmul(w: Writing, node: NodeProto) -> bool:
    read = [*node.input, *[""] * (5 - len(node.input))]
    names = [w.fresh(f"{read[0]}_{part}") for part in ("q", "scale", "zero_point")]
    w.out.append(helper.make_node("DynamicQuantizeLinear", read[:1], names, node.name))
    return _dynamic(w, node, Scaled(*names), Scaled(read[1], read[2], read[3]), read[4])


def _dynamic(w: Writing, node: NodeProto, a: Scaled, b: Scaled, bias: str) -> bool:
    sums = w.op(node, "MatMulInteger", [a.name, b.name, a.zero, b.zero])
    numbers = w.op(node, "Cast", [sums], to=1)
    scale = w.op(node, "Mul", [a.scale, b.scale])
    made = w.op(node, "Mul", [numbers, scale])
    return w.give(node, w.op(node, "Add", [made, bias]) if bias else made)
