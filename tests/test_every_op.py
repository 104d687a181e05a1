"""Facts of every op against onnx's own inference and against what onnxruntime computes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.defs import onnx_opset_version

import qdqc.ops as o
from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.merge import compatible
from qdqc.ir.op import OPS, Kind, Op
from qdqc.ir.types import Elem, TensorType

ELSEWHERE = {"quantize", "dequantize", "restate", "onnx", "if", "loop", "scan"}
"""Ops with types or graphs of their own have tests of their own."""

MODELS_OPSET = 21


@dataclasses.dataclass(frozen=True)
class Sample:
    """An op on operands: a type is fed, an array is a constant, None is absent.

    ``loose`` samples have sizes that depend on the data. ``runs`` is False where onnxruntime
    has no kernel for the element types.
    """

    op: Op
    operands: tuple[str | np.ndarray | None, ...]
    loose: bool = False
    runs: bool = True

    def __str__(self) -> str:
        return f"{self.op.name}-{'-'.join(x for x in self.operands if isinstance(x, str))}"


def s(op: Op, *operands: str | np.ndarray | None, loose: bool = False, runs: bool = True) -> Sample:
    return Sample(op, operands, loose, runs)


def i64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float, dtype: type = np.int64) -> np.ndarray:
    return np.array(value, dtype=dtype)


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


ONES = np.ones(4, dtype=np.float32)
ROWS = np.array([[0, 1], [1, 2]], dtype=np.int64)
INDICES = np.arange(12, dtype=np.int64).reshape(1, 2, 2, 3)
X4 = "f32[2,4,6,8]"
X23 = "f32[2,3]"

UNARY = (
    *(o.Relu(), o.LeakyRelu(alpha=0.1), o.Sigmoid(), o.HardSigmoid(alpha=0.5), o.HardSwish()),
    *(o.Swish(), o.Tanh(), o.Gelu(), o.Gelu(approximate="tanh"), o.Elu(), o.Selu(), o.Celu()),
    *(o.Softplus(), o.Softsign(), o.Mish(), o.ThresholdedRelu(alpha=0.2), o.Shrink(bias=0.1)),
    *(o.Clip(), o.Clip(min=0.0, max=6.0), o.Clip(max=1.0), o.Softmax(), o.Softmax(axis=0)),
    *(o.LogSoftmax(axis=1), o.Hardmax(), o.Abs(), o.Neg(), o.Sign(), o.Exp(), o.Log(), o.Sqrt()),
    *(o.Reciprocal(), o.Erf(), o.Floor(), o.Ceil(), o.Round(), o.Sin(), o.Cos(), o.Tan()),
    *(o.Asin(), o.Acos(), o.Atan(), o.Sinh(), o.Cosh(), o.Asinh(), o.Acosh(), o.Atanh()),
    *(o.IsNaN(), o.IsInf(), o.IsInf(detect_positive=False), o.Identity(), o.LpNormalization(p=1)),
    *(o.Transpose(), o.Transpose(perm=(1, 0)), o.Shape(), o.Shape(start=-1), o.Size()),
    *(o.EyeLike(k=1), o.EyeLike(dtype="i64"), o.RandomNormalLike(seed=1.0), o.Bernoulli()),
    *(o.RandomUniformLike(high=2.0), o.Multinomial(sample_size=5), o.Flatten(), o.Flatten(axis=0)),
    *(o.Cast(to="i64"), o.Cast(to="f16"), o.Cast(to="bool"), o.NonZero(), o.Trilu(upper=False)),
    *(o.ArgMax(), o.ArgMin(axis=-1, keepdims=False), o.ArgMax(select_last_index=True)),
)
REDUCTIONS = (o.ReduceMean, o.ReduceSum, o.ReduceMax, o.ReduceMin, o.ReduceProd, o.ReduceL1)
REDUCTIONS = (*REDUCTIONS, o.ReduceL2, o.ReduceLogSum, o.ReduceLogSumExp, o.ReduceSumSquare)
COMPARISONS = (o.Equal(), o.Greater(), o.Less(), o.GreaterOrEqual(), o.LessOrEqual())
ARITHMETIC = (o.Add(), o.Sub(), o.Mul(), o.Div(), o.Pow(), o.Min(), o.Max(), o.Sum(), o.Mean())


def _recurrent(cls: type[Op], gates: int) -> list[Sample]:
    """One direction and two, with and without the initial state and the batch in front."""
    out: list[Sample] = []
    for direction, count in (("forward", 1), ("bidirectional", 2)):
        w, r, b = (f"f32[{count},{gates * 5},{n}]" for n in (4, 5, 0))
        b = f"f32[{count},{2 * gates * 5}]"
        op = cls(hidden_size=5, direction=direction)
        out.append(s(op, "f32[7,3,4]", w, r, b))
        out.append(s(op, "f32[7,3,4]", w, r, None, np.full(3, 7, np.int32), f"f32[{count},3,5]"))
    return out


def _dynamic_lstm() -> list[Sample]:
    """Scales for each column and for each direction, with and without states and peepholes."""
    out: list[Sample] = []
    for direction, count, scales in (("forward", 1, (1,)), ("bidirectional", 2, (2, 8))):
        op = o.DynamicQuantizeLSTM(hidden_size=2, direction=direction, clip=3.0)
        given = (f"i8[{count},4,8]", f"i8[{count},2,8]")
        quant = (np.full(scales, 0.01, np.float32), np.zeros(scales, np.int8)) * 2
        none = (None,) * 5
        out.append(s(op, "f32[7,3,4]", *given, *none, *quant))
        state = f"f32[{count},3,2]"
        others = (f"f32[{count},16]", np.full(3, 7, np.int32), state, state, f"f32[{count},6]")
        out.append(s(op, "f32[7,3,4]", *given, *others, *quant))
    return out


SAMPLES = [
    *(s(op, "f32[4,4]", loose=isinstance(op, o.NonZero)) for op in UNARY),
    *(s(cls(axes=(1, -1)), "f32[2,3,4]") for cls in REDUCTIONS),
    *(s(cls(keepdims=False), "f32[2,3,4]") for cls in REDUCTIONS),
    *(s(cls(noop_with_empty_axes=True), "f32[2,3,4]") for cls in REDUCTIONS),
    *(s(op, "f32[2,1,4]", "f32[3,1]") for op in (*COMPARISONS, *ARITHMETIC)),
    *(s(op, "i64[3]", i64(4)) for op in (*COMPARISONS, *ARITHMETIC[:7])),
    *(s(op, "f32[]", "f32[1]", "f32[2,0]") for op in ARITHMETIC[5:]),
    *(s(op, "bool[2,1]", "bool[3]") for op in (o.And(), o.Or(), o.Xor())),
    *(s(op, "i32[2,1]", "i32[3]") for op in (o.BitwiseAnd(), o.BitwiseOr(), o.BitwiseXor())),
    *(s(o.Not(), "bool[3]"), s(o.BitwiseNot(), "u8[3]")),
    *(s(o.Mod(), "i64[2,1]", i64(3)), s(o.Mod(fmod=True), "f32[2]", f32(3))),
    s(o.BitShift(direction="LEFT"), "u8[2]", np.array([1, 2], np.uint8)),
    s(o.Where(), "bool[2,1]", "f32[3]", "f32[1]"),
    s(o.PRelu(), "f32[2,4,3]", "f32[4,1]"),
    s(o.Conv(), X4, "f32[3,4,3,3]"),
    s(o.Conv(pads=(1, 1, 1, 1), strides=(2, 2), group=4), X4, "f32[4,1,3,3]", "f32[4]"),
    s(o.Conv(dilations=(2, 1)), X4, "f32[3,4,3,3]"),
    s(o.Conv(strides=(4, 3), auto_pad="SAME_UPPER"), X4, "f32[3,4,3,3]"),
    s(o.Conv(strides=(2, 3), auto_pad="VALID"), X4, "f32[3,4,3,3]"),
    *(s(o.Conv(), "f32[1,3,9]", "f32[2,3,4]"), s(o.Conv(), "f32[1,1,3,4,5]", "f32[2,1,2,2,2]")),
    s(o.ConvTranspose(strides=(2, 2), output_padding=(1, 1)), X4, "f32[4,3,3,3]"),
    s(o.ConvTranspose(group=2, pads=(1, 0, 0, 1)), X4, "f32[4,3,3,3]", "f32[6]"),
    s(o.ConvTranspose(output_shape=(13, 17), strides=(2, 2)), X4, "f32[4,3,3,3]"),
    s(o.ConvTranspose(auto_pad="SAME_UPPER", strides=(2, 2)), X4, "f32[4,3,3,3]"),
    *(s(o.MatMul(), a, b) for a, b in (("f32[2,3]", "f32[3,4]"), ("f32[3]", "f32[3]"))),
    *(s(o.MatMul(), a, b) for a, b in (("f32[5,2,3]", "f32[1,3,4]"), ("f32[3]", "f32[2,3,4]"))),
    *(s(o.MatMul(), a, b) for a, b in (("f32[2,2,3]", "f32[3]"), ("f32[0,3]", "f32[3,4]"))),
    s(o.Gemm(), "f32[2,3]", "f32[3,4]", "f32[4]"),
    s(o.Gemm(trans_a=True, trans_b=True, alpha=0.5, beta=2.0), "f32[3,2]", "f32[4,3]", "f32[2,1]"),
    s(o.Gemm(trans_b=True), "f32[2,3]", "f32[4,3]"),
    s(o.Einsum(equation="bhid,bhjd->bhij"), "f32[2,3,4,5]", "f32[2,3,6,5]"),
    s(o.Einsum(equation="...ij, jk"), "f32[2,3,4]", "f32[4,5]"),
    s(o.Einsum(equation="ii->i"), "f32[3,3]"),
    s(o.BatchNormalization(), X4, ONES, ONES, ONES, ONES),
    s(o.InstanceNormalization(), X4, ONES, ONES),
    s(o.GroupNormalization(num_groups=2), X4, ONES, ONES),
    s(o.LayerNormalization(), X4, "f32[8]"),
    s(o.LayerNormalization(axis=2), X4, "f32[6,8]", "f32[6,8]"),
    s(o.RMSNormalization(), X4, "f32[8]"),
    *(s(o.LRN(size=3), X4), s(o.MeanVarianceNormalization(), X4)),
    *(s(op, X4) for op in (o.GlobalAveragePool(), o.GlobalMaxPool(), o.GlobalLpPool(p=1))),
    s(o.AveragePool(kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True), X4),
    s(o.AveragePool(kernel_shape=(2, 2), strides=(2, 2), dilations=(2, 1)), X4),
    s(o.AveragePool(kernel_shape=(3, 3), strides=(2, 3), ceil_mode=True), X4),
    s(o.MaxPool(kernel_shape=(3, 3), strides=(2, 2), ceil_mode=True, pads=(1, 1, 1, 1)), X4),
    s(o.MaxPool(kernel_shape=(2, 2), auto_pad="SAME_LOWER", strides=(4, 3)), X4),
    s(o.MaxPool(kernel_shape=(2,), dilations=(2,)), "f32[1,2,9]"),
    s(o.LpPool(kernel_shape=(2, 2), strides=(2, 2)), X4),
    s(o.CumSum(reverse=True), X23, scalar(1)),
    s(o.CumProd(exclusive=True), "i64[2,3]", scalar(1)),
    s(o.BitCast(to="i32"), "f32[2,3]"),
    s(o.Attention(), "f32[2,3,4,8]", "f32[2,3,6,8]", "f32[2,3,6,8]"),
    s(o.Attention(q_num_heads=4, kv_num_heads=2), "f32[2,4,32]", "f32[2,6,16]", "f32[2,6,16]"),
    s(
        o.Attention(is_causal=True, scale=0.5, softcap=2.0),
        *("f32[2,3,4,8]", "f32[2,3,6,8]", "f32[2,3,6,8]", None, "f32[2,3,5,8]", "f32[2,3,5,8]"),
    ),
    s(o.RotaryEmbedding(), "f32[2,3,4,8]", "f32[2,4,4]", "f32[2,4,4]"),
    s(o.RotaryEmbedding(num_heads=3, interleaved=True), "f32[2,4,24]", "f32[2,4,4]", "f32[2,4,4]"),
    *(s(o.NegativeLogLikelihoodLoss(reduction=r), X23, i64(0, 2)) for r in ("none", "mean")),
    s(o.NegativeLogLikelihoodLoss(ignore_index=1), "f32[2,3,2]", ROWS, "f32[3]"),
    *(s(o.SoftmaxCrossEntropyLoss(reduction=r), X23, i64(0, 2)) for r in ("none", "sum")),
    s(
        *(o.NonMaxSuppression(), "f32[1,6,4]", "f32[1,2,6]", i64(3), f32(0.5), f32(0.1)),
        loose=True,
    ),
    s(
        *(o.QLinearMatMul(), "u8[2,3]", "f32[]", scalar(3, np.uint8)),  # else it is a MatMul
        *("i8[3,4]", scalar(0.1, np.float32), scalar(0, np.int8)),
        *(scalar(0.2, np.float32), scalar(5, np.uint8)),
    ),
    *(s(o.Reshape(), X4, i64(*shape)) for shape in ((0, -1), (8, 48), (2, 0, -1, 4), (-1,))),
    *(s(o.Reshape(), "f32[1]", i64()), s(o.Reshape(allowzero=True), "f32[0,3]", i64(3, 0))),
    s(o.Reshape(), X4, "i64[3]", loose=True, runs=False),
    *(s(o.Flatten(axis=a), X4) for a in (0, 2, 4, -1)),
    s(o.Transpose(perm=(0, 2, 3, 1)), X4),
    *(s(o.Squeeze(axes=a), "f32[1,3,1]") for a in ((), (0,), (0, -1))),
    *(s(o.Unsqueeze(axes=a), "f32[3,4]") for a in ((0,), (0, -1), (1, 3))),
    *(s(o.Expand(), "f32[3,1]", i64(*shape)) for shape in ((2, 1, 6), (1,), (3, 4))),
    s(o.Tile(), X23, i64(2, 3)),
    *(s(o.DepthToSpace(blocksize=2, mode=m), X4) for m in ("DCR", "CRD")),
    s(o.SpaceToDepth(blocksize=2), X4),
    *(s(o.Shape(start=a, end=b), X4) for a, b in ((1, None), (0, -1), (-3, 9), (3, 1))),
    s(o.Slice(), X4, i64(1, 0), i64(9, 3)),
    s(o.Slice(), X4, i64(-1, 5), i64(-(2**63), 0), i64(3, 2), i64(-1, -2)),
    s(o.Slice(), X4, i64(1), i64(2**63 - 1), i64(-1), i64(3)),
    *(s(o.Split(axis=1, split=(1, 3)), X4), s(o.Split(axis=-1, num_outputs=3), X4)),
    *(s(o.Concat(axis=1), X23, "f32[2,1]", "f32[2,0]"), s(o.Concat(axis=-1), "i64[2]", i64(3))),
    s(o.Pad(), X4, i64(0, 0, 1, 2, 0, 0, 3, 4), scalar(1.5, np.float32)),
    *(s(o.Pad(mode=m), X4, i64(1, 2, 2, 1), None, i64(2, 3)) for m in ("reflect", "edge", "wrap")),
    s(o.Pad(), X4, i64(0, 0, -1, 0, 0, 0, 0, -2)),
    *(s(o.Gather(axis=a), X4, np.array([[0, -1]])) for a in (0, 2, -1)),
    *(s(o.Gather(), "i64[4]", scalar(2)), s(o.Gather(), "f32[4]", i64())),
    s(o.GatherElements(axis=1), X23, np.array([[0, 2, 1, 0]])),
    *(s(o.GatherND(), X4, ROWS), s(o.GatherND(batch_dims=1), X23, np.array([[0], [2]]))),
    s(o.ScatterElements(axis=1), X23, np.array([[1], [0]]), "f32[2,1]"),
    s(o.ScatterElements(reduction="add"), X23, np.array([[1, 0, 1]]), "f32[1,3]"),
    *(s(o.ScatterND(reduction=r), X4, ROWS, "f32[2,6,8]") for r in ("none", "max")),
    *(s(o.TopK(), X4, i64(3)), s(o.TopK(axis=1, largest=False, sorted=False), X4, i64(0))),
    s(o.OneHot(), np.array([[0, 2]]), scalar(3), f32(0, 1)),
    s(o.OneHot(axis=0), np.array([1, 2]), scalar(4), f32(0, 1)),
    *(s(o.Compress(axis=a), X23, np.array([True, False]), loose=True) for a in (None, 0, -1)),
    s(o.Trilu(), X4, scalar(1)),
    s(o.ReverseSequence(), "f32[4,2,3]", i64(1, 4)),
    s(o.ReverseSequence(batch_axis=0, time_axis=1), "f32[2,4]", i64(1, 4)),
    s(o.NonZero(), "i64[]", loose=True),
    *(s(o.Cast(to=t), "i64[3]") for t in ("i32", "f32", "bool", "u8")),
    s(o.CastLike(), "i64[3]", "f16[1]"),
    *(s(o.ConstantOfShape(), i64(*d)) for d in ((2, 3), (), (0,))),
    s(o.ConstantOfShape(value=Data.of(i64(7))), i64(3)),
    s(o.ConstantOfShape(), "i64[2]", loose=True, runs=False),
    *(s(o.Range(), *map(scalar, v)) for v in ((0, 7, 2), (5, 0, -2), (3, 1, 1))),
    s(o.Range(), *(scalar(v, np.float32) for v in (0, 1, 0.25)), loose=True),
    *(s(op) for op in (o.RandomNormal(shape=(2, 3)), o.RandomUniform(shape=(4,)))),
    s(o.Resize(), X4, None, f32(1, 1, 2, 0.7)),
    s(o.Resize(mode="linear"), X4, None, None, i64(2, 4, 5, 9)),
    s(o.Resize(mode="cubic", axes=(2, 3)), X4, None, f32(0.5, 3)),
    s(o.Resize(keep_aspect_ratio_policy="not_larger", axes=(2, 3)), X4, None, None, i64(9, 9)),
    s(o.GridSample(), X4, "f32[2,3,5,2]"),
    s(o.GridSample(mode="nearest", align_corners=True), "f32[1,2,3,4,5]", "f32[1,2,2,2,3]"),
    s(o.RoiAlign(output_height=2, output_width=3), X4, "f32[5,4]", np.zeros(5, np.int64)),
    s(o.DynamicQuantizeLinear(), X23),
    s(o.MatMulInteger(), "u8[2,5,3]", "i8[3,4]", np.array(7, np.uint8)),
    s(o.ConvInteger(pads=(1, 1, 1, 1)), "u8[1,2,4,4]", "u8[3,2,3,3]", np.array(7, np.uint8)),
    s(
        *(o.QLinearConv(pads=(1, 1, 1, 1), group=2), "u8[1,4,5,5]", scalar(0.1, np.float32)),
        *(scalar(3, np.uint8), "i8[6,2,3,3]", scalar(0.1, np.float32), scalar(0, np.int8)),
        *(scalar(0.2, np.float32), scalar(5, np.uint8), "i32[6]"),
    ),
    s(o.MaxUnpool(kernel_shape=(2, 2), strides=(2, 2)), "f32[1,2,2,3]", INDICES),
    s(o.MaxUnpool(kernel_shape=(2, 2)), "f32[1,2,2,3]", INDICES, i64(1, 2, 5, 7)),
    s(o.DeformConv(pads=(1, 1, 1, 1)), X4, "f32[3,4,3,3]", "f32[2,18,6,8]", "f32[3]"),
    s(
        *(o.DeformConv(strides=(2, 1), offset_group=2, group=2), X4, "f32[2,2,2,3]"),
        *("f32[2,24,3,6]", None, "f32[2,12,3,6]"),
    ),
    s(o.Col2Im(), "f32[2,12,6]", i64(3, 4), i64(2, 2)),
    s(o.Col2Im(pads=(1, 0, 1, 0), strides=(2, 1)), "f32[1,8,12]", i64(4, 5), i64(2, 2)),
    s(o.CausalConvWithState(), "f32[2,3,5]", "f32[3,1,4]"),
    s(
        *(o.CausalConvWithState(activation="silu"), "f32[2,3,5]", "f32[3,1,4]"),
        *("f32[3]", "f32[2,3,3]"),
    ),
    s(
        o.LinearAttention(q_num_heads=4, kv_num_heads=2, update_rule="linear"),
        *("f32[2,3,16]", "f32[2,3,8]", "f32[2,3,10]", "f32[2,2,4,5]"),
    ),
    s(
        o.LinearAttention(q_num_heads=2, kv_num_heads=2, scale=0.5),
        *("f32[1,3,8]", "f32[1,3,8]", "f32[1,3,8]", None, "f32[1,3,2]", "f32[1,3,2]"),
    ),
    s(o.AffineGrid(), "f32[2,2,3]", i64(2, 3, 4, 5)),
    s(o.AffineGrid(align_corners=True), "f32[1,3,4]", i64(1, 1, 2, 3, 4)),
    s(o.CenterCropPad(), "f32[4,5]", i64(7, 2)),
    s(o.CenterCropPad(axes=(-1, 0)), X4, i64(3, 3)),
    s(o.Unique(), "i64[2,3]", loose=True),
    *(s(o.Unique(axis=a, sorted=False), X23, loose=True) for a in (0, -1)),
    s(o.TensorScatter(), "f32[2,5,3]", "f32[2,2,3]", i64(1, 3)),
    s(o.TensorScatter(axis=1, mode="circular"), "f32[2,5]", "f32[2,3]", i64(4, 0)),
    *(s(o.Det(), x) for x in ("f32[3,3]", "f32[2,1,3,3]")),
    *(s(op, "f32[2,8,1]") for op in (o.DFT(), o.DFT(onesided=True))),
    s(o.DFT(inverse=True), "f32[2,5,2]", scalar(8), scalar(1)),
    s(o.DFT(), "f32[8,3,2]", None, scalar(0)),
    s(o.STFT(), "f32[2,20,1]", scalar(4), "f32[8]"),
    s(o.STFT(onesided=False), "f32[1,20,1]", scalar(3), None, scalar(8)),
    *(s(op, scalar(9)) for op in (o.HannWindow(), o.HammingWindow(periodic=False))),
    s(o.BlackmanWindow(dtype="f64"), scalar(4)),
    s(
        o.MelWeightMatrix(),
        scalar(6),
        scalar(17),
        scalar(8192),
        *(scalar(v, np.float32) for v in (0, 4000)),
    ),
    *(*_recurrent(o.RNN, 1), *_recurrent(o.GRU, 3), *_recurrent(o.LSTM, 4)),
    *_dynamic_lstm(),
]


def _type(text: str) -> TensorType:
    elem, _, dims = text.rstrip("]").partition("[")
    return TensorType(Elem.named(elem), tuple(int(d) for d in dims.split(",") if d))


def _operand_type(operand: str | np.ndarray | None) -> TensorType | None:
    if operand is None:
        return None
    if isinstance(operand, str):
        return _type(operand)
    elem = Elem.of(operand.dtype)
    small = elem.is_integer and operand.ndim <= 1
    value = tuple(int(v) for v in operand.reshape(-1)) if small else None
    return TensorType(elem, operand.shape, value=value)


def _code(elem: Elem) -> int:
    return helper.np_dtype_to_tensor_dtype(elem.dtype)


def _opset(op: Op) -> int:
    facts = op.onnx
    assert facts is not None
    set_fields = [f.name for f in dataclasses.fields(op) if getattr(op, f.name) != f.default]
    young = [facts.field_since[n] for n in set_fields if n in facts.field_since]
    return max(MODELS_OPSET, facts.since, *young, *(v for v, _ in facts.attr_inputs.values()))


def _attribute(op: Op, name: str, value: object) -> object:
    assert op.onnx is not None
    if name in op.onnx.elems:
        return _code(Elem.named(str(value)))
    if isinstance(value, Data):
        return numpy_helper.from_array(value.array().copy())
    return int(value) if isinstance(value, bool) else value


def _onnx_model(sample: Sample) -> onnx.ModelProto:
    """A model of the one node, written without the exporter: an independent witness."""
    op, facts = sample.op, sample.op.onnx
    assert facts is not None
    names = ["" if v is None else f"in{i}" for i, v in enumerate(sample.operands)]
    constants = {f"in{i}": v for i, v in enumerate(sample.operands) if isinstance(v, np.ndarray)}
    attributes: dict[str, object] = {}
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        left_out = value == field.default and field.name not in facts.stated
        if value is None or field.name == "clamp" or value == () or left_out:
            continue
        if field.name not in facts.attr_inputs:
            attributes[facts.renames.get(field.name, field.name)] = _attribute(
                op, field.name, value
            )
            continue
        index = facts.attr_inputs[field.name][1]
        names += [""] * (index + 1 - len(names))
        names[index] = field.name
        kind = np.float32 if isinstance(value, float) else np.int64
        constants[field.name] = np.array(value, dtype=kind)
    outputs = [f"out{i}" for i in range(len(_infer(sample)))]
    node = helper.make_node(facts.type, names, outputs, domain=facts.domain, **attributes)
    fed = {n: _type(v) for n, v in zip(names, sample.operands, strict=False) if isinstance(v, str)}
    graph = helper.make_graph(
        [node],
        "sample",
        [helper.make_tensor_value_info(n, _code(t.elem), t.shape) for n, t in fed.items()],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    opsets = {"": _opset(op)} | ({facts.domain: 1} if facts.domain else {})
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 10
    return model


def _infer(sample: Sample, change=lambda t: t) -> tuple[TensorType, ...]:
    types = [None if v is None else change(_operand_type(v)) for v in sample.operands]
    found = sample.op.infer(*types)
    if isinstance(sample.op, o.Resize) and isinstance(sample.operands[2], np.ndarray):
        found = (sample.op.scaled(types[0], sample.operands[2]),)
    return found


def _fed(sample: Sample, low: float = 0) -> dict[str, np.ndarray]:
    """Numbers for the operands that are fed: floats in [low, 1], integers in [0, 4]."""
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for i, operand in enumerate(sample.operands):
        if isinstance(operand, str):
            type = _type(operand)
            is_float = type.elem.is_float
            numbers = rng.uniform(low if is_float else 0, 1 if is_float else 4, type.static_shape)
            feeds[f"in{i}"] = np.asarray(numbers).astype(type.elem.dtype)
    return feeds


@functools.cache
def _results(index: int) -> tuple[np.ndarray, ...]:
    """What onnxruntime computes for a sample."""
    return _run(SAMPLES[index], _fed(SAMPLES[index]))


def _run(sample: Sample, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """What onnxruntime computes for a sample on operands of these numbers."""
    model = shape_inference.infer_shapes(_onnx_model(sample))
    for output, found in zip(model.graph.output, _infer(sample), strict=True):
        output.type.tensor_type.elem_type = _code(found.elem)
        output.type.tensor_type.ClearField("shape")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return tuple(np.asarray(r) for r in session.run(None, feeds))


NUMBERED = [pytest.param(i, id=f"{i}-{sample}") for i, sample in enumerate(SAMPLES)]


def test_every_op_has_a_sample():
    assert {sample.op.name for sample in SAMPLES} == set(OPS.names()) - ELSEWHERE


@pytest.mark.parametrize("index", NUMBERED)
def test_infer_against_onnxruntime(index: int):
    sample = SAMPLES[index]
    if not sample.runs:
        pytest.skip("sizes come from the data")
    for found, result in zip(_infer(sample), _results(index), strict=True):
        assert found.elem is Elem.of(result.dtype)
        real = TensorType(found.elem, result.shape)
        assert compatible(found, real), f"{found.shape} is not {result.shape}"
        if not sample.loose:
            assert found.static_shape == result.shape
        if found.value is not None:
            numbers = tuple(int(v) for v in result.reshape(-1))
            known = zip(found.value, numbers, strict=True)
            assert all(v == n for v, n in known if isinstance(v, int))


@pytest.mark.parametrize("index", NUMBERED)
def test_infer_against_onnx(index: int):
    """Nothing contradicts onnx's inference, and nothing that it tells is missing."""
    sample = SAMPLES[index]
    # The function body that onnx has for this op is invalid in the eyes of its own inference.
    strict = not isinstance(sample.op, o.MeanVarianceNormalization)
    model = shape_inference.infer_shapes(_onnx_model(sample), strict_mode=strict, data_prop=True)
    for found, output in zip(_infer(sample), model.graph.output, strict=True):
        tensor = output.type.tensor_type
        if tensor.elem_type == TensorProto.UNDEFINED:
            continue
        assert tensor.elem_type == _code(found.elem)
        if not tensor.HasField("shape"):
            continue
        told = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        assert found.shape is not None
        assert len(found.shape) == len(told)
        known = [t for t, d in zip(told, found.shape, strict=True) if t != d]
        assert all(t is None or sample.loose for t in known)


@pytest.mark.parametrize("index", NUMBERED)
def test_infer_knows_less_from_less(index: int):
    """Unknown ranks, sizes and contents never crash and never contradict what is known."""
    sample = SAMPLES[index]
    exact = _infer(sample)
    unknown = [
        _infer(sample, lambda t: replace(t, shape=None, value=None)),
        _infer(sample, lambda t: replace(t, shape=(None,) * len(t.shape), value=None)),
        _infer(sample, lambda t: replace(t, value=None)),
        _infer(sample, lambda t: t if t.value is not None else replace(t, shape=None)),
    ]
    for less in unknown:
        assert len(less) == len(exact)
        assert all(compatible(a, b) for a, b in zip(less, exact, strict=True))


@pytest.mark.parametrize("index", NUMBERED)
def test_infer_with_symbols(index: int):
    """Every size as a symbol: the result with numbers put in is the numeric one."""
    sample = SAMPLES[index]

    def change(found: TensorType) -> TensorType:
        if found.value is not None or found.shape is None:
            return found
        shape = tuple(d if d < 2 else symbol(f"d{d}") for d in found.shape)
        return replace(found, shape=shape, value=None)

    numbers = {f"d{n}": n for n in range(2, 64)}
    for found, exact in zip(_infer(sample, change), _infer(sample), strict=True):
        assert compatible(found.substitute(numbers), exact)


@pytest.mark.parametrize("index", NUMBERED)
def test_quant_traits(index: int):
    sample = SAMPLES[index]
    types = [None if v is None else _operand_type(v) for v in sample.operands]
    traits = sample.op.quant(*types)
    if types and types[0] is not None and types[0].elem is Elem.I64:
        assert traits.kind is Kind.FLOAT
    if traits.kind is Kind.WEIGHTED:
        weight = types[traits.weight]
        assert traits.weight == 1
        assert weight is not None
        assert 0 <= traits.axis < weight.rank
    if traits.fixed is not None and sample.runs:
        low, high = traits.fixed
        assert all(low <= r.min() and r.max() <= high for r in _results(index) if r.size)


def _numbered(fact: str) -> list[object]:
    """The samples of ops of which a class fact is true, and that onnxruntime runs."""
    indices = [i for i, x in enumerate(SAMPLES) if getattr(x.op, fact, False) and x.runs]
    return [pytest.param(i, id=f"{i}-{SAMPLES[i]}") for i in indices]


def test_facts_are_not_lost():
    """Each fact is true of ops that have samples, and an order that is kept is a permutation."""
    for fact in ("elementwise", "permutes", "keeps_order", "not_negative", "keeps_one"):
        assert len(_numbered(fact)) >= 5
    assert all(op.permutes for op in OPS if op.keeps_order)


@pytest.mark.parametrize("index", _numbered("elementwise"))
def test_elementwise_ops_compute_the_same_in_another_layout(index: int):
    sample = SAMPLES[index]
    feeds = _fed(sample, -1)
    constants = {f"in{i}": v for i, v in enumerate(sample.operands) if isinstance(v, np.ndarray)}
    rank = max(v.ndim for v in (*feeds.values(), *constants.values()))

    def turned(array: np.ndarray) -> np.ndarray:
        return array.reshape((1,) * (rank - array.ndim) + array.shape).transpose()

    def described(i: int, operand: str | np.ndarray | None) -> str | np.ndarray | None:
        if operand is None or isinstance(operand, np.ndarray):
            return None if operand is None else turned(operand)
        dims = ",".join(map(str, turned(feeds[f"in{i}"]).shape))
        return f"{operand.partition('[')[0]}[{dims}]"

    operands = tuple(described(i, v) for i, v in enumerate(sample.operands))
    other = replace(sample, operands=operands)
    results = _run(other, {name: turned(array) for name, array in feeds.items()})
    for result, plain in zip(results, _run(sample, feeds), strict=True):
        np.testing.assert_allclose(result, turned(plain), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("index", _numbered("permutes"))
def test_permuting_ops_give_each_element_once(index: int):
    sample = SAMPLES[index]
    first = _fed(sample).get("in0", sample.operands[0])
    result = _results(index)[0]
    same = np.array_equal(result.reshape(-1), np.asarray(first).reshape(-1))
    assert same or not sample.op.keeps_order
    np.testing.assert_array_equal(np.sort(result, axis=None), np.sort(first, axis=None))


@pytest.mark.parametrize("index", _numbered("not_negative"))
def test_no_number_below_zero(index: int):
    sample = SAMPLES[index]
    (result,) = _run(sample, _fed(sample, -3))
    assert not (result < 0).any()


@pytest.mark.parametrize("index", _numbered("keeps_one"))
def test_the_reduction_of_one_element_is_the_element(index: int):
    sample = SAMPLES[index]
    one = Sample(type(sample.op)(axes=(1,)), ("f32[3,1,2]",))
    feeds = _fed(one, -3)
    np.testing.assert_array_equal(_run(one, feeds)[0], feeds["in0"])


def _module(sample: Sample) -> Module:
    module = Module("sample", {"": min(_opset(sample.op), onnx_opset_version())})
    operands = []
    for i, operand in enumerate(sample.operands):
        if operand is None:
            operands.append(None)
        elif isinstance(operand, str):
            operands.append(module.graph.add_input(f"in{i}", _type(operand)))
        else:
            operands.append(module.add_constant(f"in{i}", Data.of(operand)))
    names = [f"out{i}" for i in range(len(_infer(sample)))]
    node = module.graph.insert(sample.op, operands, names=names)
    module.graph.set_outputs(node.present_results)
    return module


@pytest.mark.parametrize("index", NUMBERED)
def test_text_round_trip(index: int):
    from qdqc.text.parser import parse_module
    from qdqc.text.printer import print_module

    text = print_module(_module(SAMPLES[index]))
    assert print_module(parse_module(text)) == text


@pytest.mark.parametrize("index", NUMBERED)
def test_import_gives_the_op(index: int):
    """A node that was written without the exporter reads as the sample's op."""
    importer = importlib.import_module("qdqc.onnx_io.importer")
    sample = SAMPLES[index]
    module = importer.import_onnx(_onnx_model(sample))
    (node,) = module.graph.nodes()
    assert node.op == sample.op
    wanted = [None if v is None else _operand_type(v) for v in sample.operands]
    assert list(node.operand_types()) == wanted


@pytest.mark.parametrize("index", NUMBERED)
def test_export_then_import(index: int):
    importer = importlib.import_module("qdqc.onnx_io.importer")
    exporter = importlib.import_module("qdqc.onnx_io.exporter")
    module = _module(SAMPLES[index])
    model = exporter.export_onnx(module)
    onnx.checker.check_model(model, full_check=True)
    (node,) = importer.import_onnx(model).graph.nodes()
    (held,) = module.graph.nodes()
    assert node.op == held.op
    assert node.operand_types() == held.operand_types()
    for found, wanted in zip(node.present_results, held.present_results, strict=True):
        assert compatible(found.type, wanted.type)
        assert found.type.rank == wanted.type.rank
