"""Type inference of every native op on random operands: against onnx, against what runs.

A case is an op with random attributes on operands of random shapes, sizes of 0 and 1 among
them. Where onnx infers a size, ours is the same; where sizes are symbols, ours come out as the
sizes once numbers are put in; and some cases run. ``QDQC_EXPLORE=1`` draws new ones.
"""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, shape_inference

import qdqc.ops as o
from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.fields import hints
from qdqc.ir.graph import Module
from qdqc.ir.merge import compatible
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops.onnx_table import load_ops

EXEMPT = {
    "onnx": "it has no inference of its own: types are those that the model states",
    "if": "its types are those of its graphs; tests/ir holds them",
    "loop": "its types are those of its graphs; tests/ir holds them",
    "scan": "its types are those of its graphs; tests/ir holds them",
    "quantize": "its result's type is given, not inferred; tests/onnx_io holds it",
    "dequantize": "its operand's type has the scale; tests/onnx_io holds it",
    "restate": "its types have the scales; tests/quant holds it",
}
NEVER_RUN = {
    "bit_cast": "onnxruntime has no kernel for it",
    "cum_prod": "onnxruntime has no kernel for it",
    "swish": "onnxruntime has no kernel for it; exports write it out",
}
ZEROS_FOR_SYMBOLS = ("attention",)
"""Where onnx takes a symbol for a size of 0."""

EXAMPLES = 20
OPSET = 21
"""The newest for which onnxruntime has kernels of all ops; younger ops are written at theirs."""

Operand: TypeAlias = "TensorType | np.ndarray[Any, Any] | None"
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An op on operands: a type is fed, an array is a constant, None is absent.

    ``loose`` cases have sizes that depend on the data.
    """

    op: Op
    operands: tuple[Operand, ...]
    loose: bool = False


Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Family: TypeAlias = Callable[[Draw, Any], Case]
FAMILIES: dict[str, Family] = {}


def family(*names: str) -> Callable[[Family], Family]:
    """Enters a maker of cases for these ops."""

    def enter(maker: Family) -> Family:
        for name in names:
            assert name not in FAMILIES
            FAMILIES[name] = maker
        return maker

    return enter


def case(op: Op, *operands: Operand, loose: bool = False) -> Case:
    return Case(op, operands, loose)


def f32(*dims: int) -> TensorType:
    return TensorType(Elem.F32, tuple(dims))


def typed(elem: str, *dims: int) -> TensorType:
    return TensorType(Elem.named(elem), tuple(dims))


def i64(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def scalar(value: float, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.array(value, dtype)


def made(draw: Draw, cls: type[Op], **fixed: Any) -> Op:
    """The op with these fields; of the others, switches and named choices are random."""
    for name, annotation in hints(cls).items():
        if name in fixed or name == "clamp":
            continue
        if annotation is bool:
            fixed[name] = draw(st.booleans())
        elif typing.get_origin(annotation) is Literal:
            fixed[name] = draw(st.sampled_from(typing.get_args(annotation)))
    return cls(**fixed)


def number(draw: Draw, low: int, high: int) -> int:
    return draw(st.integers(low, high))


def dims(draw: Draw, low: int, high: int, least: int = 0, most: int = 4) -> Shape:
    """A shape of a rank between ``low`` and ``high``."""
    sizes = st.sampled_from([n for n in (1, 2, 3, 4, 5, 0, 2, 1) if least <= n <= most])
    return tuple(draw(st.lists(sizes, min_size=low, max_size=high)))


def an_axis(draw: Draw, rank: int, first: int = 0) -> int:
    """An axis from ``first`` on, counted from either end."""
    axis = number(draw, first, rank - 1)
    return axis - rank if draw(st.booleans()) else axis


def some_axes(draw: Draw, rank: int) -> Shape:
    """Axes, each once, from either end, in any order; often none."""
    chosen = draw(st.lists(st.integers(0, rank - 1), unique=True, max_size=rank)) if rank else []
    return tuple(a - rank if draw(st.booleans()) else a for a in chosen)


def narrowed(draw: Draw, shape: Shape) -> Shape:
    """A shape that broadcasts to the one that is given."""
    kept = shape[number(draw, 0, len(shape)) :]
    return tuple(1 if draw(st.integers(0, 3)) == 0 else d for d in kept)


UNARY = (
    *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "celu", "clip", "cos"),
    *("cosh", "elu", "erf", "exp", "floor", "gelu", "hard_sigmoid", "hard_swish", "identity"),
    *("is_inf", "is_nan", "leaky_relu", "log", "mish", "neg", "reciprocal", "relu", "round"),
    *("selu", "shrink", "sigmoid", "sign", "sin", "sinh", "softplus", "softsign", "sqrt", "swish"),
    *("tan", "tanh", "thresholded_relu", "random_normal_like", "random_uniform_like"),
    *("bernoulli", "size", "dynamic_quantize_linear"),
)


@family(*UNARY)
def unary(draw: Draw, cls: type[Op]) -> Case:
    return case(made(draw, cls), f32(*dims(draw, 0, 4)))


@family("not", "bitwise_not")
def on_bits(draw: Draw, cls: type[Op]) -> Case:
    return case(cls(), typed("bool" if cls is o.Not else "u8", *dims(draw, 0, 4)))


@family("softmax", "log_softmax", "hardmax", "lp_normalization")
def along_an_axis(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    return case(made(draw, cls, axis=an_axis(draw, len(shape))), f32(*shape))


@family("arg_max", "arg_min")
def arg(draw: Draw, cls: type[Op]) -> Case:
    return along_an_axis(draw, cls)


@family("eye_like", "trilu")
def triangles(draw: Draw, cls: type[Op]) -> Case:
    if cls is o.EyeLike:
        op = made(draw, cls, k=number(draw, -3, 3), dtype=draw(st.sampled_from((None, "i64"))))
        return case(op, f32(*dims(draw, 2, 2)))
    k = scalar(number(draw, -4, 4)) if draw(st.booleans()) else None
    return case(made(draw, cls), f32(*dims(draw, 2, 4)), k)


@family("cast", "cast_like", "bit_cast")
def converted(draw: Draw, cls: type[Op]) -> Case:
    elem = draw(st.sampled_from(("f32", "i32", "i64", "u8", "bool", "f64")))
    x = typed(draw(st.sampled_from(("f32", "i64", "u8"))), *dims(draw, 0, 3))
    if cls is o.CastLike:
        return case(cls(), x, typed(elem, *dims(draw, 0, 2)))
    return case(cls(to=elem), x) if cls is o.Cast else case(cls(to="i32"), f32(*x.shape or ()))


@family(*("add", "sub", "mul", "div", "pow", "equal", "greater", "less", "greater_or_equal"))
def binary(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0, 4)
    elem = draw(st.sampled_from(("f32", "i64")))
    elem = "f32" if cls in (o.Div, o.Pow) else elem  # division by a 0 that is fed ends the process
    return case(cls(), *(typed(elem, *narrowed(draw, shape)) for _ in range(2)))


@family("less_or_equal", "mod")
def binary_floats(draw: Draw, cls: type[Op]) -> Case:
    fixed = {"fmod": True} if cls is o.Mod else {}
    shape = dims(draw, 0, 4)
    return case(cls(**fixed), *(f32(*narrowed(draw, shape)) for _ in range(2)))


@family("and", "or", "xor", "bitwise_and", "bitwise_or", "bitwise_xor", "bit_shift")
def binary_bits(draw: Draw, cls: type[Op]) -> Case:
    elem = "bool" if cls in (o.And, o.Or, o.Xor) else "u8"
    shape = dims(draw, 0, 4)
    return case(made(draw, cls), *(typed(elem, *narrowed(draw, shape)) for _ in range(2)))


@family("where")
def where(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0, 4)
    operands = (typed(e, *narrowed(draw, shape)) for e in ("bool", "f32", "f32"))
    return case(cls(), *operands)


@family("min", "max", "sum", "mean")
def any_number(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0, 4)
    return case(cls(), *(f32(*narrowed(draw, shape)) for _ in range(number(draw, 1, 3))))


@family("prelu")
def prelu(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4)
    return case(cls(), f32(*shape), f32(*narrowed(draw, shape)))


REDUCED = ("l1", "l2", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square")


@family(*(f"reduce_{kind}" for kind in REDUCED))
def reduced(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0, 4, least=1)
    axes = some_axes(draw, len(shape))
    if shape and draw(st.integers(0, 3)) == 0:
        computed = typed("i64", 1)  # whichever axis is fed
        return case(made(draw, cls, noop_with_empty_axes=False), f32(*shape), computed, loose=True)
    return case(made(draw, cls, axes=axes), f32(*shape))


@family("cum_sum", "cum_prod")
def running(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4)
    return case(made(draw, cls), f32(*shape), scalar(an_axis(draw, len(shape))))


@family("det")
def det(draw: Draw, cls: type[Op]) -> Case:
    size = number(draw, 1, 4)
    return case(cls(), f32(*dims(draw, 0, 2, least=1), size, size))


@family("shape", "flatten", "transpose", "squeeze", "unsqueeze")
def rearranged(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0, 4)
    rank = len(shape)
    bounds = st.integers(-5, 5)
    if cls is o.Shape:
        op: Op = o.Shape(start=draw(bounds), end=draw(st.none() | bounds))
    elif cls is o.Flatten:
        op = o.Flatten(axis=number(draw, -rank, rank))
    elif cls is o.Transpose:
        op = o.Transpose(perm=tuple(draw(st.permutations(range(rank)))))
    elif cls is o.Squeeze:
        ones = [i for i, d in enumerate(shape) if d == 1]
        chosen = draw(st.lists(st.sampled_from(ones), unique=True)) if ones else []
        op = o.Squeeze(axes=tuple(a - rank if draw(st.booleans()) else a for a in chosen))
    else:
        added = number(draw, 1, 2)
        places = draw(st.permutations(range(rank + added)))[:added]
        op = o.Unsqueeze(axes=tuple(a - rank - added if draw(st.booleans()) else a for a in places))
    return case(op, f32(*shape))


@family("expand", "tile")
def repeated(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 0 if cls is o.Expand else 1, 4)
    if cls is o.Expand:
        x = narrowed(draw, shape)
        rest = len(shape) - len(x)
        pairs = zip(x, shape[rest:], strict=True)
        wanted = [1 if a == b and draw(st.booleans()) else b for a, b in pairs]
        return case(o.Expand(), f32(*x), i64(*shape[:rest], *wanted))
    return case(o.Tile(), f32(*shape), i64(*(number(draw, 0, 3) for _ in shape)))


@family("reshape")
def reshaped(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4)
    parts = [p for d in shape for p in draw(st.sampled_from(((d,), (1, d), (d, 1))))]
    wanted = list(draw(st.permutations(parts)))
    allowzero = draw(st.booleans())
    if not math.prod(shape):
        return case(cls(allowzero=True), f32(*shape), i64(*wanted))
    for i, (a, b) in enumerate(zip(shape, wanted, strict=False)):
        if a == b and not allowzero and draw(st.booleans()):
            wanted[i] = 0
    if draw(st.booleans()):
        wanted[number(draw, 0, len(wanted) - 1)] = -1
    return case(cls(allowzero=allowzero), f32(*shape), i64(*wanted))


@family("depth_to_space", "space_to_depth")
def blocks(draw: Draw, cls: type[Op]) -> Case:
    n, c, h, w = dims(draw, 4, 4)
    size = number(draw, 1, 3)
    shape = (n, c * size * size, h, w) if cls is o.DepthToSpace else (n, c, h * size, w * size)
    mode = {"mode": draw(st.sampled_from(("DCR", "CRD")))} if cls is o.DepthToSpace else {}
    return case(cls(blocksize=size, **mode), f32(*shape))


@family("concat")
def joined(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4)
    axis = an_axis(draw, len(shape))
    parts = [list(shape) for _ in range(number(draw, 1, 3))]
    for part in parts:
        part[axis] = number(draw, 0, 3)
    return case(cls(axis=axis), *(f32(*part) for part in parts))


@family("split")
def parted(draw: Draw, cls: type[Op]) -> Case:
    shape = list(dims(draw, 1, 4))
    axis = an_axis(draw, len(shape))
    if draw(st.booleans()):
        parts = dims(draw, 1, 3)
        shape[axis] = sum(parts)
        return case(cls(axis=axis, split=parts), f32(*shape))
    shape[axis] = number(draw, 1, 7)
    # onnxruntime refuses a last part of nothing, and so does onnx
    fits = [n for n in (1, 2, 3) if (n - 1) * -(-shape[axis] // n) < shape[axis]]
    return case(cls(axis=axis, num_outputs=draw(st.sampled_from(fits))), f32(*shape))


@family("slice")
def sliced(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4)
    axes = some_axes(draw, len(shape)) or (0,)
    steps = [draw(st.sampled_from((1, 2, 3, -1, -2))) for _ in axes]
    bound, far = st.integers(-6, 6), st.sampled_from((2**31 - 1, 2**63 - 1))
    starts = i64(*(draw(bound) for _ in axes))
    ends = i64(*(draw(bound | far.map(lambda n, by=by: n if by > 0 else -n)) for by in steps))
    if draw(st.booleans()):
        return case(cls(), f32(*shape), starts, ends, i64(*axes), i64(*steps))
    ends = ends[:1] if steps[0] > 0 else i64(3)
    return case(cls(), f32(*shape), starts[:1], ends)


@family("pad")
def padded(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    mode = draw(st.sampled_from(("constant", "edge", "reflect", "wrap")))
    axes = some_axes(draw, len(shape))
    chosen = [shape[a] for a in axes] or shape
    low = -1 if mode == "constant" else 0
    counts = [number(draw, low if d > 2 else 0, d - 1 if mode == "reflect" else d) for d in chosen]
    counts += [number(draw, low if d > 2 else 0, d - 1 if mode == "reflect" else d) for d in chosen]
    return case(cls(mode=mode), f32(*shape), i64(*counts), None, i64(*axes) if axes else None)


@family("center_crop_pad")
def centered(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    axes = some_axes(draw, len(shape))
    count = len(axes) or len(shape)
    return case(cls(axes=axes), f32(*shape), i64(*(number(draw, 1, 5) for _ in range(count))))


def indices(draw: Draw, shape: Shape, size: int, **kind: Any) -> np.ndarray[Any, Any]:
    """An array of indices into an axis of that size, counted from either end."""
    count = math.prod(shape)
    flat = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count, **kind))
    return np.array(flat, np.int64).reshape(shape)


@family("gather")
def gathered(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    axis = an_axis(draw, len(shape))
    return case(cls(axis=axis), f32(*shape), indices(draw, dims(draw, 0, 2), shape[axis]))


@family("gather_elements", "scatter_elements")
def by_element(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 3, least=1)
    axis = an_axis(draw, len(shape))
    chosen = tuple(number(draw, 1, d) for d in shape)
    where = indices(draw, chosen, shape[axis])
    if cls is o.GatherElements:
        return case(cls(axis=axis), f32(*shape), where)
    return case(made(draw, cls, axis=axis), f32(*shape), where, f32(*chosen))


@family("gather_nd", "scatter_nd")
def by_place(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    batch = number(draw, 0, len(shape) - 1) if cls is o.GatherND else 0
    depth = number(draw, 1, len(shape) - batch)
    rows = (*shape[:batch], *dims(draw, 0, 2, least=1))
    places = [indices(draw, rows, d) for d in shape[batch : batch + depth]]
    where = np.stack(places, axis=-1)
    if cls is o.GatherND:
        return case(cls(batch_dims=batch), f32(*shape), where)
    return case(made(draw, cls), f32(*shape), where, f32(*rows, *shape[depth:]))


@family("topk")
def largest(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    axis = an_axis(draw, len(shape))
    return case(made(draw, cls, axis=axis), f32(*shape), i64(number(draw, 0, shape[axis])))


@family("one_hot")
def one_hot(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 3)
    axis = an_axis(draw, len(shape) + 1)
    depth = number(draw, 1, 4)
    values = np.array([0, 1], np.float32)
    return case(cls(axis=axis), typed("i64", *shape), scalar(depth), values)


@family("compress")
def compressed(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 3, least=1)
    axis = draw(st.none() | st.just(an_axis(draw, len(shape))))
    length = number(draw, 1, math.prod(shape) if axis is None else shape[axis])
    kept = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    return case(cls(axis=axis), f32(*shape), kept, loose=True)


@family("reverse_sequence")
def reversed_parts(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 2, 4, least=1)
    batch = number(draw, 0, 1)
    lengths = i64(*(number(draw, 1, shape[1 - batch]) for _ in range(shape[batch])))
    return case(cls(batch_axis=batch, time_axis=1 - batch), f32(*shape), lengths)


@family("non_zero", "unique")
def found(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 3, least=1)
    if cls is o.NonZero:
        return case(cls(), f32(*shape), loose=True)
    axis = draw(st.none() | st.just(an_axis(draw, len(shape))))
    return case(made(draw, cls, axis=axis), f32(*shape), loose=True)


@family("tensor_scatter")
def cached(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 2, 4, least=1)
    axis = an_axis(draw, len(shape), 1)
    update = list(shape)
    update[axis] = number(draw, 1, shape[axis])
    return case(made(draw, cls, axis=axis), f32(*shape), f32(*update))


@dataclass(frozen=True)
class Window:
    """Random attributes of a window op, and sizes that it fits."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape
    sizes: Shape

    @classmethod
    def drawn(cls, draw: Draw, low: int = 1, high: int = 3, dilated: bool = True) -> Window:
        rank = number(draw, low, high)

        def each(first: int, last: int) -> Shape:
            return tuple(number(draw, first, last) for _ in range(rank))

        kernel = each(1, 3)
        strides = draw(st.just(()) | st.just(each(1, 3)))
        dilations = each(1, 2) if dilated and draw(st.booleans()) else ()
        pads = tuple(number(draw, 0, k - 1) for k in kernel * 2) if draw(st.booleans()) else ()
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations or (1,) * rank, strict=True)]
        sizes = tuple(r + number(draw, 0, 4) for r in reach)
        return cls(kernel, strides, dilations, pads, sizes)

    def fields(self, draw: Draw, auto: bool = True) -> dict[str, Any]:
        """Attributes of a convolution: padding by numbers, or by a rule."""
        found: dict[str, Any] = {"strides": self.strides, "dilations": self.dilations}
        rule = draw(st.sampled_from(("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")))
        if not auto or rule == "NOTSET":
            return found | {"pads": self.pads}
        same = rule != "VALID"  # onnxruntime has no dilation with a rule
        return found | {"auto_pad": rule} | ({"dilations": ()} if same else {})


@family("conv", "conv_integer", "qlinear_conv")
def convolved(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw, *((1, 3) if cls is o.Conv else (2, 2)))
    group, taken, given_each = (number(draw, 1, n) for n in (2, 3, 2))
    op = cls(group=group, **window.fields(draw))
    x = (number(draw, 1, 2), group * taken, *window.sizes)
    weight = (group * given_each, taken, *window.kernel)
    if cls is o.ConvInteger:
        return case(op, typed("u8", *x), typed("u8", *weight))
    if cls is o.QLinearConv:
        scale, zero = scalar(0.5, np.float32), scalar(3, np.uint8)
        return case(op, typed("u8", *x), scale, zero, typed("u8", *weight), *(scale, zero) * 2)
    bias = f32(weight[0]) if draw(st.booleans()) else None
    return case(op, f32(*x), f32(*weight), bias)


@family("conv_transpose")
def transposed(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw)
    group, each, channels = (number(draw, 1, n) for n in (2, 2, 2))
    fields = window.fields(draw)
    steps = window.strides or (1,) * len(window.kernel)
    if draw(st.booleans()) and "auto_pad" not in fields:
        fields["output_padding"] = tuple(number(draw, 0, s - 1) for s in steps)
    x = (number(draw, 1, 2), group * each, *(d + 2 for d in window.sizes))
    return case(cls(group=group, **fields), f32(*x), f32(group * each, channels, *window.kernel))


@family("deform_conv")
def deformed(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw, 2, 2)
    op = o.DeformConv(pads=window.pads, strides=window.strides, dilations=window.dilations)
    x, weight = (number(draw, 1, 2), 2, *window.sizes), (3, 2, *window.kernel)
    plain = o.Conv(pads=op.pads, strides=op.strides, dilations=op.dilations)
    places = plain.infer(f32(*x), f32(*weight))[0].static_shape
    assert places is not None
    offset = (x[0], 2 * math.prod(window.kernel), *places[2:])
    return case(op, f32(*x), f32(*weight), f32(*offset))


@family("col2im")
def folded(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw, 2, 2)
    op = o.Col2Im(pads=window.pads, strides=window.strides, dilations=window.dilations)
    image = f32(1, 1, *window.sizes)
    kernel = f32(1, 1, *window.kernel)
    conv = o.Conv(pads=op.pads, strides=op.strides, dilations=op.dilations)
    places = conv.infer(image, kernel)[0].static_shape
    assert places is not None
    n, c = number(draw, 1, 2), number(draw, 1, 3)
    x = f32(n, c * math.prod(window.kernel), math.prod(places))
    return case(op, x, i64(*window.sizes), i64(*window.kernel))


@family("causal_conv_with_state")
def causal(draw: Draw, cls: type[Op]) -> Case:
    n, c, length, k = dims(draw, 4, 4, least=1)
    state = f32(n, c, k - 1) if k > 1 and draw(st.booleans()) else None
    return case(made(draw, cls), f32(n, c, length), f32(c, 1, k), f32(c), state)


@family("average_pool", "max_pool", "lp_pool")
def pooled(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw, 1, 2 if cls is o.LpPool else 3)
    fields = window.fields(draw)
    ceil = draw(st.booleans()) and "auto_pad" not in fields
    extra = {"count_include_pad": draw(st.booleans())} if cls is o.AveragePool else {}
    op = cls(kernel_shape=window.kernel, ceil_mode=ceil, **fields, **extra)
    return case(op, f32(number(draw, 1, 2), number(draw, 1, 3), *window.sizes))


@family("max_unpool")
def unpooled(draw: Draw, cls: type[Op]) -> Case:
    window = Window.drawn(draw, 1, 3, dilated=False)
    op = cls(kernel_shape=window.kernel, strides=window.strides)
    shape = dims(draw, 2, 2, least=1) + dims(draw, len(window.kernel), len(window.kernel), least=1)
    where = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    return case(op, f32(*shape), where)


@family("global_average_pool", "global_max_pool", "global_lp_pool")
def pooled_whole(draw: Draw, cls: type[Op]) -> Case:
    return case(cls(), f32(*dims(draw, 3, 5, least=1)))


@family("roi_align", "grid_sample", "affine_grid")
def sampled(draw: Draw, cls: type[Op]) -> Case:
    n, c, h, w = dims(draw, 4, 4, least=1)
    if cls is o.RoiAlign:
        height, width, count = dims(draw, 3, 3, least=1)
        op = made(draw, cls, output_height=height, output_width=width)
        return case(op, f32(n, c, h, w), f32(count, 4), np.zeros(count, np.int64))
    if cls is o.GridSample:
        return case(made(draw, cls), f32(n, c, h, w), f32(n, *dims(draw, 2, 2, least=1), 2))
    if draw(st.booleans()):
        return case(made(draw, cls), f32(n, 2, 3), i64(n, c, h, w))
    return case(made(draw, cls), f32(n, 3, 4), i64(n, c, h, w, number(draw, 1, 3)))


@family("resize")
def resized(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 1, 4, least=1)
    axes = some_axes(draw, len(shape))
    count = len(axes) or len(shape)
    if draw(st.booleans()):
        sizes = [shape[a] for a in axes or range(count)]
        scales = [draw(st.sampled_from((0.5, 1.0, 1.5, 2.0, 2.6))) for _ in sizes]
        kept = [s if d * s >= 1 else 1.0 for d, s in zip(sizes, scales, strict=True)]
        return case(cls(axes=axes), f32(*shape), None, np.array(kept, np.float32))
    policy = draw(st.sampled_from(("stretch", "not_larger", "not_smaller")))
    if policy != "stretch":  # onnxruntime counts no axis from the end then
        axes = tuple(a % len(shape) for a in axes)
    sizes = i64(*(number(draw, 1, 6) for _ in range(count)))
    return case(cls(axes=axes, keep_aspect_ratio_policy=policy), f32(*shape), None, None, sizes)


@family("matmul", "matmul_integer", "qlinear_matmul")
def product(draw: Draw, cls: type[Op]) -> Case:
    m, k, n = dims(draw, 3, 3, least=1)
    batch = dims(draw, 0, 2, least=1)
    left, right = (*narrowed(draw, batch), m, k), (*narrowed(draw, batch), k, n)
    if cls is o.MatMulInteger:
        return case(cls(), typed("u8", *left), typed("u8", *right))
    if cls is o.QLinearMatMul:
        scale, zero = scalar(0.5, np.float32), scalar(3, np.uint8)
        pair = (scale, zero)
        return case(cls(), typed("u8", *left), *pair, typed("u8", *right), *pair, *pair)
    vectors = draw(st.sampled_from(("", "", "left", "right", "both")))
    left = (k,) if vectors in ("left", "both") else left
    return case(cls(), f32(*left), f32(k) if vectors in ("right", "both") else f32(*right))


@family("gemm")
def gemm(draw: Draw, cls: type[Op]) -> Case:
    m, k, n = dims(draw, 3, 3, least=1)
    op: Any = made(draw, cls)
    bias = f32(*narrowed(draw, (m, n))) if draw(st.booleans()) else None
    a = (k, m) if op.trans_a else (m, k)
    return case(op, f32(*a), f32(*((n, k) if op.trans_b else (k, n))), bias)


@family("einsum")
def summed(draw: Draw, cls: type[Op]) -> Case:
    sizes = dict(zip("abcd", dims(draw, 4, 4, least=1), strict=True))
    labels = st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=3)
    terms = [draw(labels) for _ in range(number(draw, 1, 2))]
    seen = sorted({label for term in terms for label in term})
    kept = draw(st.lists(st.sampled_from(seen), unique=True))
    equation = ",".join("".join(t) for t in terms)
    if draw(st.booleans()):
        equation += "->" + "".join(kept)
    return case(cls(equation=equation), *(f32(*(sizes[i] for i in t)) for t in terms))


NORMS = ("batch_normalization", "instance_normalization", "group_normalization")


@family(*NORMS, "layer_normalization", "rms_normalization", "lrn", "mean_variance_normalization")
def normalized(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 3, 4, least=1)
    per_channel = f32(shape[1])
    if cls is o.BatchNormalization:
        return case(cls(), f32(*shape), *(per_channel,) * 4)
    if cls is o.InstanceNormalization:
        return case(cls(), f32(*shape), per_channel, per_channel)
    if cls is o.GroupNormalization:
        groups = draw(st.sampled_from([n for n in (1, 2, 3, 4) if shape[1] % n == 0]))
        return case(o.GroupNormalization(num_groups=groups), f32(*shape), per_channel, per_channel)
    if cls is o.LRN:
        return case(o.LRN(size=3), f32(*shape, *dims(draw, 4 - len(shape), 4 - len(shape), 1)))
    if cls is o.MeanVarianceNormalization:
        return case(cls(), f32(*dims(draw, 4, 4, least=1)))
    axis = an_axis(draw, len(shape))
    return case(made(draw, cls, axis=axis), f32(*shape), f32(*shape[axis:]))


@family("rnn", "gru", "lstm")
def recurrent(draw: Draw, cls: Any) -> Case:
    length, batch, width, hidden = dims(draw, 4, 4, least=1)
    direction = draw(st.sampled_from(("forward", "reverse", "bidirectional")))
    count = 2 if direction == "bidirectional" else 1
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cls.name]
    w, r = f32(count, gates * hidden, width), f32(count, gates * hidden, hidden)
    bias = f32(count, 2 * gates * hidden) if draw(st.booleans()) else None
    return case(cls(hidden_size=hidden, direction=direction), f32(length, batch, width), w, r, bias)


@family("dynamic_quantize_lstm")
def recurrent_in_integers(draw: Draw, cls: type[Op]) -> Case:
    """Weights are turned; scales and zero points are one for each direction, or each column."""
    length, batch, width, hidden = dims(draw, 4, 4, least=1)
    direction = draw(st.sampled_from(("forward", "reverse", "bidirectional")))
    count = 2 if direction == "bidirectional" else 1
    elem = draw(st.sampled_from(("i8", "u8")))
    bias = f32(count, 8 * hidden) if draw(st.booleans()) else None
    weights = [np.ones((count, n, 4 * hidden), typed(elem).elem.dtype) for n in (width, hidden)]
    scales = (count, 4 * hidden) if draw(st.booleans()) else (count,)
    stored = np.full(scales, 0.5, np.float32), np.zeros(scales, weights[0].dtype)
    op = made(draw, cls, hidden_size=hidden, direction=direction)
    x = f32(length, batch, width)
    return case(op, x, *weights, bias, None, None, None, None, *stored, *stored)


@family("attention")
def attention(draw: Draw, cls: type[Op]) -> Case:
    batch, shared, queries, keys = dims(draw, 4, 4, least=1)
    width, values, times, past = (number(draw, 1, n) for n in (4, 4, 2, 3))
    heads = shared * times
    causal = draw(st.booleans())
    before = ()
    if draw(st.booleans()):
        before = (None, f32(batch, shared, past, width), f32(batch, shared, past, values))
    if draw(st.booleans()):
        q, k, v = (heads, queries, width), (shared, keys, width), (shared, keys, values)
        return case(cls(is_causal=causal), *(f32(batch, *s) for s in (q, k, v)), *before)
    op = o.Attention(q_num_heads=heads, kv_num_heads=shared, is_causal=causal)
    flat = (queries, heads * width), (keys, shared * width), (keys, shared * values)
    return case(op, *(f32(batch, *s) for s in flat), *before)


@family("rotary_embedding")
def rotated(draw: Draw, cls: type[Op]) -> Case:
    batch, heads, length, half = dims(draw, 4, 4, least=1)
    angles = f32(batch, length, half)
    if draw(st.booleans()):
        return case(made(draw, cls), f32(batch, heads, length, 2 * half), angles, angles)
    op = made(draw, cls, num_heads=heads)
    return case(op, f32(batch, length, 2 * half * heads), angles, angles)


@family("linear_attention")
def linear_attention(draw: Draw, cls: type[Op]) -> Case:
    batch, length, shared, width = dims(draw, 4, 4, least=1)
    values, times = number(draw, 1, 4), number(draw, 1, 2)
    op = o.LinearAttention(q_num_heads=shared * times, kv_num_heads=shared, update_rule="linear")
    state = f32(batch, shared, width, values) if draw(st.booleans()) else None
    flat = (shared * times * width, shared * width, shared * values)
    return case(op, *(f32(batch, length, s) for s in flat), state)


@family("negative_log_likelihood_loss", "softmax_cross_entropy_loss")
def loss(draw: Draw, cls: type[Op]) -> Case:
    n, c, *rest = dims(draw, 2, 4, least=1)
    labels = abs(indices(draw, (n, *rest), c)) % c
    weight = f32(c) if draw(st.booleans()) else None
    return case(made(draw, cls), f32(n, c, *rest), labels, weight)


@family("non_max_suppression")
def suppressed(draw: Draw, cls: type[Op]) -> Case:
    n, classes, boxes = dims(draw, 3, 3, least=1)
    return case(cls(), f32(n, boxes, 4), f32(n, classes, boxes), i64(2), loose=True)


@family("constant_of_shape", "random_normal", "random_uniform", "range", "multinomial")
def generated(draw: Draw, cls: Any) -> Case:
    shape = dims(draw, 0, 3)
    if cls is o.ConstantOfShape:
        value = draw(st.sampled_from((None, Data.of(i64(7)), Data.of(np.array([1.5])))))
        return case(cls(value=value), i64(*shape))
    if cls is o.Range:
        bounds = [number(draw, -6, 6) for _ in range(2)]
        return case(cls(), *map(scalar, (*bounds, draw(st.sampled_from((1, 2, 3, -1, -2))))))
    if cls is o.Multinomial:
        return case(cls(sample_size=number(draw, 1, 4)), f32(*dims(draw, 2, 2, least=1)))
    return case(cls(shape=(*shape, 2), dtype=draw(st.sampled_from(("f32", "f64")))))


@family("hann_window", "hamming_window", "blackman_window", "mel_weight_matrix")
def weights(draw: Draw, cls: Any) -> Case:
    if cls is not o.MelWeightMatrix:
        return case(made(draw, cls, dtype=draw(st.sampled_from(("f32", "f64")))), scalar(5))
    edges = (scalar(v, np.float32) for v in (0, 4000))
    return case(cls(), scalar(number(draw, 1, 6)), scalar(16), scalar(8192), *edges)


@family("dft")
def spectrum(draw: Draw, cls: type[Op]) -> Case:
    shape = dims(draw, 2, 3, least=2)
    op: Any = made(draw, cls, onesided=False) if draw(st.booleans()) else o.DFT(onesided=True)
    parts = 1 if op.onesided else number(draw, 1, 2)
    length = scalar(number(draw, 2, 6)) if draw(st.booleans()) else None
    axis = scalar(number(draw, 0, len(shape) - 1)) if draw(st.booleans()) else None
    return case(op, f32(*shape, parts), length, axis)


@family("stft")
def spectra(draw: Draw, cls: type[Op]) -> Case:
    length = number(draw, 2, 8)
    x = f32(number(draw, 1, 2), length + number(draw, 0, 9), 1)
    step = scalar(number(draw, 1, 4))
    if draw(st.booleans()):
        return case(made(draw, cls), x, step, f32(length))
    return case(made(draw, cls), x, step, None, scalar(length))


SEEN_AS = tuple[TensorType, ...]


def seen(operand: Operand, change: Callable[[TensorType], TensorType]) -> TensorType | None:
    """What inference sees of an operand: constants with their contents."""
    if operand is None or isinstance(operand, TensorType):
        return operand and change(operand)
    elem = Elem.of(operand.dtype)
    held = elem.is_integer and operand.size <= VALUE_LIMIT
    value = tuple(int(v) for v in operand.reshape(-1)) if held else None
    return TensorType(elem, operand.shape, value=value)


def inferred(found: Case, change: Callable[[TensorType], TensorType] = lambda t: t) -> SEEN_AS:
    types = [seen(operand, change) for operand in found.operands]
    if isinstance(found.op, o.Resize) and isinstance(found.operands[2], np.ndarray):
        assert types[0] is not None
        return (found.op.scaled(types[0], found.operands[2]),)
    return typing.cast(SEEN_AS, found.op.infer(*types))


def symbolic(found: TensorType) -> TensorType:
    """Sizes of 2 and more as symbols; inference takes others for what they are."""
    assert found.static_shape is not None
    return replace(found, shape=tuple(d if d < 2 else symbol(f"d{d}") for d in found.static_shape))


NUMBERS = {f"d{n}": n for n in range(2, 512)}


def model_of(found: Case, types: SEEN_AS, change: Callable[[TensorType], TensorType]) -> ModelProto:
    """The one node as ONNX, without a word on the types of its results."""
    module = Module("case", {"": OPSET})
    operands = []
    for i, operand in enumerate(found.operands):
        if isinstance(operand, np.ndarray):
            operands.append(module.add_constant(f"in{i}", Data.of(operand)))
        else:
            added = operand and module.graph.add_input(f"in{i}", change(operand))
            operands.append(added)
    names = [f"out{i}" for i in range(len(types))]
    node = module.graph.insert(found.op, operands, types, names=names)
    module.graph.set_outputs(node.present_results)
    assert found.op.onnx is not None
    try:
        model = export_onnx(module, opset=max(OPSET, found.op.onnx.since))
    except QdqcError:
        model = export_onnx(module)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def told(model: ModelProto, strict: bool) -> list[Sequence[Dim | str] | None]:
    """The shapes of the outputs as onnx infers them; symbols that it invents are nothing."""
    after = shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
    shapes: list[Sequence[Dim | str] | None] = []
    for output in after.graph.output:
        tensor = output.type.tensor_type
        dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or None
            for d in tensor.shape.dim
        ]
        dims = [None if isinstance(d, str) and d.startswith("unk__") else d for d in dims]
        shapes.append(dims if tensor.HasField("shape") else None)
    return shapes


def run(model: ModelProto, found: Case) -> list[Any]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for i, operand in enumerate(found.operands):
        if isinstance(operand, TensorType) and operand.static_shape is not None:
            top = 1 if operand.elem.is_float else 2
            raw = rng.uniform(0, top, operand.static_shape)
            feeds[f"in{i}"] = np.asarray(raw).astype(operand.elem.dtype)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def numeric(dim: Dim) -> Dim:
    return dim.substitute(NUMBERS) if isinstance(dim, Expr) else dim


def assert_as_told(ours: TensorType, theirs: Sequence[Dim | str] | None, loose: bool) -> None:
    """What onnx tells we know too, and nothing else in its place."""
    if theirs is None:
        return
    if ours.shape is None:
        assert loose, f"onnx infers {theirs}, and nothing is inferred here"
        return
    assert len(ours.shape) == len(theirs)
    for a, b in zip(ours.shape, theirs, strict=True):
        known = isinstance(a, int) or (isinstance(a, Expr) and isinstance(b, str))
        agrees = known and numeric(a) == NUMBERS.get(str(b), b)
        assert b is None or agrees or loose, f"{ours.shape} against {theirs}"


def assert_runs(model: ModelProto, found: Case, exact: SEEN_AS) -> None:
    for result, type in zip(run(model, found), exact, strict=True):
        assert Elem.of(result.dtype) is type.elem
        assert compatible(type, TensorType(type.elem, result.shape)), result.shape
        assert found.loose or type.static_shape == result.shape


def assert_holds(found: Case, with_symbols: bool, executed: bool) -> None:
    exact = inferred(found)
    change = symbolic if with_symbols else lambda t: t
    types = inferred(found, change)
    for less, whole in zip(types, exact, strict=True):
        assert compatible(less.substitute(NUMBERS), whole), f"{less.shape} for {whole.shape}"
    for unknown in (lambda t: replace(t, shape=None), blank):
        for less, whole in zip(inferred(found, unknown), exact, strict=True):
            assert compatible(less, whole), f"{less.shape} for {whole.shape}"
    model = model_of(found, types, change)
    strict = not isinstance(found.op, o.MeanVarianceNormalization)  # its function fails in onnx
    for ours, theirs in zip(types, told(model, strict), strict=True):
        if theirs and with_symbols and found.op.name in ZEROS_FOR_SYMBOLS:
            theirs = [d or None for d in theirs]
        assert_as_told(ours, theirs, found.loose)
    if executed:
        assert_runs(model, found, exact)


def blank(found: TensorType) -> TensorType:
    return replace(found, shape=(None,) * len(found.shape or ()))


def native() -> list[str]:
    load_ops()
    return sorted(set(OPS.names()) - set(EXEMPT))


def test_no_op_is_forgotten() -> None:
    load_ops()
    assert set(FAMILIES) | set(EXEMPT) == set(OPS.names())
    assert not set(FAMILIES) & set(EXEMPT)
    assert all(EXEMPT.values())
    assert set(NEVER_RUN) < set(FAMILIES)


@pytest.mark.parametrize("name", native())
def test_infer(name: str) -> None:
    cls = OPS.get(name)
    counts: Counter[bool] = Counter()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        found = FAMILIES[name](data.draw, cls)
        executed = name not in NEVER_RUN and number(data.draw, 0, 3) == 0
        assert_holds(found, not executed and data.draw(st.booleans()), executed)
        counts[executed] += 1

    holds()
    assert counts[True] or name in NEVER_RUN
