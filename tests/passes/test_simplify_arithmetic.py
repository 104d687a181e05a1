"""simplify-arithmetic: each rule where it holds and where it must not, numbers compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

CONSTANTS = """const %zero : f32[] = dense[0]
  const %one : f32[] = dense[1]
  const %half : f32[] = dense[0.5]
  const %two : f32[] = dense[2]
  const %minus : f32[1] = dense[-1]
  const %rows : f32[2,2,3] = random"""


def module(body: str, out: str = "") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {CONSTANTS}
  graph (%x : f32[2,3], %z : f32[2,3]) -> (%y{out}) {{
    {body}
  }}
}}"""


def ops(rewritten: Any, body: str, out: str = "") -> list[str]:
    lines = [f"{line} : f32[2,3]" if " : " not in line else line for line in body.splitlines()]
    passes = "simplify-arithmetic,eliminate-dead-code"
    return rewritten(module("\n".join(lines), out), passes).ops


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = clip(%x) {min = 0}", ["relu"]),
        ("%y = clip(%x) {min = 0, max = 6}", ["clip"]),
        ("%a = clip(%x) {min = -1, max = 1}\n%y = clip(%a) {min = 0, max = 6}", ["clip"]),
        ("%a = clip(%x) {min = -1}\n%y = clip(%a) {min = 0}", ["relu"]),
        ("%a = relu(%x)\n%b = relu(%a)\n%y = tanh(%b)", ["relu", "tanh"]),
        ("%a = clip(%x) {min = 2, max = 3}\n%y = clip(%a) {min = 0, max = 1}", ["clip"]),
        ("%a = tanh(%x)\n%y = relu(%a)", ["tanh", "relu"]),
    ],
)
def test_clips(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = max(%x, %zero)", ["relu"]),
        ("%y = min(%half, %x)", ["clip"]),
        ("%a = max(%x, %minus)\n%y = min(%a, %half)", ["clip"]),
        ("%y = max(%x, %z)", ["max"]),
        ("%y = max(%x, %z, %zero)", ["max"]),
        ("%y = max(%x, %rows) : f32[2,2,3]", ["max"]),
        ("%a = max(%x)\n%y = tanh(%a)", ["tanh"]),
        ("%y = sum(%x, %z)", ["add"]),
        ("%a = sum(%x)\n%y = tanh(%a)", ["tanh"]),
        ("%y = sum(%x, %z, %x)", ["sum"]),
    ],
)
def test_variadic_ops(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [("one", ["abs"]), ("half", ["abs", "sqrt"]), ("minus", ["abs", "reciprocal"])],
)
def test_powers(rewritten: Any, exponent: str, expected: list[str]) -> None:
    assert ops(rewritten, f"%a = abs(%x)\n%b = pow(%a, %{exponent})\n%y = neg(%b)") == [
        *expected,
        "neg",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = pow(%x, %two)", ["pow"]),
        ("%y = pow(%x, %rows) : f32[2,2,3]", ["pow"]),
    ],
)
def test_other_powers_stay(body: str, expected: list[str]) -> None:
    numbers = ", ".join(["2"] * 12)
    text = module(body if " : " in body else f"{body} : f32[2,3]")
    text = text.replace("= random", f"= dense[{numbers}]")
    found = run(parse_module(text), "simplify-arithmetic")
    assert [n.op.name for n in found.graph.nodes()] == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%a = neg(%x)\n%b = neg(%a)\n%y = tanh(%b)", ["tanh"]),
        ("%a = neg(%x)\n%y = abs(%a)", ["abs"]),
        ("%a = abs(%x)\n%y = abs(%a)", ["abs"]),
        ("%a = abs(%x)\n%y = neg(%a)", ["abs", "neg"]),
        ("%a = neg(%x)\n%y = add(%z, %a)", ["sub"]),
        ("%a = neg(%x)\n%y = add(%a, %z)", ["sub"]),
        ("%a = neg(%x)\n%y = sub(%z, %a)", ["add"]),
        ("%a = neg(%x)\n%y = sub(%a, %z)", ["neg", "sub"]),
        ("%a = neg(%x)\n%y = add(%z, %a) {clamp = [0, 1]}", ["neg", "add"]),
    ],
)
def test_signs(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


def test_a_negation_that_others_read_stays(rewritten: Any) -> None:
    assert ops(rewritten, "%a = neg(%x)\n%y = add(%z, %a)", ", %a") == ["neg", "add"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = div(%one, %x)", ["reciprocal"]),
        ("%y = div(%two, %x)", ["div"]),
        ("%a = reciprocal(%x)\n%y = div(%z, %a)", ["mul"]),
    ],
)
def test_inverses(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


def test_one_that_widens_stays_a_division() -> None:
    text = module("%y = div(%rows, %x) : f32[2,2,3]").replace("= random", f"= dense{[1] * 12}")
    found = run(parse_module(text), "simplify-arithmetic")
    assert [n.op.name for n in found.graph.nodes()] == ["div"]


def test_the_logarithm_of_a_softmax(rewritten: Any) -> None:
    body = "%a = softmax(%x) {axis = 0}\n%y = log(%a)"
    done = rewritten(module("\n".join(f"{s} : f32[2,3]" for s in body.splitlines())),
                     "simplify-arithmetic")  # fmt: skip
    assert done.ops == ["log_softmax"]
    assert done.node("y").op.axis == 0
    assert ops(rewritten, body, ", %a") == ["softmax", "log"]


def test_bounds_are_those_of_both(rewritten: Any) -> None:
    """The bounds of a clip of a clip by hand, for bounds that lie apart and overlap."""
    for a, b, low, high in ((-1, 1, 0, 6), (2, 3, 0, 1), (-3, -2, 0, 1), (0, 6, 1, 2)):
        text = module(
            f"%a = clip(%x) {{min = {a}, max = {b}}} : f32[2,3]\n"
            f"%y = clip(%a) {{min = {low}, max = {high}}} : f32[2,3]"
        )
        op = rewritten(text, "simplify-arithmetic").node("y").op
        assert (op.min, op.max) == tuple(np.clip((a, b), low, high))


def test_bounds_the_wrong_way_round_stay() -> None:
    """What such a clip gives differs between runtimes, so nothing is made of it."""
    text = module(
        "%a = clip(%x) {min = 2, max = 1} : f32[2,3]\n%y = clip(%a) {min = 0, max = 6} : f32[2,3]"
    )
    found = run(parse_module(text.replace("= random", f"= dense{[1] * 12}")), "simplify-arithmetic")
    assert [n.op.name for n in found.graph.nodes()] == ["clip", "clip"]
