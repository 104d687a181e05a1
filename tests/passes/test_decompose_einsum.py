"""decompose-einsum: every kind of axis, against onnxruntime's own Einsum."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1}
PASSES = "decompose-einsum,infer-shapes"


def text(equation: str, sizes: dict[str, Any] = SIZES) -> str:
    terms, _, result = equation.partition("->")
    shapes = [",".join(str(sizes[c]) for c in t) for t in terms.split(",")]
    inputs = ", ".join(f"%x{i} : f32[{s}]" for i, s in enumerate(shapes))
    operands = ", ".join(f"%x{i}" for i in range(len(shapes)))
    shape = ",".join(str(sizes[c]) for c in result)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  graph ({inputs}) -> (%y) {{
    %y = einsum({operands}) {{equation = "{equation}"}} : f32[{shape}]
  }}
}}"""


@pytest.mark.parametrize(
    ("equation", "ops"),
    [
        ("ab,bc->ac", ["matmul"]),
        ("abcd,abed->abce", ["transpose", "matmul"]),  # q and k of attention
        ("abce,abed->abcd", ["matmul"]),  # its values
        ("ab,cb->ca", ["transpose", "matmul", "transpose"]),
        ("ab,b->a", ["reshape", "matmul", "reshape"]),
        ("a,b->ab", ["unsqueeze", "unsqueeze", "mul"]),
        ("ab,ab->ab", ["mul"]),
        ("ab,ab->", ["reshape", "reshape", "matmul", "reshape"]),
        ("abc,cd->abd", ["reshape", "matmul", "reshape"]),
        ("abc,bcd->ad", ["reshape", "reshape", "matmul"]),
        ("abc,cd->ad", ["reduce_sum", "matmul"]),
        ("ab->ba", ["transpose"]),
        ("abc->b", ["reduce_sum"]),
        ("abc->cb", ["reduce_sum", "transpose"]),
    ],
)
def test_the_ops_that_it_becomes(rewritten: Any, equation: str, ops: list[str]) -> None:
    done = rewritten(text(equation), PASSES)
    assert sorted(done.ops) == sorted(ops)


@st.composite
def equations(draw: Any) -> str:
    """Two operands with up to four axes each, and some of their axes in the result."""
    letters = st.lists(st.sampled_from("abcde"), unique=True, min_size=1, max_size=4)
    left, right = "".join(draw(letters)), "".join(draw(letters))
    known = sorted({*left, *right})
    kept = draw(st.lists(st.sampled_from(known), unique=True, max_size=len(known)))
    return f"{left},{right}->{''.join(kept)}"


@settings(max_examples=60, deadline=None)
@given(equations())
def test_any_equation_keeps_its_numbers(equation: str) -> None:
    import numpy as np

    before = parse_module(text(equation), verify=True)
    after = run(before, "decompose-einsum,simplify-layout,infer-shapes")
    assert not [n for n in after.graph.nodes() if n.op.name == "einsum"]
    rng = np.random.default_rng(0)
    feeds = {
        v.name: rng.normal(size=v.tensor.static_shape).astype(np.float32)
        for v in before.graph.inputs
    }
    expected = Runner(before, optimise="off").run(feeds)["y"]
    np.testing.assert_allclose(Runner(after, optimise="off").run(feeds)["y"], expected, atol=1e-4)


def test_symbols_stay(rewritten: Any) -> None:
    sizes = {**SIZES, "a": "N", "c": "M"}
    done = rewritten(text("abcd,abed->abce", sizes), PASSES)
    assert "einsum" not in done.ops
    assert [str(d) for d in done.after.graph.outputs[0].tensor.shape] == ["N", "3", "M", "1"]


@pytest.mark.parametrize(
    ("equation", "sizes"),
    [
        ("aab,bc->ac", SIZES),
        ("ab,bc,cd->ad", SIZES),
        ("abc,bcd->ad", {**SIZES, "a": "N", "b": "M"}),
    ],
)
def test_what_stays_an_einsum(rewritten: Any, equation: str, sizes: dict[str, Any]) -> None:
    assert rewritten(text(equation, sizes), PASSES).ops == ["einsum"]
