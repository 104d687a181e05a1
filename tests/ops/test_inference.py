"""The shape arithmetic that ops share, against numpy and onnxruntime on random sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import AveragePool, ConvTranspose, Expand, Reshape, Slice, Transpose
from qdqc.ops.inference import broadcast_shapes, least, typed, window_dim
from qdqc.ops.slicing import slice_dim

SIZES = st.integers(1, 12)
BOUNDS = st.one_of(st.integers(-15, 15), st.sampled_from([2**31 - 1, 2**63 - 1, -(2**63)]))
N, S = symbol("N"), symbol("S")


def value(*dims: Dim) -> TensorType:
    return TensorType(Elem.I64, (len(dims),), value=dims)


def numeric(dim: Dim, **values: int) -> Dim:
    return dim.substitute(values) if isinstance(dim, Expr) else dim


def symbols(shape: tuple[int, ...]) -> tuple[tuple[Dim, ...], dict[str, int]]:
    """Symbols in place of a shape's sizes, and what they stand for."""
    names = {f"s{i}": d for i, d in enumerate(shape)}
    return tuple(symbol(n) for n in names), names


def ort_shape(type: str, shape: tuple[int, ...], *extra: Any, **attributes: Any) -> tuple[int, ...]:
    """The shape that onnxruntime gives to a node on zeros of ``shape``; ``extra`` are weights."""
    weights = [
        helper.make_tensor(f"w{i}", TensorProto.FLOAT, w, np.zeros(w)) for i, w in enumerate(extra)
    ]
    node = helper.make_node(type, ["x", *(w.name for w in weights)], ["y"], **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros(shape, np.float32)})
    return np.asarray(found).shape


@given(
    size=SIZES,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ceil=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_pooling_windows_are_counted_as_onnxruntime_does(size, kernel, stride, pads, ceil):
    assume(max(pads) < kernel <= size + sum(pads))
    op = AveragePool(kernel_shape=(kernel,), pads=pads, strides=(stride,), ceil_mode=ceil)
    (found,) = op.infer(TensorType(Elem.F32, (1, 1, size)))
    given_shape = {"kernel_shape": [kernel], "pads": pads, "strides": [stride]}
    assert found.shape == ort_shape("AveragePool", (1, 1, size), ceil_mode=int(ceil), **given_shape)


@given(
    size=SIZES,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    auto_pad=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    ceil=st.booleans(),
)
@settings(deadline=None)
def test_a_symbolic_window_is_the_numeric_one(size, ceil, **how):
    try:
        exact = window_dim(size, ceil=ceil, **how)
    except ValueError:
        return
    found = window_dim(S, ceil=ceil, **how)
    assert found is None or numeric(found, S=size) == exact


@given(
    size=SIZES,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    extra=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_transposed_windows_are_counted_as_onnxruntime_does(size, kernel, stride, pads, extra):
    assume((size - 1) * stride + extra + kernel > sum(pads) and extra < stride)
    op = ConvTranspose(pads=pads, strides=(stride,), output_padding=(extra,))
    weight = TensorType(Elem.F32, (1, 2, kernel))
    (found,) = op.infer(TensorType(Elem.F32, (1, 1, size)), weight)
    how = {"pads": pads, "strides": [stride], "output_padding": [extra]}
    assert found.shape == ort_shape("ConvTranspose", (1, 1, size), (1, 2, kernel), **how)
    (open_,) = op.infer(TensorType(Elem.F32, (1, 1, S)), weight)
    assert numeric(open_.shape[2], S=size) == found.shape[2]


def onnx_slice(size, start, end, step):
    """What ONNX reads: numpy's slice, but backwards a start before the axis is its first element.

    None where ONNX and onnxruntime differ: a backward slice to the largest integer.
    """
    if step < 0 and end in (2**31 - 1, 2**63 - 1):
        return None
    return range(size)[max(start, -size) if step < 0 and size else start : end : step]


@given(size=SIZES, start=BOUNDS, end=BOUNDS, step=st.integers(-4, 4).filter(bool))
@settings(max_examples=300)
def test_slices_are_onnxs(size, start, end, step):
    places = onnx_slice(size, start, end, step)
    exact = None if places is None else len(places)
    assert slice_dim(size, start, end, step) == exact
    found = slice_dim(S, start, end, step)
    assert found is None or numeric(found, S=size) == exact


@given(size=SIZES, start=BOUNDS, end=BOUNDS, step=st.integers(-4, 4).filter(bool))
def test_slices_of_known_contents_are_onnxs(size, start, end, step):
    held = tuple(range(100, 100 + size))
    (found,) = Slice().infer(value(*held), value(start), value(end), value(0), value(step))
    places = onnx_slice(size, start, end, step)
    if places is None:
        assert found.value is None
        assert found.shape == (None,)
    else:
        assert found.value == tuple(held[place] for place in places)
        assert found.shape == (len(places),)


@pytest.mark.parametrize(
    ("start", "end", "step", "wanted"),
    [
        (0, 2**63 - 1, 1, "S"),
        (1, 2**31 - 1, 1, "S-1"),
        (-1, 2**63 - 1, 1, "1"),
        (0, -1, 1, "S-1"),
        (0, 1, 1, "1"),
        (0, N, 1, "N"),
        (N, N + 3, 1, "3"),
        (0, 2**63 - 1, 2, "(S+1)//2"),
        (-1, -(2**63), -1, "S"),
        (2, 2**63 - 1, 1, "None"),  # S may be 1
        (0, 5, 1, "None"),
        (0, None, 1, "None"),
        (0, 1, S, "None"),
    ],
)
def test_slices_of_a_symbolic_axis(start, end, step, wanted):
    assert str(slice_dim(S, start, end, step)) == wanted


@given(shapes=st.lists(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3), min_size=1, max_size=3))
def test_broadcasting_is_numpys(shapes):
    wanted: tuple[int, ...] | None
    try:
        wanted = np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        wanted = None
    try:
        found = broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        found = None
    assert found == wanted
    blurred = [tuple(None if d == 3 else d for d in shape) for shape in shapes]
    if wanted is not None:
        shape = broadcast_shapes(*blurred)
        assert shape is not None
        assert all(a in (None, b) for a, b in zip(shape, wanted, strict=True))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape, a target with 0 and -1 in it, and the shape that comes out."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    cuts = draw(st.lists(st.booleans(), min_size=len(factors), max_size=len(factors)))
    result: list[int] = []
    for factor, cut in zip(factors, cuts, strict=True):
        if cut or not result:
            result.append(factor)
        else:
            result[-1] *= factor
    target = list(result)
    for i, size in enumerate(result):
        if i < len(factors) and factors[i] == size and draw(st.booleans()):
            target[i] = 0
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = -1
    return tuple(factors), tuple(target), tuple(result)


@given(case=reshapes())
@settings(max_examples=300)
def test_reshape_resolves_zero_and_minus_one(case):
    shape, target, wanted = case
    (found,) = Reshape().infer(TensorType(Elem.F32, shape), value(*target))
    assert found.shape == wanted
    open_shape, names = symbols(shape)
    (found,) = Reshape().infer(TensorType(Elem.F32, open_shape), value(*target))
    assert found.shape is not None
    assert all(
        d is None or numeric(d, **names) == w for d, w in zip(found.shape, wanted, strict=True)
    )


@pytest.mark.parametrize(
    ("shape", "target", "wanted"),
    [
        ((N, S, 384), (N, S, 12, 32), (N, S, 12, 32)),
        ((N, S, 384), (0, 0, 12, -1), (N, S, 12, 32)),
        ((N, S, 384), (-1, 384), (N * S, 384)),
        ((N, 12, S, 32), (N * 12, S, -1), (N * 12, S, 32)),
        ((None, S, 6), (0, -1), (None, S * 6)),
        ((N, S), (None, S), (N, S)),
        ((N, S), (-1, None), (None, None)),
        ((N, 8), (-1, 3), ((N * 8) // 3, 3)),
        (None, (0, -1, 4), (None, None, 4)),
        ((), (1, -1), (1, 1)),
        ((0, 3), (-1,), (0,)),
    ],
)
def test_reshape_by_symbols(shape, target, wanted):
    (found,) = Reshape().infer(TensorType(Elem.F32, shape), value(*target))
    assert found.shape == wanted


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ((4, -1), r"\[2, 3\] does not reshape to \[4, -1\]"),
        ((-1, -1), "-1 more than once"),
        ((5,), r"\[2, 3\] does not reshape to \[5\]"),
        ((2, -2), "only -1 has a meaning below 0"),
        ((2, 3, 0), "entry 2 of the shape is 0, but x has rank 2"),
    ],
)
def test_reshape_declines(target, words):
    with pytest.raises(ValueError, match=words):
        Reshape().infer(TensorType(Elem.F32, (2, 3)), value(*target))


@given(dims=st.lists(st.integers(-2, 3), min_size=1, max_size=3), at=st.integers(1, 9))
def test_least_is_a_lower_bound(dims, at):
    expression: int | Expr = 0
    for power, factor in enumerate(dims):
        term: int | Expr = factor
        for _ in range(power):
            term = term * N
        expression = expression + term // 2 + S // 3
    bound = least(expression)
    assert bound is None or bound <= numeric(expression, N=at, S=at)


def test_contents_are_kept_only_where_they_are_of_use():
    assert typed(Elem.I64, (2,), (N, 3)).value == (N, 3)
    assert typed(Elem.F32, (2,), (N, 3)).value is None
    assert typed(Elem.I64, (65,), (1,) * 65).value is None
    assert typed(Elem.I64, (2, 1), (1, 2)).value == (1, 2)
    assert typed(Elem.I64, (2, None), (1, 2)).value is None
    assert typed(Elem.I64, (3,), (1, 2)).value is None
    assert typed(Elem.I64, (None,), (1, 2)).shape == (2,)


def test_moving_ops_follow_contents():
    one = TensorType(Elem.I64, (1,), value=(S,))
    assert Expand().infer(one, value(3))[0].value == (S, S, S)
    assert Transpose().infer(one)[0].value == (S,)
