"""Kernels by the runtime's names for them: which carry products, and which run in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from qdqc.onnx_io.structure import all_nodes

__all__ = [
    "FOLDED",
    "INTEGER_KERNELS",
    "INTEGER_PRODUCTS",
    "PRODUCT_KERNELS",
    "Kernel",
    "integer_values",
    "kernel_of",
]

INTEGER_PRODUCTS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
    }
)
"""Kernels of onnxruntime that multiply integers."""

PRODUCT_KERNELS = INTEGER_PRODUCTS | {
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "FusedMatMulActivation",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "MatMulBnb4",
    "MatMulNBits",
    "NhwcFusedConv",
    "RNN",
    "TransposeMatMul",
}
"""Kernels of onnxruntime that stand for a product, or for a recurrent layer of several."""

INTEGER_KERNELS = INTEGER_PRODUCTS | {
    "QAttention",
    "QEmbedLayerNormalization",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearReduceMean",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
}

_CASTS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_INTEGER_TYPES = frozenset({TensorProto.UINT8, TensorProto.INT8})

_INT8_SUMS = 4
"""The accuracy level at which MatMulNBits rounds its activations and multiplies integers."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by the runtime's own name for it."""

    op: str
    integer: bool

    @property
    def is_cast(self) -> bool:
        return self.op in _CASTS


FOLDED = Kernel("", integer=False)
"""Stands for a product that is left no kernel: it was computed when the model was loaded, nobody
reads it, or it is the same as another one."""


def kernel_of(node: NodeProto, integers: set[str]) -> Kernel:
    """The kernel that a node of an optimised model is; ``integers`` are names of 8-bit tensors."""
    if node.op_type == "MatMulNBits":
        levels = [a.i for a in node.attribute if a.name == "accuracy_level"]
        return Kernel(node.op_type, levels == [_INT8_SUMS])
    if node.op_type in INTEGER_KERNELS | PRODUCT_KERNELS | _CASTS:
        return Kernel(node.op_type, node.op_type in INTEGER_KERNELS)
    return Kernel(node.op_type, bool(node.input) and node.input[0] in integers)


def integer_values(model: ModelProto) -> set[str]:
    """Names of 8-bit tensors of an optimised model, those of its nested graphs with them.

    The file states the types of few; an op whose result has the type of what it reads gives some.
    """
    graph = model.graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    integers = {v.name for v in typed if v.type.tensor_type.elem_type in _INTEGER_TYPES}
    zeros = {t.name: t.data_type for t in graph.initializer if not t.dims or list(t.dims) == [1]}
    for node in all_nodes(graph.node):
        if _makes_integers(node, integers, zeros):
            integers.update(o for o, same in zip(node.output, _alike(node), strict=False) if same)
    return integers


def _makes_integers(node: NodeProto, integers: set[str], zeros: Mapping[str, int]) -> bool:
    if node.op_type == "QuantizeLinear":
        kind = zeros.get(node.input[2]) if len(node.input) > 2 else TensorProto.UINT8
        return kind is None or kind in _INTEGER_TYPES
    if node.op_type == "QGemm":
        return len(node.input) > 8 and bool(node.input[8])
    if node.op_type in INTEGER_KERNELS:
        return node.op_type.startswith("QLinear")
    if node.op_type == "DynamicQuantizeLinear":
        return True
    return bool(node.input) and node.input[0] in integers


def _alike(node: NodeProto) -> list[bool]:
    """Of each result, whether it has 8 bits if the first operand has, or if the op makes them."""
    if node.op_type in INTEGER_KERNELS or node.op_type in _CASTS | {"DynamicQuantizeLinear"}:
        return [node.op_type != "DequantizeLinear"]
    try:
        schema = onnx.defs.get_schema(node.op_type, node.domain)
    except onnx.defs.SchemaError:
        return []
    first = schema.inputs[0].type_str if schema.inputs else ""
    alike = [formal.type_str == first and "(" not in first for formal in schema.outputs]
    return alike + alike[-1:] * (len(node.output) - len(alike))
