"""How quantization sees every op, written out: a change of an op's facts is a change here."""

from __future__ import annotations

import pytest

import qdqc.ops as o
from qdqc.ir.op import OPS, Kind, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType

W, A, P, X = Kind.WEIGHTED, Kind.ARITHMETIC, Kind.PRESERVING, Kind.PRODUCT

I64 = TensorType(Elem.I64, (1,))
BOOL = TensorType(Elem.BOOL, (1,))


def f32(*shape: int) -> TensorType:
    return TensorType(Elem.F32, shape)


IMAGE, ROW = f32(1, 4, 6, 6), f32(4)

TABLE: list[tuple[Op, tuple[TensorType, ...], QuantTraits]] = [
    # op, operands, (kind, weight, bias, axis, fixed)
    (o.Conv(), (IMAGE, f32(8, 4, 1, 1), f32(8)), QuantTraits(W, 1, 2, 0)),
    (o.Conv(group=4), (IMAGE, f32(4, 1, 3, 3)), QuantTraits(W, 1, 2, 0)),
    (o.ConvTranspose(), (IMAGE, f32(4, 8, 1, 1), f32(8)), QuantTraits(W, 1, 2, 1)),
    (o.Gemm(), (f32(2, 3), f32(3, 4), ROW), QuantTraits(W, 1, 2, 1)),
    (o.Gemm(trans_a=True), (f32(3, 2), f32(3, 4), ROW), QuantTraits(W, 1, 2, 1)),
    (o.Gemm(trans_b=True), (f32(2, 3), f32(4, 3), ROW), QuantTraits(W, 1, 2, 0)),
    (o.MatMul(), (f32(2, 3), f32(3, 4)), QuantTraits(W, 1, None, 1, float_bias=2)),
    (o.MatMul(), (f32(5, 2, 3), f32(3, 4)), QuantTraits(W, 1, None, 1, float_bias=2)),
    (o.MatMul(), (f32(5, 2, 3), f32(5, 3, 4)), QuantTraits(X, float_bias=2)),
    (o.MatMul(), (f32(2, 3), f32(3)), QuantTraits(X, float_bias=2)),
    (o.Einsum(equation="ij,jk"), (f32(2, 3), f32(3, 4)), QuantTraits(X)),
    (o.Add(), (ROW, ROW), QuantTraits(A)),
    (o.Sub(), (ROW, ROW), QuantTraits(A)),
    (o.Mul(), (ROW, ROW), QuantTraits(A)),
    (o.Div(), (ROW, ROW), QuantTraits(A)),
    (o.Where(), (BOOL, ROW, ROW), QuantTraits(A)),
    (o.Concat(axis=0), (ROW, ROW), QuantTraits(A)),
    (o.Relu(), (ROW,), QuantTraits(A)),
    (o.Clip(max=6.0), (ROW,), QuantTraits(A)),
    (o.LeakyRelu(), (ROW,), QuantTraits(A)),
    (o.Sigmoid(), (ROW,), QuantTraits(A, fixed=(0.0, 1.0))),
    (o.HardSigmoid(), (ROW,), QuantTraits(A, fixed=(0.0, 1.0))),
    (o.Softmax(), (ROW,), QuantTraits(A, fixed=(0.0, 1.0))),
    (o.AveragePool(kernel_shape=(2, 2)), (IMAGE,), QuantTraits(A)),
    (o.GlobalAveragePool(), (IMAGE,), QuantTraits(A)),
    (o.MaxPool(kernel_shape=(2, 2)), (IMAGE,), QuantTraits(P)),
    (o.Identity(), (ROW,), QuantTraits(P)),
    (o.Reshape(), (ROW, I64), QuantTraits(P)),
    (o.Flatten(), (IMAGE,), QuantTraits(P)),
    (o.Transpose(), (IMAGE,), QuantTraits(P)),
    (o.Squeeze(), (ROW,), QuantTraits(P)),
    (o.Unsqueeze(axes=(0,)), (ROW,), QuantTraits(P)),
    (o.Expand(), (ROW, I64), QuantTraits(P)),
    (o.Tile(), (ROW, I64), QuantTraits(P)),
    (o.DepthToSpace(blocksize=2), (IMAGE,), QuantTraits(P)),
    (o.Slice(), (ROW, I64, I64), QuantTraits(P)),
    (o.Split(num_outputs=2), (ROW,), QuantTraits(P)),
    (o.Gather(), (ROW, I64), QuantTraits(P)),
    (o.ReduceMax(), (ROW,), QuantTraits(P)),
    (o.Resize(), (IMAGE,), QuantTraits(P)),
    (o.RNN(), (f32(3, 2, 4), f32(1, 5, 4), f32(1, 5, 5)), QuantTraits(stored=(1, 2))),
    (o.GRU(), (f32(3, 2, 4), f32(1, 15, 4), f32(1, 15, 5)), QuantTraits(stored=(1, 2))),
    (o.LSTM(), (f32(3, 2, 4), f32(1, 20, 4), f32(1, 20, 5)), QuantTraits(stored=(1, 2))),
]

FLOAT_WITH_BOUNDS: dict[str, tuple[float, float]] = {
    "cos": (-1.0, 1.0),
    "erf": (-1.0, 1.0),
    "hardmax": (0.0, 1.0),
    "sin": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "tanh": (-1.0, 1.0),
}
"""Ops that stay float, but whose results have a range that no calibration needs to find."""

ARGUMENTS: dict[str, dict[str, object]] = {
    "bit_cast": {"to": "i32"},
    "bit_shift": {"direction": "LEFT"},
    "cast": {"to": "f16"},
    "group_normalization": {"num_groups": 2},
    "linear_attention": {"q_num_heads": 2, "kv_num_heads": 2},
    "lp_pool": {"kernel_shape": (2, 2)},
    "lrn": {"size": 3},
    "max_unpool": {"kernel_shape": (2, 2)},
    "onnx": {"type": "Foo"},
    "random_normal": {"shape": (2,)},
    "random_uniform": {"shape": (2,)},
    "scan": {"num_scan_inputs": 1},
    "space_to_depth": {"blocksize": 2},
}
"""Fields that have no default, of ops that are not in the table."""

INTEGERS = [
    (op, tuple(TensorType(Elem.I64, t.shape) if t.elem is Elem.F32 else t for t in operands))
    for op, operands, _ in TABLE
]


@pytest.mark.parametrize(("op", "operands", "wanted"), TABLE, ids=lambda v: getattr(v, "name", ""))
def test_the_table(op: Op, operands: tuple[TensorType, ...], wanted: QuantTraits):
    assert op.quant(*operands) == wanted
    op.infer(*operands) if op.name not in ("resize", "split", "expand", "reshape") else None


def test_every_other_op_stays_float():
    tabled = {op.name for op, _, _ in TABLE}
    for name in sorted(set(OPS.names()) - tabled):
        cls = OPS.get(name)
        assert cls is not None
        op = cls(**ARGUMENTS.get(name, {}))
        count = sum(1 for spec in cls.operand_specs if not spec.optional)
        found = op.quant(*(f32(2, 2) for _ in range(count)))
        assert found == QuantTraits(fixed=FLOAT_WITH_BOUNDS.get(name)), name


@pytest.mark.parametrize(("op", "operands"), INTEGERS, ids=lambda v: getattr(v, "name", ""))
def test_other_element_types_are_never_quantized(op: Op, operands: tuple[TensorType, ...]):
    assert op.quant(*operands) == QuantTraits()


@pytest.mark.parametrize(("op", "operands", "wanted"), TABLE, ids=lambda v: getattr(v, "name", ""))
def test_unknown_shapes_change_no_kind(
    op: Op, operands: tuple[TensorType, ...], wanted: QuantTraits
):
    """Only a product needs the rank of its second operand, to know a weight."""
    found = op.quant(*(TensorType(t.elem) for t in operands))
    if op.name == "matmul":
        assert found == QuantTraits(Kind.PRODUCT, float_bias=2)
    else:
        assert found == wanted


def test_modes_of_resize():
    assert o.Resize(mode="linear").quant(IMAGE) == QuantTraits()
    assert o.Resize(mode="cubic").quant(IMAGE) == QuantTraits()


def test_einsum_of_one_or_three_stays_float():
    assert o.Einsum(equation="ij->ji").quant(f32(2, 2)) == QuantTraits()
    assert o.Einsum(equation="i,j,k").quant(ROW, ROW, ROW) == QuantTraits()
