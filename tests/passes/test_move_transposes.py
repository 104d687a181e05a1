"""move-transposes: regions change their layout, numbers compared, transposes never more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdqc.ir.graph import Module
from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

PASSES = "move-transposes,simplify-layout,eliminate-dead-code"
IN = "%t = transpose(%x) {perm = [0, 2, 3, 1]} : f32[2,4,5,3]\n"
OUT = "{perm = [0, 3, 1, 2]} : f32[2,3,4,5]"
HWC = "f32[2,4,5,3]"


def module(body: str, out: str = "%y") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %row : f32[3] = random
  const %one : f32[1] = random
  const %plane : f32[4,5,1] = random
  graph (%x : f32[2,3,4,5], %z : f32[2,3,4,5], %w : f32[2,4,5,3], %r : f32[3]) -> ({out}) {{
    {body}
  }}
}}"""


def count(found: Module, op: str = "transpose") -> int:
    return sum(node.op.name == op for node in found.graph.nodes())


@pytest.mark.parametrize(
    "inner",
    [
        f"%a = tanh(%t) : {HWC}",
        f"%a = mul(%t, %row) : {HWC}",
        f"%a = add(%plane, %t) : {HWC}",
        f"%a = div(%t, %one) : {HWC}",
        f"%a = prelu(%t, %row) : {HWC}",
        f"%s = softmax(%t) {{axis = -1}} : {HWC}\n%a = log_softmax(%s) {{axis = 2}} : {HWC}",
        f"%u = transpose(%z) {{perm = [0, 2, 3, 1]}} : {HWC}\n%a = sub(%u, %t) : {HWC}",
        f"%e = exp(%t) : {HWC}\n%a = mul(%e, %t) : {HWC}",
        f"%b = greater(%t, %one) : bool[2,4,5,3]\n%a = where(%b, %t, %row) : {HWC}",
    ],
)
def test_an_island_loses_both_transposes(rewritten: Any, inner: str) -> None:
    body = f"{IN}{inner}\n%o = transpose(%a) {OUT}\n%y = neg(%o) : f32[2,3,4,5]"
    assert count(rewritten(module(body), PASSES).after) == 0


def test_a_concat_names_its_axis_anew(rewritten: Any) -> None:
    body = f"""{IN}%c = concat(%t, %t) {{axis = -1}} : f32[2,4,5,6]
    %o = transpose(%c) {{perm = [0, 3, 1, 2]}} : f32[2,6,4,5]
    %y = neg(%o) : f32[2,6,4,5]"""
    done = rewritten(module(body), PASSES)
    assert count(done.after) == 0
    assert next(n for n in done.after.graph.nodes() if n.op.name == "concat").op.axis == 1


def test_two_that_come_in_are_one_that_leaves(rewritten: Any) -> None:
    body = f"""{IN}%u = transpose(%z) {{perm = [0, 2, 3, 1]}} : {HWC}
    %y = add(%t, %u) : {HWC}"""
    done = rewritten(module(body), PASSES)
    assert done.ops == ["add", "transpose"]


@pytest.mark.parametrize(
    ("body", "out", "before"),
    [
        (f"{IN}%y = tanh(%t) : {HWC}", "%y", 1),
        (f"{IN}%a = tanh(%t) : {HWC}\n%y = add(%a, %w) : {HWC}", "%y", 1),
        (f"{IN}%a = add(%t, %w) : {HWC}\n%o = transpose(%a) {OUT}\n%y = neg(%o) : f32[2,3,4,5]",
         "%y, %a", 2),
        (f"{IN}%a = mul(%t, %r) : {HWC}\n%o = transpose(%a) {OUT}\n%y = neg(%o) : f32[2,3,4,5]",
         "%y", 2),
        ((f"{IN}%a = lp_normalization(%t) : {HWC}\n%o = transpose(%a) {OUT}\n"
         "%y = neg(%o) : f32[2,3,4,5]"), "%y", 2),
    ],
)  # fmt: skip
def test_what_would_not_be_less_stays(rewritten: Any, body: str, out: str, before: int) -> None:
    """Nothing is won, a value goes out by its name, or an operand has another rank."""
    assert count(rewritten(module(body, out), "move-transposes").after) == before


def test_a_value_that_others_read_keeps_its_name(rewritten: Any) -> None:
    """Three transposes are one: %a is read in its first layout too, under its name."""
    body = f"""{IN}%u = transpose(%z) {{perm = [0, 2, 3, 1]}} : {HWC}
    %a = add(%t, %u) : {HWC}
    %o = transpose(%a) {OUT}
    %y = neg(%o) : f32[2,3,4,5]"""
    done = rewritten(module(body, "%y, %a"), "move-transposes,eliminate-dead-code")
    assert count(done.after) == 1
    assert done.node("a").op.name == "transpose"
    assert done.node("a").loc == done.before.value("a").producer.loc


PERMS = ([0, 2, 3, 1], [0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 3, 2])


@st.composite
def bodies(draw: Any) -> str:
    """Up to ten nodes on values of [2,2,2,2], in any layout."""
    held, lines = ["x", "z"], []
    for index in range(draw(st.integers(1, 10))):
        a, b = (draw(st.sampled_from(held)) for _ in range(2))
        perm = draw(st.sampled_from(PERMS))
        axis = draw(st.integers(-4, 3))
        node = draw(st.sampled_from([
            f"transpose(%{a}) {{perm = {perm}}}",
            f"transpose(%{a}) {{perm = {perm}}}",
            f"tanh(%{a})",
            f"add(%{a}, %{b})",
            f"mul(%{a}, %c)",
            f"softmax(%{a}) {{axis = {axis}}}",
        ]))  # fmt: skip
        lines.append(f"%n{index} = {node} : f32[2,2,2,2]")
        held.append(f"n{index}")
    outputs = draw(st.lists(st.sampled_from(held[2:]), min_size=1, max_size=3, unique=True))
    named = ", ".join(f"%{name}" for name in outputs)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %c : f32[2,2] = dense[0.5, -1.5, 2, 1]
  graph (%x : f32[2,2,2,2], %z : f32[2,2,2,2]) -> ({named}) {{
    {chr(10).join(lines)}
  }}
}}"""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=bodies())
def test_transposes_never_grow_and_numbers_stay(text: str, same: Any) -> None:
    before = run(parse_module(text, verify=True), "eliminate-dead-code")
    after = run(before, "move-transposes,eliminate-dead-code")
    assert count(after) <= count(before)
    same(before, after, seeds=1)
    again = run(after, "move-transposes,eliminate-dead-code")
    assert count(again) <= count(after)
