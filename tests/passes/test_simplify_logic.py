"""simplify-logic: choices, casts and copies, before and after on random inputs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qdqc.ir.types import Elem
from qdqc.passes.simplify_logic import _holds
from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

CONSTANTS = """const %yes : bool[1] = dense[true]
  const %no : bool[2,3] = dense[false, false, false, false, false, false]
  const %some : bool[3] = dense[true, false, true]
  const %wide : bool[2,1,1] = dense[true, true]
  const %s : i64[2] = dense[2, 3]
  const %r : i64[2] = dense[2, 1]
  const %col : f32[2,1] = random"""


def module(body: str, out: str = "") -> str:
    lines = [line if " : " in line else f"{line} : f32[2,3]" for line in body.splitlines()]
    signature = "%c : bool[2,3], %d : bool[2,3], %x : f32[2,3], %z : f32[2,3], %v : f32[1,3]"
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {CONSTANTS}
  graph ({signature}) -> (%y{out}) {{
    {"".join(f"{line}{chr(10)}" for line in lines)}
  }}
}}"""


def ops(rewritten: Any, body: str, out: str = "") -> list[str]:
    return rewritten(module(body, out), "simplify-logic,eliminate-dead-code").ops


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("where(%yes, %x, %z)", ["tanh"]),
        ("where(%no, %x, %z)", ["tanh"]),
        ("where(%c, %x, %x)", ["tanh"]),
        ("where(%some, %x, %z)", ["where", "tanh"]),
        ("where(%yes, %v, %z)", ["where", "tanh"]),
    ],
)
def test_decided_choices(rewritten: Any, choice: str, expected: list[str]) -> None:
    assert ops(rewritten, f"%a = {choice}\n%y = tanh(%a)") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%n = not(%c) : bool[2,3]\n%y = where(%n, %x, %z)", ["where"]),
        ("%a = where(%c, %x, %z)\n%y = where(%c, %a, %v)", ["where"]),
        ("%a = where(%c, %x, %z)\n%y = where(%c, %v, %a)", ["where"]),
        ("%a = where(%d, %x, %z)\n%y = where(%c, %a, %v)", ["where", "where"]),
    ],
)
def test_conditions(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("%a = not(%c) : bool[2,3]\n%b = not(%a) : bool[2,3]", []),
        ("%b = and(%c, %yes) : bool[2,3]", []),
        ("%b = or(%no, %c) : bool[2,3]", []),
        ("%b = or(%c, %c) : bool[2,3]", []),
        ("%b = and(%c, %some) : bool[2,3]", ["and"]),
        ("%b = or(%c, %yes) : bool[2,3]", ["or"]),
        ("%b = and(%c, %d) : bool[2,3]", ["and"]),
    ],
)
def test_flags(rewritten: Any, flags: str, expected: list[str]) -> None:
    assert ops(rewritten, f"{flags}\n%y = where(%b, %x, %z)") == [*expected, "where"]


def test_a_flag_that_widens_stays(rewritten: Any) -> None:
    body = "%b = and(%c, %wide) : bool[2,2,3]\n%y = where(%b, %x, %z) : f32[2,2,3]"
    assert ops(rewritten, body) == ["and", "where"]


@pytest.mark.parametrize(
    ("source", "between", "to", "count"),
    [
        ("f32", "f64", "i64", 1),
        ("f32", "f64", "f32", 0),
        ("f32", "f16", "f32", 2),
        ("f32", "i32", "f32", 2),
        ("i64", "f64", "i64", 2),
        ("i64", "i32", "f32", 2),
        ("i32", "i64", "f32", 1),
        ("i32", "f64", "i32", 0),
        ("i32", "f32", "i32", 2),
        ("bool", "i32", "f32", 1),
        ("bool", "f32", "bool", 0),
        ("i8", "u8", "i32", 2),
        ("u8", "f16", "f32", 1),
    ],
)
def test_casts(rewritten: Any, source: str, between: str, to: str, count: int) -> None:
    text = f"""module @m {{opsets = {{"" = 17}}}} {{
  graph (%x : {source}[5]) -> (%y) {{
    %a = cast(%x) {{to = "{between}"}} : {between}[5]
    %b = cast(%a) {{to = "{to}"}} : {to}[5]
    %y = identity(%b) : {to}[5]
  }}
}}"""
    done = rewritten(text, "simplify-logic,eliminate-dead-code")
    assert done.ops == ["cast"] * count + ["identity"]


FLOATS = (Elem.F64, Elem.F32, Elem.F16, Elem.BF16)
NUMERIC = [e for e in Elem if e in FLOATS or (e.is_integer and e.bits >= 8)]


@pytest.mark.parametrize("narrow", NUMERIC, ids=lambda e: e.text)
@pytest.mark.parametrize("wide", NUMERIC, ids=lambda e: e.text)
def test_what_one_type_holds_of_another(narrow: Elem, wide: Elem) -> None:
    """Where a type is said to hold another, its edges survive the way there and back."""
    if not _holds(wide, narrow):
        return
    if narrow.is_integer:
        low, high = narrow.limits
        edges = np.array([low, low + 1, 0, high - 1, high], narrow.dtype)
    else:
        held = ml_dtypes.finfo(narrow.dtype)
        edges = np.array([held.min, held.max, held.tiny, held.eps, -0.0, np.inf], narrow.dtype)
    there = edges.astype(wide.dtype).astype(narrow.dtype)
    assert there.tobytes() == edges.tobytes()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%a = expand(%v, %s)\n%y = mul(%x, %a)", ["mul"]),
        ("%a = tile(%v, %r)\n%y = add(%a, %x)", ["add"]),
        ("%a = expand(%v, %s)\n%y = mul(%a, %col)", ["mul"]),
        ("%a = expand(%v, %s)\n%y = prelu(%x, %a)", ["prelu"]),
        ("%a = expand(%v, %s)\n%y = prelu(%a, %x)", ["expand", "prelu"]),
        ("%a = expand(%v, %s)\n%y = where(%c, %a, %v)", ["where"]),
        ("%a = expand(%v, %s)\n%y = mul(%a, %v)", ["expand", "mul"]),
        ("%a = tile(%x, %r) : f32[4,3]\n%y = mul(%a, %v) : f32[4,3]", ["tile", "mul"]),
        ("%a = expand(%v, %s)\n%y = tanh(%a)", ["expand", "tanh"]),
    ],
)
def test_copies_that_broadcasting_makes(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, body) == expected


def test_copies_of_symbols() -> None:
    """A copy to the shape of the other operand goes, symbols or not."""
    text = """module @m {opsets = {"" = 17}} {
  graph (%x : f32[N,M], %v : f32[1,M], %w : f32[1,?]) -> (%y, %z) {
    %s = shape(%x) : i64[2]
    %a = expand(%v, %s) : f32[N,M]
    %y = add(%a, %x) : f32[N,M]
    %b = expand(%w, %s) : f32[N,M]
    %z = add(%b, %x) : f32[N,M]
  }
}"""
    found = run(parse_module(text), "infer-shapes,simplify-logic,eliminate-dead-code")
    assert [n.op.name for n in found.graph.nodes()] == ["shape", "add", "expand", "add"]
