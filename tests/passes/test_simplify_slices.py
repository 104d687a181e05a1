"""simplify-slices: what is cut, joined and padded, before and after on random inputs."""

from __future__ import annotations

from typing import Any

import pytest

CONSTANTS = """const %neg : i64[1] = dense[-1]
  const %zero : i64[1] = dense[0]
  const %one : i64[1] = dense[1]
  const %two : i64[1] = dense[2]
  const %three : i64[1] = dense[3]
  const %four : i64[1] = dense[4]
  const %far : i64[1] = dense[9223372036854775807]
  const %row : i64[] = dense[0]
  const %run : i64[2] = dense[1, 2]
  const %mixed : i64[2] = dense[2, 1]
  const %p : i64[4] = dense[0, 1, 0, 2]
  const %q : i64[4] = dense[1, 0, 0, 1]
  const %none : i64[4] = dense[0, 0, 0, 0]
  const %crop : i64[4] = dense[0, -1, 0, 0]
  const %v : f32[] = dense[0.5]"""


def module(body: str, out: str = "") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {CONSTANTS}
  graph (%x : f32[4,6]) -> (%y{out}) {{
    {body}
  }}
}}"""


def done(rewritten: Any, body: str, out: str = "") -> list[str]:
    passes = "simplify-slices,eliminate-dead-code"
    return rewritten(module(body, out), passes).ops


@pytest.mark.parametrize(
    "first",
    [
        "slice(%x, %zero, %far, %one)",
        "slice(%x, %zero, %four, %zero)",
        "pad(%x, %none)",
        "split(%x) {axis = 1, split = [6]}",
    ],
)
def test_what_takes_everything_goes(rewritten: Any, first: str) -> None:
    assert done(rewritten, f"%a = {first} : f32[4,6]\n%y = tanh(%a) : f32[4,6]") == ["tanh"]


@pytest.mark.parametrize(
    ("second", "shape", "ops"),
    [
        ("slice(%a, %one, %two, %zero)", "1,4", ["slice"]),
        ("slice(%a, %one, %three, %one)", "4,2", ["slice"]),
        ("slice(%a, %two, %far, %one)", "4,2", ["slice"]),
        ("slice(%a, %neg, %far, %zero)", "1,4", ["slice"]),
        ("slice(%a, %neg, %far, %one)", "4,1", ["slice", "slice"]),
        ("slice(%a, %zero, %four, %one, %two)", "4,2", ["slice", "slice"]),
    ],
)
def test_slices_of_slices(rewritten: Any, second: str, shape: str, ops: list[str]) -> None:
    """On other axes anything goes; on the same axis only numbers from the front, by 1."""
    body = f"""%a = slice(%x, %one, %far, %one) : f32[4,5]
    %b = slice(%a, %zero, %four, %one) : f32[4,4]
    %y = {second.replace("%a", "%b")} : f32[{shape}]"""
    assert done(rewritten, body) == ops


def test_a_slice_that_others_read_stays(rewritten: Any) -> None:
    body = """%a = slice(%x, %one, %far, %one) : f32[4,5]
    %y = slice(%a, %zero, %four, %one) : f32[4,4]"""
    assert done(rewritten, body, ", %a") == ["slice", "slice"]


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("%y = gather(%x, %run) {axis = 1} : f32[4,2]", ["slice"]),
        ("%y = gather(%x, %run) {axis = -2} : f32[2,6]", ["slice"]),
        ("%y = gather(%x, %mixed) {axis = 1} : f32[4,2]", ["gather"]),
        ("%y = gather(%x, %neg) {axis = 1} : f32[4,1]", ["gather"]),
        ("%y = gather(%x, %row) {axis = 1} : f32[4]", ["gather"]),
        (
            (
                "%u = unsqueeze(%x) {axes = [1]} : f32[4,1,6]\n"
                "%g = gather(%u, %row) {axis = 1} : f32[4,6]\n%y = tanh(%g) : f32[4,6]"
            ),
            ["tanh"],
        ),
        (
            (
                "%u = unsqueeze(%x) {axes = [1]} : f32[4,1,6]\n"
                "%g = gather(%u, %row) {axis = 0} : f32[1,6]\n%y = tanh(%g) : f32[1,6]"
            ),
            ["unsqueeze", "gather", "tanh"],
        ),
    ],
)
def test_gathers(rewritten: Any, body: str, ops: list[str]) -> None:
    assert done(rewritten, body) == ops


SPLIT = "%a, %b, %c = split(%x) {axis = 1, split = [1, 2, 3]} : f32[4,1], f32[4,2], f32[4,3]\n"


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        (SPLIT + "%j = concat(%a, %b, %c) {axis = -1} : f32[4,6]", []),
        (SPLIT + "%j = concat(%b, %c) {axis = 1} : f32[4,5]", ["slice"]),
        (SPLIT + "%j = concat(%b, %a, %c) {axis = 1} : f32[4,6]", ["split", "concat"]),
        (SPLIT + "%j = concat(%a, %a) {axis = 0} : f32[8,1]", ["split", "concat"]),
        (
            (
                "%a = slice(%x, %zero, %two, %one) : f32[4,2]\n"
                "%b = slice(%x, %two, %far, %one) : f32[4,4]\n"
                "%j = concat(%a, %b) {axis = 1} : f32[4,6]"
            ),
            [],
        ),
        (
            (
                "%a = slice(%x, %zero, %one, %one) : f32[4,1]\n"
                "%b = slice(%x, %two, %far, %one) : f32[4,4]\n"
                "%j = concat(%a, %b) {axis = 1} : f32[4,5]"
            ),
            ["slice", "slice", "concat"],
        ),
        (
            (
                "%a = concat(%x, %x) {axis = 1} : f32[4,12]\n"
                "%j = concat(%a, %x) {axis = -1} : f32[4,18]"
            ),
            ["concat"],
        ),
        (
            "%a = concat(%x, %x) {axis = 0} : f32[8,6]\n%j = concat(%a, %a) {axis = 1} : f32[8,12]",
            ["concat", "concat"],
        ),
        (
            (
                "%a = slice(%x, %zero, %zero, %one) : f32[4,0]\n"
                "%j = concat(%a, %x, %x) {axis = 1} : f32[4,12]"
            ),
            ["concat"],
        ),
    ],
)
def test_concats(rewritten: Any, body: str, ops: list[str]) -> None:
    shape = body.rpartition("f32")[2]
    assert done(rewritten, f"{body}\n%y = tanh(%j) : f32{shape}") == [*ops, "tanh"]


@pytest.mark.parametrize(
    ("first", "second", "shape", "count"),
    [
        ("pad(%x, %p)", "pad(%a, %q)", "5,10", 1),
        ("pad(%x, %p, %v)", "pad(%a, %q, %v)", "5,10", 1),
        ("pad(%x, %p, %v)", "pad(%a, %q)", "5,10", 2),
        ('pad(%x, %p) {mode = "edge"}', "pad(%a, %q)", "5,10", 2),
        ("pad(%x, %p)", "pad(%a, %crop)", "4,8", 2),
    ],
)
def test_pads(rewritten: Any, first: str, second: str, shape: str, count: int) -> None:
    body = f"%a = {first} : f32[4,9]\n%y = {second} : f32[{shape}]"
    assert done(rewritten, body) == ["pad"] * count
