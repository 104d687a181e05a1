"""simplify-reductions: each rule where it holds and where it must not, numbers compared."""

from __future__ import annotations

from typing import Any

import pytest


def module(body: str, out: str = "", inputs: str = "%x : f32[2,3,4,5]") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %n : f32[] = dense[0.05]
  const %k : f32[] = dense[0.06]
  graph ({inputs}) -> (%y{out}) {{
    {body}
  }}
}}"""


def ops(rewritten: Any, body: str, **given: str) -> list[str]:
    passes = "simplify-reductions,eliminate-dead-code"
    return rewritten(module(body, **given), passes).ops


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("reduce_mean(%x) {axes = [2, 3]} : f32[2,3,1,1]", ["global_average_pool"]),
        ("reduce_mean(%x) {axes = [-1, 2]} : f32[2,3,1,1]", ["global_average_pool"]),
        ("reduce_max(%x) {axes = [2, 3]} : f32[2,3,1,1]", ["global_max_pool"]),
        (
            "reduce_mean(%x) {axes = [2, 3], keepdims = false} : f32[2,3]",
            ["global_average_pool", "reshape"],
        ),
        ("reduce_mean(%x) {axes = [1, 2]} : f32[2,1,1,5]", ["reduce_mean"]),
        ("reduce_mean(%x) {axes = [3]} : f32[2,3,4,1]", ["reduce_mean"]),
        ("reduce_mean(%x) : f32[1,1,1,1]", ["reduce_mean"]),
        ("reduce_sum(%x) {axes = [2, 3]} : f32[2,3,1,1]", ["reduce_sum"]),
        ("reduce_max(%x) {axes = [2, 3], keepdims = false} : f32[2,3]", ["reduce_max"]),
    ],
)
def test_pools(rewritten: Any, body: str, expected: list[str]) -> None:
    assert ops(rewritten, f"%y = {body}") == expected


def test_other_ranks_and_types_are_no_images(rewritten: Any) -> None:
    body = "%y = reduce_mean(%x) {axes = [2]} : f32[2,3,1]"
    assert ops(rewritten, body, inputs="%x : f32[2,3,4]") == ["reduce_mean"]
    body = "%y = reduce_mean(%x) {axes = [2, 3]} : f64[2,3,1,1]"
    assert ops(rewritten, body, inputs="%x : f64[2,3,4,5]") == ["reduce_mean"]


def test_symbols(rewritten: Any) -> None:
    body = "%y = reduce_mean(%x) {axes = [2, 3], keepdims = false} : f32[N,3]"
    inputs = "%x : f32[N,3,H,W]"
    assert ops(rewritten, body, inputs=inputs) == ["global_average_pool", "reshape"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            "reduce_sum(%x) {axes = [1, -1]} : f32[2,1,4,1]",
            "squeeze(%a) {axes = [1, 3]} : f32[2,4]",
            ["reduce_sum"],
        ),
        (
            "reduce_sum(%x) {axes = [1, 3]} : f32[2,1,4,1]",
            "squeeze(%a) {axes = [1]} : f32[2,4,1]",
            ["reduce_sum", "squeeze"],
        ),
        (
            "reduce_min(%x) {axes = [1], keepdims = false} : f32[2,4,5]",
            "unsqueeze(%a) {axes = [-3]} : f32[2,1,4,5]",
            ["reduce_min"],
        ),
        (
            "reduce_min(%x) {axes = [1], keepdims = false} : f32[2,4,5]",
            "unsqueeze(%a) {axes = [0]} : f32[1,2,4,5]",
            ["reduce_min", "unsqueeze"],
        ),
    ],
)
def test_axes_that_are_kept(
    rewritten: Any, first: str, second: str, expected: list[str]
) -> None:  # fmt: skip
    assert ops(rewritten, f"%a = {first}\n%y = {second}") == expected


def test_a_reduction_that_others_read_stays(rewritten: Any) -> None:
    body = """%a = reduce_sum(%x) {axes = [1]} : f32[2,1,4,5]
    %y = squeeze(%a) {axes = [1]} : f32[2,4,5]"""
    assert ops(rewritten, body, out=", %a") == ["reduce_sum", "squeeze"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%a = reduce_max(%x) {axes = [1, 3]} : f32[2,1,4,1]", []),
        ("%a = reduce_mean(%x) {axes = [1], keepdims = false} : f32[2,4,1]", ["squeeze"]),
        ("%a = reduce_sum(%x) {noop_with_empty_axes = true} : f32[2,1,4,1]", []),
        ("%a = reduce_sum(%x) {axes = [2]} : f32[2,1,1,1]", ["reduce_sum"]),
    ],
)
def test_one_element_is_itself(rewritten: Any, body: str, expected: list[str]) -> None:
    shape = body.rpartition("f32")[2]
    body = f"{body}\n%y = tanh(%a) : f32{shape}"
    assert ops(rewritten, body, inputs="%x : f32[2,1,4,1]") == [*expected, "tanh"]


@pytest.mark.parametrize(
    ("perm", "reduced", "expected"),
    [
        ("0, 2, 3, 1} : f32[2,4,5,3]", "[1, 2], keepdims = false} : f32[2,3]", True),
        ("0, 2, 3, 1} : f32[2,4,5,3]", "[-1], keepdims = false} : f32[2,4,5]", True),
        ("0, 2, 3, 1} : f32[2,4,5,3]", "[1], keepdims = false} : f32[2,5,3]", False),
        ("0, 1, 3, 2} : f32[2,3,5,4]", "[2, 3]} : f32[2,3,1,1]", True),
        ("0, 2, 3, 1} : f32[2,4,5,3]", "[1, 2]} : f32[2,1,1,3]", False),
    ],
)
def test_transposes_go_into_the_axes(
    rewritten: Any, perm: str, reduced: str, expected: bool
) -> None:
    """The last keeps its dimensions of size 1, and they would stand elsewhere."""
    body = f"""%a = transpose(%x) {{perm = [{perm.replace("}", "]}")}
    %y = reduce_sum(%a) {{axes = {reduced}"""
    assert ops(rewritten, body) == (["reduce_sum"] if expected else ["transpose", "reduce_sum"])


@pytest.mark.parametrize(
    ("total", "factor", "expected"),
    [
        ("mul(%a, %n)", "", ["reduce_mean"]),
        ("mul(%n, %a)", "", ["reduce_mean"]),
        ("mul(%a, %k)", "", ["reduce_sum", "mul"]),
        ("mul(%a, %n)", " {clamp = [0, 1]}", ["reduce_sum", "mul"]),
    ],
)
def test_a_sum_over_its_number_is_the_mean(
    rewritten: Any, total: str, factor: str, expected: list[str]
) -> None:
    """The axes hold 4 * 5 = 20 elements."""
    body = f"""%a = reduce_sum(%x) {{axes = [2, 3], keepdims = false}} : f32[2,3]
    %b = {total}{factor} : f32[2,3]
    %y = tanh(%b) : f32[2,3]"""
    found = ops(rewritten, body)
    pooled = ["global_average_pool", "reshape"] if expected == ["reduce_mean"] else expected
    assert found == [*pooled, "tanh"]
