"""Polynomials of chains, held against the numbers that onnxruntime computes of the same chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Add, Div, Exp, Mul, Neg, Pow, Relu, Sub
from qdqc.pipeline.pass_ import PassContext
from qdqc.rewrite.algebra import Affine, Algebra
from qdqc.rewrite.rewriter import Rewriter
from qdqc.runtime.sessions.session import Runner

SHAPE = (3,)
FEEDS = {
    "x": np.array([0.5, -1.25, 2.0], np.float32),
    "z": np.array([1.5, 0.25, -0.75], np.float32),
}


class Chain:
    """A graph of sums and products on x and z, whose last node is the root of a rule."""

    def __init__(self) -> None:
        self.module = Module("m", {"": 17})
        type_ = TensorType(Elem.F32, SHAPE)
        self.x = self.module.graph.add_input("x", type_)
        self.z = self.module.graph.add_input("z", type_)

    def const(self, number: Any, elem: type = np.float32) -> Value:
        name = self.module.fresh_name("c")
        return self.module.add_constant(name, Data.of(np.asarray(number, elem)))

    def op(self, op: Any, *operands: Value, mode: str | None = None) -> Value:
        return self.module.graph.insert(op, operands, mode=mode).result

    def algebra(self, root: Value) -> Algebra:
        self.module.graph.set_outputs([root])
        assert root.producer is not None
        return Algebra(Rewriter(root.producer, "a-rule", PassContext(mismatches=[])))

    def numbers(self) -> dict[str, np.ndarray[Any, Any]]:
        names = [r.name for n in self.module.graph.nodes() for r in n.present_results]
        return FEEDS | Runner(self.module, names, optimise="off").run(FEEDS)


def evaluated(terms: Any, numbers: dict[str, Any]) -> np.ndarray[Any, Any]:
    total = np.zeros(SHAPE)
    for values, factor in terms.items():
        total += factor * np.prod([numbers[v.name].astype(np.float64) for v in values], axis=0)
    return total


@st.composite
def chains(draw: Any, depth: int = 5) -> tuple[Chain, Value]:
    chain = Chain()
    made: list[Value] = [chain.x, chain.z]
    for _ in range(draw(st.integers(1, depth))):
        number = chain.const(draw(st.sampled_from([0.5, -2.0, 3.0, 0.1])))
        left = draw(st.sampled_from([*made, made[-1], number]))
        right = draw(st.sampled_from([*made, number]))
        kind = draw(st.sampled_from(["add", "sub", "mul", "div", "neg", "pow", "relu"]))
        if kind == "div":
            made.append(chain.op(Div(), left, number))
        elif kind == "neg":
            made.append(chain.op(Neg(), left))
        elif kind == "pow":
            made.append(chain.op(Pow(), left, chain.const(draw(st.sampled_from([2.0, 3.0, 0.5])))))
        elif kind == "relu":
            made.append(chain.op(Relu(), left))
        else:
            op = {"add": Add, "sub": Sub, "mul": Mul}[kind]()
            made.append(chain.op(op, left, right))
    return chain, chain.op(Add(), made[-1], chain.const(1.0))


@settings(max_examples=60, deadline=None)
@given(made=chains())
def test_the_polynomial_of_any_chain_is_what_it_computes(made: tuple[Chain, Value]) -> None:
    chain, root = made
    algebra = chain.algebra(root)
    assert root.producer is not None
    terms, affine = algebra.terms(root), algebra.affine(root.producer.need("a"))
    with np.errstate(invalid="ignore"):
        numbers = chain.numbers()
        exact = numbers[root.name].astype(np.float64)
        found = evaluated(terms, numbers)
        line = affine.scale * numbers.get(affine.value.name, np.nan) + affine.offset
    size = 1 + max(float(np.nanmax(np.abs(n))) for n in numbers.values())
    if np.isfinite(exact).all():
        np.testing.assert_allclose(found, exact, atol=1e-4 * size**3)
        if affine.value.name in numbers:
            np.testing.assert_allclose(line + 1, exact, atol=1e-4 * size**3)


def test_one_formula_written_in_two_ways() -> None:
    """0.5 x (1 + e) and x (0.5 + 0.5 e) have the same terms, whatever stands on which side."""
    found: list[dict[tuple[str, ...], float]] = []
    for form in (0, 1):
        chain = Chain()
        e, half, one = chain.op(Exp(), chain.z), chain.const(0.5), chain.const(1.0)
        if form:
            inner = chain.op(Add(), chain.op(Mul(), e, half), half)
            root = chain.op(Mul(), chain.x, inner)
        else:
            root = chain.op(Mul(), chain.op(Mul(), half, chain.x), chain.op(Add(), one, e))
        terms = chain.algebra(root).terms(root)
        names = {e: "e", chain.x: "x"}
        found.append({tuple(sorted(names[v] for v in key)): f for key, f in terms.items()})
    assert found[0] == found[1] == {("x",): 0.5, ("e", "x"): 0.5}


def test_what_others_read_is_an_atom() -> None:
    chain = Chain()
    shared = chain.op(Add(), chain.x, chain.const(1.0))
    root = chain.op(Mul(), shared, chain.const(2.0))
    chain.op(Exp(), shared)
    assert chain.algebra(root).terms(root) == {(shared,): 2.0}


def test_a_node_of_another_precision_is_an_atom() -> None:
    chain = Chain()
    inner = chain.op(Add(), chain.x, chain.const(1.0), mode="F16")
    root = chain.op(Mul(), inner, chain.const(2.0))
    assert chain.algebra(root).terms(root) == {(inner,): 2.0}


def test_a_clamp_ends_the_chain() -> None:
    chain = Chain()
    inner = chain.op(Add(clamp=(0.0, 6.0)), chain.x, chain.const(1.0))
    root = chain.op(Mul(), inner, chain.const(2.0))
    algebra = chain.algebra(root)
    assert algebra.terms(root) == {(inner,): 2.0}
    assert algebra.affine(inner) == Affine(1.0, 0.0, inner)


def test_a_polynomial_that_grows_too_large_is_an_atom() -> None:
    chain = Chain()
    value = chain.op(Add(), chain.x, chain.z)
    for number in (1.0, 2.0, 3.0):
        other = chain.op(Add(), chain.op(Exp(), chain.x), chain.const(number))
        value = chain.op(Mul(), value, other)
    root = chain.op(Neg(), value)
    assert chain.algebra(root).terms(root) == {(value,): -1.0}


@pytest.mark.parametrize(
    ("number", "elem", "wanted"),
    [
        (0.1, np.float32, 0.1),
        ([0.1], np.float32, 0.1),
        (0.1, np.float16, 0.1),
        (1 / 3, np.float64, 1 / 3),
        ([0.1, 0.1], np.float32, None),
        (3, np.int64, None),
    ],
)
def test_numbers_are_read_in_their_shortest_form(number: Any, elem: type, wanted: Any) -> None:
    chain = Chain()
    held = chain.const(number, elem)
    algebra = chain.algebra(chain.op(Neg(), chain.x))
    assert algebra.number(held) == wanted
    assert algebra.number(chain.x) is None
    assert algebra.number(None) is None


def test_a_division_by_zero_is_no_step() -> None:
    chain = Chain()
    inner = chain.op(Div(), chain.x, chain.const(0.0))
    root = chain.op(Neg(), inner)
    algebra = chain.algebra(root)
    assert algebra.affine(inner) == Affine(1.0, 0.0, inner)
    assert algebra.terms(root) == {(inner,): -1.0}


def test_lines_are_read_from_either_side() -> None:
    chain = Chain()
    a = chain.op(Sub(), chain.const(3.0), chain.x)
    b = chain.op(Mul(), chain.const(2.0), a)
    c = chain.op(Div(), b, chain.const(4.0))
    root = chain.op(Neg(), c)
    assert chain.algebra(root).affine(c) == Affine(-0.5, 1.5, chain.x)
