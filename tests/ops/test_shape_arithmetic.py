"""Sizes that exporters compute from shapes are known after one sweep."""

from __future__ import annotations

import numpy as np
import pytest

import qdqc.ops as o
from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType

N, S, H = symbol("N"), symbol("S"), symbol("H")


class Builder:
    """Inserts nodes one after the other; each is inferred as it is inserted."""

    def __init__(self, *shape: object) -> None:
        self.module = Module()
        self.x = self.module.graph.add_input("x", TensorType(Elem.F32, shape))

    def __call__(self, op: Op, *operands: Value | int | list[int] | None) -> Value:
        made = [self.constant(v) if isinstance(v, int | list) else v for v in operands]
        return self.module.graph.insert(op, made).result

    def constant(self, content: object, dtype: type = np.int64) -> Value:
        data = Data.of(np.array(content, dtype=dtype))
        return self.module.add_constant(self.module.fresh_name("c"), data)


def shape(value: Value) -> str:
    return str([str(d) for d in value.tensor.shape]).replace("'", "")


def test_heads_of_attention():
    b = Builder(N, S, 384)
    sizes = b(o.Shape(), b.x)
    batch = b(o.Unsqueeze(axes=(0,)), b(o.Gather(), sizes, 0))
    length = b(o.Unsqueeze(axes=(0,)), b(o.Gather(), sizes, 1))
    target = b(o.Concat(axis=0), batch, length, [12], [32])
    assert target.tensor.value == (N, S, 12, 32)
    heads = b(o.Transpose(perm=(0, 2, 1, 3)), b(o.Reshape(), b.x, target))
    assert shape(heads) == "[N, 12, S, 32]"
    back = b(o.Concat(axis=0), batch, length, b(o.Mul(), [12], [32]))
    assert shape(b(o.Reshape(), b(o.Transpose(perm=(0, 2, 1, 3)), heads), back)) == "[N, S, 384]"


def test_expand_of_a_mask():
    """torch's expand: -1 keeps a size, spelt as Where(Equal(shape, -1), ones, shape)."""
    b = Builder(N, S)
    length = b(o.Shape(start=1), b.x)
    wanted = b(o.Concat(axis=0), b(o.Shape(end=1), b.x), [1], length, [-1])
    ones = b(o.ConstantOfShape(value=Data.of(np.array([1]))), b(o.Shape(), wanted))
    chosen = b(o.Where(), b(o.Equal(), wanted, [-1]), ones, wanted)
    assert chosen.tensor.value == (N, 1, S, 1)
    mask = b(o.Unsqueeze(axes=(1, 2)), b.x)
    assert shape(b(o.Expand(), mask, chosen)) == "[N, 1, S, S]"


def test_positions_by_range():
    b = Builder(N, S)
    length = b(o.Squeeze(axes=(0,)), b(o.Slice(), b(o.Shape(), b.x), [1], [2], [0]))
    assert length.tensor.value == (S,)
    assert length.tensor.shape == ()
    assert shape(b(o.Range(), 0, length, 1)) == "[S]"
    assert shape(b(o.Range(), 0, length, 2)) == "[(S+1)//2]"
    table = b.constant(np.zeros((512, 4)), np.float32)
    end = b(o.Unsqueeze(axes=(0,)), b(o.Cast(to="i64"), b(o.Cast(to="i32"), length)))
    assert shape(b(o.Slice(), table, [0], end, [0])) == "[S, 4]"


def test_flattening_by_product():
    b = Builder(N, S, 8)
    count = b(o.ReduceProd(), b(o.Slice(), b(o.Shape(), b.x), [0], [-1]))
    target = b(o.Concat(axis=0), count, [-1])
    assert target.tensor.value == (N * S, -1)
    assert shape(b(o.Reshape(), b.x, target)) == "[N*S, 8]"
    halves = b(o.Div(), b(o.Size(), b.x), 4)
    assert halves.tensor.value == (N * S * 2,)


def test_padding_to_even_and_halving():
    b = Builder(1, 3, H, 8)
    padded = b(o.Pad(), b.x, [0, 0, 1, 0, 0, 0, 1, 0])
    assert shape(padded) == "[1, 3, H+2, 8]"
    pooled = b(o.MaxPool(kernel_shape=(2, 2), strides=(2, 2)), padded)
    assert shape(pooled) == "[1, 3, (H//2)+1, 4]"


def test_pads_of_torch():
    """torch lists pads from the last axis on; its export turns the list around as a matrix."""
    b = Builder(N, 3, H, 8)
    zeros = b(o.ConstantOfShape(value=Data.of(np.array([0]))), [4])
    pairs = b(o.Reshape(), b(o.Concat(axis=0), [1, 2, 3, 4], zeros), [-1, 2])
    turned = b(o.Slice(), pairs, [-1], [-(2**63) + 1], [0], [-1])
    pads = b(o.Cast(to="i64"), b(o.Reshape(), b(o.Transpose(perm=(1, 0)), turned), [-1]))
    assert pads.tensor.value == (0, 0, 3, 1, 0, 0, 4, 2)
    assert shape(b(o.Pad(), b.x, pads)) == "[N, 3, H+7, 11]"


@pytest.mark.parametrize(
    ("scales", "wanted"),
    [
        ([1, 1, 2, 2], "[1, 3, 2*H, 16]"),
        ([1, 1, 0.5, 0.5], "[1, 3, H//2, 4]"),
        ([1, 1, 1.5, 0.7], "[1, 3, None, 5]"),
    ],
)
def test_resize_by_scales(scales: list[float], wanted: str):
    b = Builder(1, 3, H, 8)
    assert shape(b(o.Resize(), b.x, None, b.constant(scales, np.float32))) == wanted


def test_resize_to_the_size_of_another():
    b = Builder(N, 3, H, 8)
    target = b(o.Concat(axis=0), b(o.Shape(end=2), b.x), b(o.Mul(), b(o.Shape(start=2), b.x), [2]))
    assert shape(b(o.Resize(), b.x, None, None, target)) == "[N, 3, 2*H, 16]"


def test_comparisons_of_symbols():
    b = Builder(N, S)
    sizes = b(o.Shape(), b.x)
    assert b(o.Equal(), sizes, [0]).tensor.value == (0, 0)
    assert b(o.Equal(), sizes, [5]).tensor.value == (None, None)
    assert b(o.Less(), [0], sizes).tensor.value == (1, 1)
    assert b(o.Not(), b(o.Greater(), sizes, [0])).tensor.value == (0, 0)
    assert b(o.Max(), sizes, [1]).tensor.value == (N, S)
    assert b(o.Min(), sizes, b(o.Add(), sizes, [2])).tensor.value == (N, S)


def test_optional_results_are_left_out():
    b = Builder(1, 3, 8, 8)
    node = b.module.graph.insert(o.MaxPool(kernel_shape=(2, 2)), [b.x])
    assert len(node.present_results) == 1
    node = b.module.graph.insert(o.MaxPool(kernel_shape=(2, 2)), [b.x], names=("y", "at"))
    assert [r.name for r in node.present_results] == ["y", "at"]


def test_sizes_beyond_memory_cost_nothing():
    b = Builder(1)
    huge = 2**62
    one = b(o.Shape(), b.x)
    assert shape(b(o.Expand(), one, [huge])) == f"[{huge}]"
    assert shape(b(o.Tile(), one, [huge])) == f"[{huge}]"
    assert shape(b(o.ConstantOfShape(), [huge, huge])) == f"[{huge}, {huge}]"
    numbers = b(o.Range(), -(2**63), 2**63 - 1, 1)
    assert shape(numbers) == f"[{2**64 - 1}]"
    assert shape(b(o.Slice(), numbers, [0], [-1])) == f"[{2**64 - 2}]"


F = TensorType(Elem.F32, (2, 3))
I64 = TensorType(Elem.I64, (2,))
ROW = TensorType(Elem.F32, (1, 1, 4))


@pytest.mark.parametrize(
    ("op", "operands", "words"),
    [
        (o.Add(), (F, TensorType(Elem.F32, (4,))), "dimensions 3 and 4 do not broadcast"),
        (o.Add(), (F, TensorType(Elem.F16, (3,))), "a is f32, b is f16"),
        (o.Max(), (), "at least one operand"),
        (o.MatMul(), (F, F), "a has 3 columns, but b has 2 rows"),
        (o.MatMul(), (TensorType(Elem.F32, ()), F), "rank 1 or more"),
        (
            o.Gemm(trans_b=True),
            (F, TensorType(Elem.F32, (4, 2))),
            "3 columns, but b .transposed. has 2 rows",
        ),
        (o.Concat(axis=0), (F, TensorType(Elem.F32, (2, 4))), "differ along axis 1"),
        (o.Concat(axis=2), (F,), "axis 2 is out of range for rank 2"),
        (o.Transpose(perm=(0, 0)), (F,), "does not order the axes"),
        (o.Squeeze(axes=(0,)), (F,), "axis 0 has size 2, not 1"),
        (o.Unsqueeze(axes=(0, -4)), (F,), "names an axis twice"),
        (o.Split(), (F,), "neither the sizes nor the number"),
        (o.Split(axis=1, split=(1, 1)), (F,), "does not add up to 3"),
        (o.Cast(to="f31"), (F,), "'f31' is not an element type"),
        (o.Where(), (F, F, F), "condition is f32, but bool is needed"),
        (o.Reshape(), (F, TensorType(Elem.I32, (2,))), "shape is i32, but i64 is needed"),
        (o.Gather(), (F, F), "indices is f32"),
        (o.Gather(), (F, TensorType(Elem.I64, (1,), value=(2,))), "index 2 is out of range"),
        (o.GlobalAveragePool(), (TensorType(Elem.F32, (2,)),), "rank 2 or more"),
        (
            o.AveragePool(kernel_shape=(2,), strides=(0,)),
            (TensorType(Elem.F32, (1, 1, 4)),),
            "1 or",
        ),
        (o.MaxPool(kernel_shape=(5,)), (TensorType(Elem.F32, (1, 1, 4)),), "does not fit"),
        (o.BatchNormalization(), (F, I64, I64, I64, I64), "has 2 entries, but x has 3 channels"),
        (o.DepthToSpace(blocksize=2), (TensorType(Elem.F32, (1, 3, 2, 2)),), "not a multiple of 4"),
        (o.Einsum(equation="ij,jk"), (F,), "names 2 operands, not 1"),
        (o.Einsum(equation="ijk->i"), (F,), "does not fit rank 2"),
        (o.Resize(), (F,), "neither scales nor sizes"),
        (o.TopK(), (F, TensorType(Elem.I64, (1,), value=(4,))), "k is 4, but axis 1 has 3"),
        (o.LSTM(hidden_size=5), (TensorType(Elem.F32, (7, 1, 3)), *(F,) * 2), "w has rank 2"),
        (o.Pad(), (F, TensorType(Elem.I64, (2,), value=(0, 1))), "pads has 2 entries for 2 axes"),
        (o.Tile(), (F, TensorType(Elem.I64, (1,), value=(2,))), "repeats has 1 entries"),
        (o.Tile(), (F, TensorType(Elem.I64, (2,), value=(2, -1))), "a negative number"),
        (o.Expand(), (F, TensorType(Elem.I64, (1,), value=(-1,))), "a negative number"),
        (o.Split(num_outputs=2**40), (F,), "more than the 65536"),
    ],
)
def test_operands_that_do_not_fit_are_named(op: Op, operands: tuple[TensorType], words: str):
    with pytest.raises(ValueError, match=words):
        op.infer(*operands)
