"""What the ops tell quantization, and how old ONNX spellings of some of them are read."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

import qdqc.ops as o
from qdqc.ir.op import Kind, Op, QuantTraits
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.importer import import_onnx


def f32(*shape: int) -> TensorType:
    return TensorType(Elem.F32, shape)


@pytest.mark.parametrize(
    ("op", "operands", "wanted"),
    [
        (o.Conv(), (f32(1, 2, 4, 4), f32(3, 2, 1, 1)), (Kind.WEIGHTED, 0)),
        (o.ConvTranspose(), (f32(1, 2, 4, 4), f32(2, 3, 1, 1)), (Kind.WEIGHTED, 1)),
        (o.Gemm(), (f32(1, 2), f32(2, 3)), (Kind.WEIGHTED, 1)),
        (o.Gemm(trans_b=True), (f32(1, 2), f32(3, 2)), (Kind.WEIGHTED, 0)),
        (o.MatMul(), (f32(4, 1, 2), f32(2, 3)), (Kind.WEIGHTED, 1)),
        (o.MatMul(), (f32(4, 1, 2), f32(4, 2, 3)), (Kind.PRODUCT, None)),
        (o.Add(), (f32(2), f32(2)), (Kind.ARITHMETIC, None)),
        (o.Concat(axis=0), (f32(2), f32(2)), (Kind.ARITHMETIC, None)),
        (o.GlobalAveragePool(), (f32(1, 2, 4, 4),), (Kind.ARITHMETIC, None)),
        (o.MaxPool(kernel_shape=(2, 2)), (f32(1, 2, 4, 4),), (Kind.PRESERVING, None)),
        (o.Reshape(), (f32(2), TensorType(Elem.I64, (1,))), (Kind.PRESERVING, None)),
        (o.Gather(), (f32(9, 2), TensorType(Elem.I64, (1,))), (Kind.PRESERVING, None)),
        (o.Resize(), (f32(1, 2, 4, 4),), (Kind.PRESERVING, None)),
        (o.Resize(mode="linear"), (f32(1, 2, 4, 4),), (Kind.FLOAT, None)),
        (o.LayerNormalization(), (f32(2, 3), f32(3)), (Kind.FLOAT, None)),
        (o.Erf(), (f32(2),), (Kind.FLOAT, None)),
    ],
)
def test_kinds(op: Op, operands: tuple[TensorType, ...], wanted: tuple[Kind, int | None]):
    found = op.quant(*operands)
    assert (found.kind, found.axis) == wanted
    narrow = [TensorType(Elem.F16, t.shape) if t.elem is Elem.F32 else t for t in operands]
    assert op.quant(*narrow) == QuantTraits()


def test_bounded_results():
    assert o.Softmax().quant(f32(2)).fixed == (0, 1)
    assert o.Sigmoid().quant(f32(2)).fixed == (0, 1)
    assert o.Tanh().quant(f32(2)).fixed == (-1, 1)
    assert o.Relu().quant(f32(2)).fixed is None


def test_quantized_operands_stand_for_float():
    held = TensorType(Elem.U8, (1, 2, 4, 4), Quant.make(0.5, 128))
    (found,) = o.MaxPool(kernel_shape=(2, 2)).infer(held.expressed())[:1]
    assert found == f32(1, 2, 3, 3)


def read(type: str, opset: int, shapes: list[tuple[int, ...]], **attributes: Any) -> Op:
    """The op that a node of an old opset is read as."""
    names = [f"x{i}" for i in range(len(shapes))]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
    ]
    node = helper.make_node(type, names, ["y"], **attributes)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph([node], "g", inputs, [out])
    (found,) = import_onnx(helper.make_model(graph, opset_imports=opsets)).graph.nodes()
    return found.op


X = (1, 4, 3, 3)


def test_group_normalization_by_group_is_left_alone():
    assert read("GroupNormalization", 18, [X, (2,), (2,)], num_groups=2).name == "onnx"
    found = read("GroupNormalization", 21, [X, (4,), (4,)], num_groups=2)
    assert found == o.GroupNormalization(num_groups=2)


def test_modes_of_grid_sample():
    assert read("GridSample", 16, [X, (1, 2, 2, 2)]) == o.GridSample()
    assert read("GridSample", 16, [X, (1, 2, 2, 2)], mode="bicubic") == o.GridSample(mode="cubic")
    assert read("GridSample", 20, [X, (1, 2, 2, 2)], mode="cubic") == o.GridSample(mode="cubic")


def test_batch_normalization_as_torch_writes_it():
    found = read("BatchNormalization", 15, [X, *[(4,)] * 4], training_mode=0, momentum=0.5)
    assert found == o.BatchNormalization()


def test_splits_are_counted_by_their_results():
    assert read("Split", 13, [(4, 2)], axis=1) == o.Split(axis=1, num_outputs=1)
