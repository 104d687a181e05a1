"""Text and module say the same: parse(print(m)) == m, print(parse(t)) == t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.fields import Flat
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import (
    Elem,
    OptionalType,
    Quant,
    Range,
    SequenceType,
    TensorType,
    Type,
)
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module, print_node
from qdqc.text.sidecar import tensors
from qdqc.text.values import DEEPEST


@pytest.fixture(scope="module", autouse=True)
def _ops():
    with OPS.scratch():

        class AnyOp(Op):
            name, operands, results = "test.any", ("xs*",), ("ys*",)
            ints: tuple[int, ...] = ()
            factor: float = 1.0
            clamp: tuple[float, float] | None = None
            kind: str = ""
            flag: bool = False
            value: Any = None
            tensor: Data | None = None
            attrs: Flat = Flat()

        class TwoOp(Op):
            name, operands, results = "test.two", ("x", "h?"), ("y", "h?", "c?")

        globals().update(AnyOp=AnyOp, TwoOp=TwoOp)
        yield


AnyOp: Any = None
TwoOp: Any = None

names = st.text(min_size=1, max_size=8) | st.from_regex(r"[\w./:$-]{1,10}", fullmatch=True)
floats = st.floats(width=64) | st.sampled_from([0.0, -0.0, 6.0, 1e300, 1e22, 5e-324])
sizes = st.integers(0, 3)
NUMERIC = [e for e in Elem if e is not Elem.STRING]
QUANTIZABLE = [Elem.I8, Elem.U8, Elem.I4, Elem.U4, Elem.I16, Elem.I32, Elem.F8E4M3FN]


@st.composite
def dims(draw: Callable[[Any], Any]) -> Any:
    found: Any = symbol(draw(st.sampled_from(["N", "S", "past", "a b", "é"])))
    for _ in range(draw(st.integers(0, 3))):
        other = draw(st.integers(1, 4) | st.sampled_from(["N", "H"]).map(symbol))
        found = draw(st.sampled_from([found + other, found * other, found // other, found - other]))
    return found if not isinstance(found, int) or found >= 0 else None


shapes = st.none() | st.lists(st.integers(0, 9) | dims() | st.none(), max_size=4).map(tuple)


def contents(elem: Elem, shape: tuple[int, ...], seed: int) -> Data:
    """Random bits, NaN and infinities among them."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if elem is Elem.BOOL:
        return Data.of(rng.integers(0, 2, shape).astype(np.bool_))
    if elem.bits < 8:
        codes = rng.integers(0, 1 << elem.bits, shape)
        low = elem.limits[0] if elem.is_integer else 0
        return Data.of((codes + low).astype(elem.dtype), elem)
    raw = rng.integers(0, 256, count * elem.bits // 8).astype(np.uint8)
    found = raw.view(elem.dtype).reshape(shape)
    if not elem.is_integer:
        with np.errstate(invalid="ignore"):  # signalling NaN
            found = np.where(np.isnan(found), elem.dtype.type(np.nan), found)
    return Data.of(found, elem)


@st.composite
def datas(draw: Callable[[Any], Any]) -> Data:
    shape = tuple(draw(st.lists(sizes, max_size=3)))
    if draw(st.integers(0, 9)) == 0:
        count = int(np.prod(shape))
        strings = draw(st.lists(st.text(max_size=5), min_size=count, max_size=count))
        return Data(Elem.STRING, shape, None, strings=tuple(strings))
    return contents(draw(st.sampled_from(NUMERIC)), shape, draw(st.integers(0, 999)))


scales = st.floats(2**-20, 2**20, width=32)


@st.composite
def quantized(draw: Callable[[Any], Any], shape: tuple[int, ...] | None = None) -> TensorType:
    elem = draw(st.sampled_from(QUANTIZABLE))
    low, high = elem.limits if elem.is_integer else (0, 0)
    zeros = st.integers(max(low, -128), min(high, 255))
    if shape is None:
        shape = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    assert shape is not None
    kind = draw(st.sampled_from(["tensor", "axis", "block"] if shape else ["tensor"]))
    if kind == "tensor":
        return TensorType(elem, shape, Quant.make(draw(scales), draw(zeros)))
    axis = draw(st.integers(0, len(shape) - 1))
    counts = shape if kind == "block" else (shape[axis],)
    size = int(np.prod(counts))
    scale = np.array(draw(st.lists(scales, min_size=size, max_size=size)), np.float32)
    block = 1 if kind == "block" else None
    zero = draw(st.just(0) | zeros)
    return TensorType(elem, shape, Quant.make(scale.reshape(counts), zero, axis, block))


@st.composite
def types(draw: Callable[[Any], Any]) -> Type:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return SequenceType(draw(types()))
    if kind == 1:
        return OptionalType(draw(types()))
    if kind in (2, 3):
        return draw(quantized())
    found = TensorType(draw(st.sampled_from(list(Elem))), draw(shapes))
    if kind == 4:
        found = found.with_range(Range(draw(floats), draw(floats), draw(floats)))
    return found


scalars = st.none() | st.booleans() | st.integers() | floats | st.text(max_size=8)


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(value, dict | tuple) else 0


# Leaves are bounded, not levels: what holds next to nothing may be drawn deeper than text goes.
plain = st.recursive(
    scalars | types() | datas(),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
).filter(lambda value: depth(value) < DEEPEST)


@st.composite
def ops(draw: Callable[[Any], Any]) -> Op:
    flat = draw(st.dictionaries(names, plain, max_size=2))
    return AnyOp(
        ints=draw(st.lists(st.integers(-3, 300), max_size=4).map(tuple)),
        factor=draw(floats),
        clamp=draw(st.none() | st.tuples(floats, floats)),
        kind=draw(st.text(max_size=6)),
        flag=draw(st.booleans()),
        value=draw(plain),
        tensor=draw(st.none() | datas()),
        attrs=Flat(flat.items()),
    )


def fill(draw: Callable[[Any], Any], graph: Graph, held: list[Any], depth: int) -> None:
    module = graph.module

    def fresh() -> str:
        return module.fresh_name(draw(names))

    for _ in range(draw(st.integers(0, 2))):
        attrs = draw(st.none() | st.dictionaries(names, plain, max_size=2))
        held.append(graph.add_input(fresh(), draw(types()), attrs))
    for _ in range(draw(st.integers(0, 4))):
        optional = st.none() | st.sampled_from(held) if held else st.none()
        operands = draw(st.lists(optional, max_size=3))
        loc = Loc(tuple(draw(st.lists(st.text(max_size=6), max_size=2))))
        mode = draw(st.none() | st.sampled_from(["INT8", "F32"]))
        nested = [Graph(module) for _ in range(draw(st.integers(0, 2)) if depth < 2 else 0)]
        for inner in nested:
            fill(draw, inner, list(held), depth + 1)
        count = draw(st.integers(0, 3))
        given_names: list[str | None] = []
        for _ in range(count):
            name = fresh()
            taken = name in given_names
            given_names.append(None if taken or draw(st.integers(0, 4)) == 0 else name)
        found = [None if n is None else draw(types()) for n in given_names]
        node = graph.insert(
            draw(ops()), operands, found, given_names, loc=loc, mode=mode, graphs=nested
        )
        held.extend(node.present_results)
    if held:
        graph.set_outputs(draw(st.lists(st.sampled_from(held), max_size=3)))


@st.composite
def modules(draw: Callable[[Any], Any]) -> Module:
    module = Module(
        draw(names),
        draw(st.dictionaries(st.sampled_from(["", "com.microsoft", "x"]), st.integers(1, 25))),
        draw(st.dictionaries(st.sampled_from(["source", "target", "a b"]), scalars, max_size=2)),
    )
    held: list[Any] = []
    for _ in range(draw(st.integers(0, 3))):
        data = draw(datas())
        type = TensorType(data.elem, data.shape)
        held.append(module.add_constant(module.fresh_name(draw(names)), data, type))
    fill(draw, module.graph, held, 0)
    return module


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(modules())
def test_text_and_module_say_the_same(module: Module):
    text = print_module(module)
    store = {digest: data.buffer() for digest, data in tensors(module).items()}
    back = parse_module(text, resolve=store.get)
    assert print_module(back) == text
    assert back == module
    elided = print_module(module, elide=True)
    assert print_module(parse_module(elided), elide=True) == elided


@settings(max_examples=120, deadline=None)
@given(datas())
def test_contents_come_back_bit_for_bit(data: Data):
    module = Module()
    module.add_constant("c", data)
    text = print_module(module)
    found = parse_module(text, resolve=lambda _: data.buffer()).constants["c"].data
    assert found.elem is data.elem
    assert found.shape == data.shape
    if data.strings is not None:
        assert found.strings == data.strings
    elif data.elem in (Elem.F16, Elem.F32, Elem.F64, Elem.C64, Elem.C128):
        # A NaN is one number for the text, whatever its payload.
        assert np.array_equal(found.array(), data.array(), equal_nan=True)
        assert np.array_equal(np.signbit(found.array().real), np.signbit(data.array().real)) or (
            np.isnan(data.array()).any()
        )
    else:
        number = found.array().astype(np.float64)
        assert np.array_equal(number, data.array().astype(np.float64), equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(plain)
def test_plain_attributes_keep_their_python_type(value: Any):
    module = Module()
    module.graph.insert(AnyOp(value=value), [], [TensorType(Elem.F32)], ["y"])
    text = print_module(module)
    arrays = {d: t.buffer() for d, t in tensors(module).items()}
    back = next(parse_module(text, resolve=arrays.get).walk()).op.value
    assert same(back, value)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, tuple):
        return isinstance(a, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, float) and not isinstance(b, bool):
        return type(a) is float and (repr(a) == repr(b))
    if isinstance(b, Data):
        return isinstance(a, Data) and (a.elem, a.shape) == (b.elem, b.shape)
    if isinstance(b, TensorType | SequenceType | OptionalType):
        return type(a) is type(b)
    return type(a) is type(b) and a == b


CANONICAL = """\
module @block {opsets = {"" = 17, "com.microsoft" = 1}, source = "block.onnx"} {
  const %w0 : i8[2,2] q(axis = 0, scale = [0.01, 0.02]) = dense[12, -3, 0, 4]
  const %none : f32[0] = dense[]
  const %one : f32[] = dense[-0.0]
  const %i4 : i4[3] = dense[-8, 7, 0]
  const %half : bf16[3] = dense[nan, -inf, 1.5]
  const %text : string[2] = dense["a\\nb", "é"]
  const %el : f32[100] = elided("sha256:9f2c41d0")
  graph (%x : f32[N,3,"a b",?] {mean = [0.0, 1.5], format = "bgr"}, %s : seq<f32[*]>) -> (%out:0) {
    %"a b" = test.any(%x, none, %w0) {ints = [1, 1], factor = 2, clamp = [0, inf], kind = "k", \
value = 6.0, alpha = 1.0} : u8[(H+1)//2,N*S] q(scale = 0.0186, zero_point = 114) loc("/c/Conv", "r")
    _, %h = test.two(%x) : f32[2] range(-1.2, 3.4, 3.4)
    %out:0, %z = test.two(%"a b", %h) : f32[2], opt<i64[]> mode(INT8) loc("q")
    %y = test.any(%h) : f32[*] {
      graph () -> (%a) {
        %a = test.any(%x) : f32[1]
      }
      graph (%b : f32[1]) -> (%b) {
      }
    } mode(F32) loc("if")
    _ = test.any()
  }
}
"""


def test_canonical_text_comes_back():
    assert print_module(parse_module(CANONICAL)) == CANONICAL


def test_spacing_and_comments_do_not_matter():
    loose = CANONICAL.replace("\n    %", '  // a remark " with { ( quotes\n\n\t%')
    loose = loose.replace("[1, 1]", "[1 ,// one\n 1]").replace("f32[N,3,", "f32[ N, 3 ,")
    assert loose != CANONICAL
    assert print_module(parse_module(loose)) == CANONICAL


def test_text_of_one_node():
    module = parse_module(CANONICAL)
    node = next(n for n in module.walk() if n.name == "out:0")
    assert print_node(node).startswith('%out:0, %z = test.two(%"a b", %h) : f32[2], opt<i64[]>')


def test_missing_results_are_filled_up():
    module = parse_module(CANONICAL)
    node = next(n for n in module.walk() if n.name == "out:0")
    assert len(node.results) == 3
    assert node.results[2] is None


def test_scales_print_whole_when_weights_are_elided():
    module = Module()
    quant = Quant.make(np.arange(1, 31, dtype=np.float32), axis=0)
    data = Data.of(np.zeros(30, np.int8))
    module.add_constant("w", data, TensorType(Elem.I8, (30,), quant))
    text = print_module(module, elide=True)
    assert "28, 29, 30])" in text
    assert parse_module(text).constants["w"].type == module.constants["w"].type


def test_nodes_know_their_place_in_the_text():
    module = parse_module(CANONICAL, file="block.qir")
    node = next(n for n in module.walk() if n.name == "h")
    assert str(node.loc.position) == "block.qir:11:13"
    assert node.loc.position is not None
    assert node.loc.position.text.strip().startswith("_, %h")
