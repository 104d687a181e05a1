"""Shapes and known contents of ops that move elements, against numpy on random integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import qdqc.ops as o
from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.merge import compatible
from qdqc.ir.op import Op
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType

Numbers = npt.NDArray[Any]

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
NONEMPTY = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def held(array: Numbers) -> TensorType:
    """The type of an array, with its contents."""
    return TensorType(Elem.of(array.dtype), array.shape, value=tuple(array.reshape(-1).tolist()))


def i64(*values: int) -> TensorType:
    return held(np.array(values, np.int64))


def counted(shape: tuple[int, ...]) -> Numbers:
    return np.arange(10, 10 + int(np.prod(shape)), dtype=np.int64).reshape(shape)


def symbolic(found: TensorType) -> tuple[TensorType, dict[str, int]]:
    """A type with a symbol for each size, and what the symbols stand for."""
    assert found.static_shape is not None
    names = {f"d{i}": d for i, d in enumerate(found.static_shape)}
    return TensorType(found.elem, tuple(symbol(n) for n in names)), names


def agree(op: Op, x: Numbers, wanted: Numbers, *others: TensorType, exact: bool = True) -> None:
    """The op on x gives numpy's shape and, where contents are followed, numpy's elements.

    On symbols in place of sizes it gives the same once numbers are put in, or knows less.
    """
    (found,) = op.infer(held(x), *others)
    assert found.shape == wanted.shape
    assert found.elem is Elem.of(wanted.dtype)
    if found.value is not None:
        assert found.value == tuple(wanted.reshape(-1).tolist())
    else:
        assert not exact or wanted.size > VALUE_LIMIT
    open_x, names = symbolic(held(x))
    (open_,) = op.infer(open_x, *others)
    assert compatible(open_.substitute(names), found)
    (blind,) = op.infer(TensorType(open_x.elem), *others)
    assert compatible(blind, found)


@given(shape=SHAPES, data=st.data())
def test_transpose(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    agree(o.Transpose(perm=perm), x, x.transpose(perm) if perm else x)
    agree(o.Transpose(), x, x.T)


@given(shape=NONEMPTY, axis=st.integers(-4, 4))
def test_flatten(shape: tuple[int, ...], axis: int):
    x = counted(shape)
    assume(-len(shape) <= axis <= len(shape))
    at = axis + len(shape) if axis < 0 else axis
    rows = int(np.prod(shape[:at]))
    agree(o.Flatten(axis=axis), x, x.reshape(rows, -1), exact=False)


@given(shape=SHAPES, data=st.data())
def test_squeeze_and_unsqueeze(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    count = data.draw(st.integers(0, 3))
    rank = len(shape) + count
    places = data.draw(st.permutations(range(rank)))[:count]
    axes = tuple(a - rank if data.draw(st.booleans()) else a for a in places)
    wider = np.expand_dims(x, tuple(axes)) if axes else x
    agree(o.Unsqueeze(axes=axes), x, wider)
    if axes:
        agree(o.Squeeze(axes=axes), wider, np.squeeze(wider, tuple(axes)))
    agree(o.Squeeze(), wider, np.squeeze(wider))


@given(shape=SHAPES, target=st.lists(st.sampled_from([1, 1, 2, 3]), max_size=4))
def test_expand(shape: tuple[int, ...], target: list[int]):
    x = counted(shape)
    try:
        wanted = np.broadcast_to(x, np.broadcast_shapes(shape, tuple(target)))
    except ValueError:
        with pytest.raises(ValueError, match="do not broadcast"):
            o.Expand().infer(held(x), i64(*target))
        return
    agree(o.Expand(), x, wanted, i64(*target), exact=len(shape) < 2 and wanted.ndim < 2)


@given(shape=NONEMPTY, data=st.data())
def test_tile(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    size = len(shape)
    repeats = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    wanted = np.tile(x, repeats)
    agree(o.Tile(), x, wanted, i64(*repeats), exact=size == 1 and wanted.size > 0)


@given(shape=NONEMPTY, data=st.data())
def test_gather(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    inside = st.integers(-shape[axis], shape[axis] - 1)
    picked = data.draw(st.one_of(inside, st.lists(inside, min_size=1, max_size=4)))
    indices = np.array(picked, np.int64)
    wanted = np.take(x, indices, axis)
    agree(o.Gather(axis=axis), x, wanted, held(indices), exact=len(shape) == 1)


@given(shape=NONEMPTY, data=st.data())
def test_gather_elements(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    places = list(shape)
    places[axis] = data.draw(st.integers(1, 5))
    indices = np.zeros(places, np.int64)
    wanted = np.take_along_axis(x, indices, axis)
    agree(o.GatherElements(axis=axis), x, wanted, TensorType(Elem.I64, indices.shape), exact=False)


@given(shape=NONEMPTY, data=st.data())
@settings(max_examples=150)
def test_slice(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    order = data.draw(st.permutations(range(len(shape))))
    axes = order[: data.draw(st.integers(1, len(shape)))]
    bounds = []
    for axis in axes:
        step = data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
        # Backwards ONNX is not numpy before the axis, nor onnxruntime at the largest integer.
        start = data.draw(st.integers(-6 if step > 0 else -shape[axis], 6))
        far = st.just(2**63 - 1 if step > 0 else -(2**63))
        bounds.append((start, data.draw(st.one_of(st.integers(-6, 6), far)), step))
    places: list[Any] = [slice(None)] * len(shape)
    for axis, (start, end, step) in zip(axes, bounds, strict=True):
        places[axis] = slice(start, end, step)
    starts, ends, steps = (i64(*column) for column in zip(*bounds, strict=True))
    signed = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    agree(o.Slice(), x, x[tuple(places)], starts, ends, i64(*signed), steps)


@given(shape=NONEMPTY, data=st.data())
def test_split(shape: tuple[int, ...], data: st.DataObject):
    x = counted(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
    sizes = tuple(b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True))
    wanted = np.split(x, cuts, axis)
    found = o.Split(axis=axis, split=sizes).infer(held(x))
    assert [t.shape for t in found] == [w.shape for w in wanted]
    if len(shape) == 1:
        assert [t.value for t in found] == [tuple(w.tolist()) for w in wanted]


@given(size=st.integers(1, 12), count=st.integers(1, 6))
def test_even_split(size: int, count: int):
    """All parts but the last have the size rounded up, so numpy cuts at its multiples."""
    part = -(-size // count)
    assume(part * (count - 1) <= size)
    wanted = np.split(np.arange(size), [part * i for i in range(1, count)])
    found = o.Split(num_outputs=count).infer(held(np.arange(size)))
    assert [t.value for t in found] == [tuple(w.tolist()) for w in wanted]
    symbols = o.Split(num_outputs=count).infer(TensorType(Elem.I64, (symbol("S"),)))
    for known, exact in zip(symbols, found, strict=True):
        assert compatible(known.substitute({"S": size}), exact)


@given(shape=NONEMPTY, data=st.data())
def test_concat(shape: tuple[int, ...], data: st.DataObject):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts: list[Numbers] = []
    for size in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)):
        dims = list(shape)
        dims[axis] = size
        parts.append(counted(tuple(dims)))
    wanted = np.concatenate(parts, axis)
    (found,) = o.Concat(axis=axis).infer(*map(held, parts))
    assert found.shape == wanted.shape
    if len(shape) == 1:
        assert found.value == tuple(wanted.tolist())


@given(shape=NONEMPTY, data=st.data())
def test_pad(shape: tuple[int, ...], data: st.DataObject):
    order = data.draw(st.permutations(range(len(shape))))
    axes = order[: data.draw(st.integers(1, len(shape)))]
    widths = [(0, 0)] * len(shape)
    for axis in axes:
        widths[axis] = (data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)))
    wanted = np.pad(np.zeros(shape, np.float32), widths)
    pads = i64(*(widths[a][0] for a in axes), *(widths[a][1] for a in axes))
    x = TensorType(Elem.F32, shape)
    (found,) = o.Pad().infer(x, pads, None, i64(*axes))
    assert found.shape == wanted.shape
    open_x, names = symbolic(x)
    (open_,) = o.Pad().infer(open_x, pads, None, i64(*axes))
    assert open_.substitute(names) == found


REDUCTIONS = [
    (o.ReduceSum, np.sum),
    (o.ReduceProd, np.prod),
    (o.ReduceMax, np.max),
    (o.ReduceMin, np.min),
]


@pytest.mark.parametrize(("cls", "function"), REDUCTIONS)
@given(shape=NONEMPTY, keep=st.booleans(), data=st.data())
@settings(max_examples=40)
def test_reductions(
    cls: Any, function: Any, shape: tuple[int, ...], keep: bool, data: st.DataObject
):
    x = counted(shape)
    axes = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True)))
    # Axes of ONNX may be absent, which stands for all; numpy takes an empty tuple for none.
    wanted = np.asarray(function(x, axis=axes or None, keepdims=keep))
    op = cls(axes=axes, keepdims=keep)
    (found,) = op.infer(held(x))
    assert found.shape == wanted.shape
    if len(shape) == 1:
        assert found.value == tuple(wanted.reshape(-1).tolist())
    open_x, names = symbolic(held(x))
    assert op.infer(open_x)[0].substitute(names).shape == found.shape


@given(shape=NONEMPTY, keep=st.booleans(), data=st.data())
def test_arg_max(shape: tuple[int, ...], keep: bool, data: st.DataObject):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    wanted = np.argmax(counted(shape), axis, keepdims=keep)
    op = o.ArgMax(axis=axis, keepdims=keep)
    agree(op, counted(shape), np.asarray(wanted, np.int64), exact=False)


@st.composite
def factors(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that may or may not multiply."""
    depth = draw(st.integers(1, 3))
    left = [*draw(st.lists(st.sampled_from([1, 2, 3]), max_size=2)), depth]
    right = [draw(st.sampled_from([depth, depth, depth, 2]))]
    if draw(st.booleans()):
        left.insert(-1, draw(st.integers(1, 4)))
    if draw(st.booleans()):
        right.append(draw(st.integers(1, 4)))
        right = [*draw(st.lists(st.sampled_from([1, 2, 3]), max_size=2)), *right]
    return tuple(left), tuple(right)


@given(pair=factors())
@settings(max_examples=200)
def test_matmul(pair: tuple[tuple[int, ...], tuple[int, ...]]):
    a, b = (TensorType(Elem.F32, shape) for shape in pair)
    try:
        wanted = (np.zeros(pair[0]) @ np.zeros(pair[1])).shape
    except ValueError:
        with pytest.raises(ValueError, match=r"columns|do not broadcast"):
            o.MatMul().infer(a, b)
        return
    assert o.MatMul().infer(a, b)[0].shape == wanted
    blurred = [TensorType(Elem.F32, tuple(None for _ in shape)) for shape in pair]
    assert compatible(o.MatMul().infer(*blurred)[0], TensorType(Elem.F32, wanted))


@given(
    rows=st.integers(1, 4),
    depth=st.integers(1, 4),
    columns=st.integers(1, 4),
    left=st.booleans(),
    right=st.booleans(),
)
def test_gemm(rows: int, depth: int, columns: int, left: bool, right: bool):
    a = np.zeros((depth, rows) if left else (rows, depth))
    b = np.zeros((columns, depth) if right else (depth, columns))
    wanted = (a.T if left else a) @ (b.T if right else b)
    types = [TensorType(Elem.F32, v.shape) for v in (a, b)]
    (found,) = o.Gemm(trans_a=left, trans_b=right).infer(*types)
    assert found.shape == wanted.shape


EQUATIONS = ["ij,jk->ik", "ij,jk", "ii->i", "...ij,...jk->...ik", "ij->", "bhid,bhjd->bhij", "ab,c"]


@pytest.mark.parametrize("equation", EQUATIONS)
@given(data=st.data())
@settings(max_examples=20)
def test_einsum(equation: str, data: st.DataObject):
    sizes = {label: data.draw(st.integers(1, 4)) for label in "abcdhijk"}
    batch = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    shapes = [
        (*(batch if "..." in term else ()), *(sizes[c] for c in term.replace("...", "")))
        for term in equation.partition("->")[0].split(",")
    ]
    wanted = np.einsum(equation, *map(np.zeros, shapes)).shape
    (found,) = o.Einsum(equation=equation).infer(*(TensorType(Elem.F32, s) for s in shapes))
    assert found.shape == wanted
    names = {str(n): n for shape in shapes for n in shape}
    opened = [TensorType(Elem.F32, tuple(symbol(f"s{n}") for n in shape)) for shape in shapes]
    (open_,) = o.Einsum(equation=equation).infer(*opened)
    assert open_.substitute({f"s{n}": v for n, v in names.items()}).shape == wanted


@given(shape=st.lists(st.integers(0, 3), max_size=3), number=st.integers(-9, 9))
def test_constant_of_shape(shape: list[int], number: int):
    op = o.ConstantOfShape(value=Data.of(np.array([number])))
    wanted = np.full(shape, number)
    (found,) = op.infer(i64(*shape))
    assert found.shape == wanted.shape
    assert found.value in (None, tuple(wanted.reshape(-1).tolist()))


@given(shape=SHAPES, start=st.integers(-6, 6), end=st.one_of(st.none(), st.integers(-6, 6)))
def test_shape(shape: tuple[int, ...], start: int, end: int | None):
    """ONNX clamps the bounds to the rank, as Python's slices do."""
    (found,) = o.Shape(start=start, end=end).infer(TensorType(Elem.F32, shape))
    assert found.value == shape[start:end]
    assert found.shape == (len(shape[start:end]),)


@given(
    batch=st.integers(1, 2),
    depth=st.integers(1, 3),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    block=st.integers(1, 3),
)
def test_blocks(batch: int, depth: int, height: int, width: int, block: int):
    deep = TensorType(Elem.F32, (batch, depth * block**2, height, width))
    wide = TensorType(Elem.F32, (batch, depth, height * block, width * block))
    assert o.DepthToSpace(blocksize=block).infer(deep) == (wide,)
    assert o.SpaceToDepth(blocksize=block).infer(wide) == (deep,)
