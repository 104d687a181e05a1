"""QuantizeLinear and DequantizeLinear: their parameters move into the types of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from qdqc.ir.core import Constant, Value
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.attributes import read_attributes
from qdqc.onnx_io.scope import Scope
from qdqc.onnx_io.tensors import TensorReader
from qdqc.ops.onnx_table import elem_of_code
from qdqc.ops.quant import Dequantize, Quantize, Restate

__all__ = ["read_quantized"]

_KNOWN = {"axis", "block_size", "saturate", "output_dtype", "precision"}


@dataclass(frozen=True)
class _Parameters:
    """``elem`` is None where a DequantizeLinear without zero point leaves it to its operand."""

    quant: Quant
    elem: Elem | None


def read_quantized(
    node: NodeProto, operands: Sequence[Value | None], scope: Scope, reader: TensorReader
) -> tuple[Op, list[Value | None], TensorType] | None:
    """The typed form of a node with constant parameters: op, operands and the result's type.

    None where the types can't say it: parameters that are computed, scales that are not
    float32, an integer value that something besides a DequantizeLinear reads. An Identity lets
    its readers take the integers under another scale.
    """
    if node.op_type == "Identity" and len(operands) == 1:
        return _restated(node, operands[0], scope, reader)
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(operands) < 2:
        return None
    x = operands[0]
    if x is None or x.elem is None:
        return None
    rank = x.tensor.rank
    parameters = _parameters(node, rank, scope, reader)
    if parameters is None:
        return None
    if node.op_type == "QuantizeLinear":
        elem = parameters.elem or Elem.U8
        if x.elem is not Elem.F32 or x.quant is not None:
            return None
        if not _only_dequantized(node.output[0], parameters, rank, scope, reader):
            return None
        return Quantize(), [x], TensorType(elem, x.shape, parameters.quant)
    source = _quantized_source(node, x, parameters, scope, reader)
    return None if source is None else (Dequantize(), [source], TensorType(Elem.F32, x.shape))


def _restated(
    node: NodeProto, x: Value | None, scope: Scope, reader: TensorReader
) -> tuple[Op, list[Value | None], TensorType] | None:
    """An Identity of quantized integers whose readers agree on a scale."""
    if x is None or x.quant is None:
        return None
    name, rank = node.output[0], x.tensor.rank
    parameters = [_parameters(n, rank, scope, reader) for n in scope.readers.get(name, ())]
    wanted = parameters[0] if parameters else None
    if wanted is None or not _only_dequantized(name, wanted, rank, scope, reader):
        return None
    return Restate(), [x], x.tensor.with_quant(x.tensor.elem, wanted.quant)


def _parameters(
    node: NodeProto, rank: int | None, scope: Scope, reader: TensorReader
) -> _Parameters | None:
    """Scale, zero point, axis and integer type of a node, if they are known and usual."""
    attrs = read_attributes(node, reader)
    if not attrs.keys() <= _KNOWN or attrs.get("saturate", 1) != 1 or attrs.get("precision", 0):
        return None
    if not all(isinstance(value, int) for value in attrs.values()):
        return None
    target = attrs.get("output_dtype", 0)
    scale = _constant(node, 1, scope)
    zero = _constant(node, 2, scope)
    has_zero = len(node.input) > 2 and bool(node.input[2])
    if scale is None or scale.data.elem is not Elem.F32 or (has_zero and zero is None):
        return None
    elem = None if zero is None else zero.data.elem
    if node.op_type == "QuantizeLinear":
        elem = elem or (elem_of_code(target) if target else Elem.U8)
    elif target not in (0, 1):
        return None
    scales = scale.data.array()
    zeros = np.zeros(scales.shape, np.int64) if zero is None else _whole(zero)
    if zeros is None or zeros.size not in (1, scales.size):
        return None
    zeros = zeros.reshape(()) if zeros.size == 1 else zeros
    if zeros.shape not in ((), scales.shape):
        return None
    if scales.size == 1 and not attrs.get("block_size", 0):
        return _Parameters(Quant.make(scales.reshape(()), zeros), elem)
    axis = attrs.get("axis", 1)
    if rank is None or not -rank <= axis < rank:
        return None
    block = attrs.get("block_size", 0) or None
    if scales.ndim != (1 if block is None else rank):
        return None
    return _Parameters(Quant.make(scales, zeros, axis % rank, block), elem)


def _whole(zero: Constant) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    """Zero points as integers; 8-bit floats only have 0."""
    array = zero.data.array()
    whole = array.astype(np.float64).astype(np.int64)
    return whole if zero.data.elem.is_integer or not whole.any() else None


def _constant(node: NodeProto, index: int, scope: Scope) -> Constant | None:
    if index >= len(node.input) or not node.input[index]:
        return None
    try:
        value = scope[node.input[index]]
    except KeyError:
        return None
    return value if isinstance(value, Constant) and not value.data.is_elided else None


def _only_dequantized(
    name: str, wanted: _Parameters, rank: int | None, scope: Scope, reader: TensorReader
) -> bool:
    """Whether all readers of a value are DequantizeLinear with these parameters.

    An Identity may lead to others that agree on parameters of their own.
    """
    for node in scope.readers.get(name, ()):
        if node.op_type == "Identity":
            inner = scope.readers.get(node.output[0], ())
            own = _parameters(inner[0], rank, scope, reader) if inner else None
            if own is None or not _only_dequantized(node.output[0], own, rank, scope, reader):
                return False
            continue
        if node.op_type != "DequantizeLinear" or list(node.input).index(name) != 0:
            return False
        if name in list(node.input)[1:]:
            return False
        parameters = _parameters(node, rank, scope, reader)
        if parameters is None or parameters.quant != wanted.quant:
            return False
        if wanted.elem is not None and parameters.elem not in (None, wanted.elem):
            return False
    return True


def _quantized_source(
    node: NodeProto, x: Value, parameters: _Parameters, scope: Scope, reader: TensorReader
) -> Value | None:
    """The operand with its scale in its type; None where it can't have it."""
    before = x.tensor
    if before.quant is not None and before.quant == parameters.quant:
        return x
    if parameters.elem not in (None, before.elem):
        return None
    typed = before.with_quant(before.elem, parameters.quant)
    shared = not _only_dequantized(node.input[0], parameters, before.rank, scope, reader)
    if isinstance(x, Constant):
        if not shared and not x.is_used:
            x.type = typed
            return x
        twin = next((c for c in _twins(x) if c.type == typed), None)
        name = x.module.fresh_name(x.name)
        return twin or x.module.add_constant(name, x.data, typed)
    if not x.is_input or shared or before.quant is not None or scope.path:
        return None
    if node.input[0] in scope.outputs:
        return None
    x.type = typed
    return x


def _twins(x: Constant) -> list[Constant]:
    """Constants that were made of the same contents for other readers."""
    return [c for c in x.module.constants.values() if c.data is x.data]
