"""fold-linear: factors and summands move into weights, biases and each other."""

from __future__ import annotations

from typing import Any

import pytest

from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

PRODUCTS = {
    "conv": ("conv(%x, %w, %b) {pads = [1, 1, 1, 1]}", "2,3,5,5", "2,4,5,5", "4,3,3,3"),
    "conv without bias": ("conv(%x, %w)", "2,3,5,5", "2,4,3,3", "4,3,3,3"),
    "depthwise": ("conv(%x, %w, %b) {group = 4}", "2,4,5,5", "2,4,3,3", "4,1,3,3"),
    "conv 1d": ("conv(%x, %w)", "N,3,5", "N,4,3", "4,3,3"),
    "transposed": ("conv_transpose(%x, %w, %b)", "2,3,5,5", "2,4,6,6", "3,4,2,2"),
    "gemm": ("gemm(%x, %w, %b)", "3,5", "3,4", "5,4"),
    "gemm turned": (
        *("gemm(%x, %w, %b) {alpha = 0.5, beta = 2, trans_b = true}", "3,5", "3,4", "4,5"),
    ),
    "gemm without bias": ("gemm(%x, %w)", "N,5", "N,4", "5,4"),
    "matmul": ("matmul(%x, %w)", "2,N,5", "2,N,4", "5,4"),
    "matmul with bias": ("matmul(%x, %w, %b)", "2,3,5", "2,3,4", "5,4"),
}


def channel(out: str, kind: str) -> str:
    """The shape of one number for each channel of a result."""
    return ",".join(["4", *["1"] * (out.count(",") - 1)]) if "conv" in kind else "4"


def module(
    kind: str, tail: str, constant: str | None = None, outputs: str = "%y", bias: str = "4"
) -> str:
    made, x, out, w = PRODUCTS[kind]
    constants = [f"const %w : f32[{w}] = random", "const %two : f32[1] = dense[2]"]
    if "%b" in made:
        constants.append(f"const %b : f32[{bias}] = random")
    spelt = made.partition("(")[0]
    constants.append(f"const %c : f32[{constant or channel(out, spelt)}] = random")
    body = tail.replace("SHAPE", f"f32[{out}]")
    lines = "\n  ".join(constants)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {lines}
  graph (%x : f32[{x}]) -> ({outputs}) {{
    %p = {made} : f32[{out}] loc("/p")
    {body}
  }}
}}"""


@pytest.mark.parametrize("tail", ["mul(%p, %c)", "mul(%c, %p)", "mul(%p, %two)"])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_factor(rewritten: Any, all_locations: Any, kind: str, tail: str) -> None:
    done = rewritten(module(kind, f'%y = {tail} : SHAPE loc("/y")'), "fold-linear")
    assert done.ops == [PRODUCTS[kind][0].partition("(")[0]]
    assert all_locations(done.after) == {"/p", "/y"}


@pytest.mark.parametrize("tail", ["add(%p, %c)", "add(%c, %p)", "add(%p, %two)"])
@pytest.mark.parametrize("kind", [k for k in PRODUCTS if k not in ("matmul", "gemm turned")])
def test_a_summand(rewritten: Any, kind: str, tail: str) -> None:
    done = rewritten(module(kind, f"%y = {tail} : SHAPE"), "fold-linear")
    assert done.ops == [PRODUCTS[kind][0].partition("(")[0]]


def test_an_affine_map_with_an_activation(rewritten: Any) -> None:
    tail = """%m = mul(%p, %c) : SHAPE
    %y = add(%m, %c) {clamp = [0, 6]} : SHAPE"""
    done = rewritten(module("conv", tail), "fold-linear")
    assert done.ops == ["conv"]
    assert done.node("y").op.clamp == (0, 6)


@pytest.mark.parametrize(
    ("kind", "tail", "constant", "outputs"),
    [
        ("conv", "%y = mul(%p, %c) : SHAPE", "5", "%y"),  # along the width
        ("conv", "%y = add(%p, %c) : SHAPE", "2,1,1,1", "%y"),  # along the batch
        ("gemm", "%y = mul(%p, %c) : SHAPE", "3,1", "%y"),
        ("conv", "%y = mul(%p, %c) : SHAPE", None, "%p, %y"),
        ("gemm", "%r = relu(%p) : SHAPE %y = mul(%r, %c) : SHAPE", None, "%y"),
        ("gemm turned", "%y = add(%p, %c) : SHAPE", None, "%y"),  # beta would scale it
    ],
)
def test_what_stays(rewritten: Any, kind: str, tail: str, constant: Any, outputs: str) -> None:
    done = rewritten(module(kind, tail, constant, outputs), "fold-linear")
    assert len(done.ops) == len(done.before.graph)


def test_a_weight_that_others_read_stays_one(rewritten: Any) -> None:
    tail = """%q = gemm(%x, %w) : SHAPE
    %m = mul(%p, %c) : SHAPE
    %y = sub(%m, %q) : SHAPE"""
    assert rewritten(module("gemm", tail), "fold-linear").ops == ["gemm", "gemm", "mul", "sub"]


@pytest.mark.parametrize("op", ["add", "mul"])
@pytest.mark.parametrize(
    ("first", "second", "count"),
    [("4", "4", 1), ("", "4", 1), ("3,4", "4", 1), ("1", "3,1", 1), ("3,1", "4", 2)],
)
def test_constants_join(rewritten: Any, op: str, first: str, second: str, count: int) -> None:
    """Unless they make a larger one."""
    text = f"""module @m {{
  const %c : f32[{first}] = random
  const %d : f32[{second}] = random
  graph (%x : f32[2,3,4]) -> (%y) {{
    %a = {op}(%c, %x) : f32[2,3,4]
    %y = {op}(%a, %d) : f32[2,3,4]
  }}
}}"""
    assert rewritten(text, "fold-linear").ops == [op] * count


def test_numbers_keep_their_rank(rewritten: Any) -> None:
    text = """module @m {
  const %c : f32[] = dense[3]
  graph (%x : f32[]) -> (%y) {
    %a = mul(%x, %c) : f32[]
    %y = mul(%c, %a) : f32[]
  }
}"""
    assert rewritten(text, "fold-linear").ops == ["mul"]


def test_integers_wrap_around_alike(rewritten: Any) -> None:
    text = """module @m {
  const %c : i32[] = dense[2147483647]
  const %d : i32[] = dense[5]
  graph (%x : i32[4]) -> (%y) {
    %a = add(%x, %c) : i32[4]
    %y = add(%a, %d) : i32[4]
  }
}"""
    assert rewritten(text, "fold-linear").ops == ["add"]


def test_an_overflow_is_not_made(rewritten: Any) -> None:
    text = """module @m {
  const %c : f32[] = dense[1e30]
  graph (%x : f32[4]) -> (%y) {
    %a = mul(%x, %c) : f32[4]
    %b = tanh(%a) : f32[4]
    %d = mul(%b, %c) : f32[4]
    %y = mul(%d, %c) : f32[4]
  }
}"""
    assert "mul" in rewritten(text.replace("1e30", "1e15"), "fold-linear").ops
    after = run(parse_module(text), "fold-linear")
    assert [n.op.name for n in after.graph.nodes()] == ["mul", "tanh", "mul", "mul"]


def read_by(kind: str, head: str, outputs: str = "%y", constant: str = "1") -> str:
    """A product that reads %s, which ``head`` makes of %x."""
    made, x, out, w = PRODUCTS[kind]
    constants = [f"const %w : f32[{w}] = random", f"const %c : f32[{constant}] = random"]
    constants.append("const %d : f32[] = dense[0.75]")
    if "%b" in made:
        constants.append("const %b : f32[4] = random")
    body = head.replace("SHAPE", f"f32[{x}]")
    lines = "\n  ".join(constants)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {lines}
  graph (%x : f32[{x}]) -> ({outputs}) {{
    {body}
    %y = {made.replace("%x", "%s")} : f32[{out}] loc("/y")
  }}
}}"""


def kind_of(kind: str) -> str:
    return PRODUCTS[kind][0].partition("(")[0]


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_factor_of_what_is_read(rewritten: Any, all_locations: Any, kind: str) -> None:
    done = rewritten(read_by(kind, '%s = mul(%c, %x) : SHAPE loc("/s")'), "fold-linear")
    assert done.ops == [kind_of(kind)]
    assert all_locations(done.after) == {"/s", "/y"}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_line_that_is_read_leaves_the_summand(rewritten: Any, kind: str) -> None:
    head = "%m = mul(%x, %c) : SHAPE %s = add(%m, %d) : SHAPE"
    done = rewritten(read_by(kind, head), "fold-linear")
    assert done.ops == ["add", kind_of(kind)]
    assert done.after.value("s") is None, "its numbers are others now"


@pytest.mark.parametrize(
    "kind", ["conv without bias", "depthwise", "gemm", "gemm without bias", "matmul with bias"]
)
def test_a_line_behind_an_activation_goes(rewritten: Any, kind: str) -> None:
    head = """%r = hard_swish(%x) : SHAPE
    %m = mul(%r, %c) : SHAPE
    %s = add(%m, %d) : SHAPE"""
    assert rewritten(read_by(kind, head), "fold-linear").ops == ["hard_swish", kind_of(kind)]


@pytest.mark.parametrize(
    ("kind", "head", "outputs", "constant"),
    [
        ("conv", "%s = mul(%x, %c) : SHAPE", "%y", "3,1,1"),  # integers would be others
        ("conv", "%s = mul(%x, %c) : SHAPE", "%y, %s", "1"),
        ("conv", "%s = mul(%x, %c) {clamp = [0, 6]} : SHAPE", "%y", "1"),
        ("conv", "%r = relu(%x) : SHAPE %s = add(%r, %c) : SHAPE", "%y", "1"),  # pads are zeros
        ("gemm", "%s = add(%x, %c) : SHAPE", "%y", "1"),  # it may be far from zero
        ("gemm turned", "%r = relu(%x) : SHAPE %s = add(%r, %c) : SHAPE", "%y", "1"),
        ("transposed", "%r = relu(%x) : SHAPE %s = add(%r, %c) : SHAPE", "%y", "1"),
        ("matmul", "%r = relu(%x) : SHAPE %s = add(%r, %c) : SHAPE", "%y", "1"),
    ],
)
def test_what_is_read_stays(
    rewritten: Any, kind: str, head: str, outputs: str, constant: str
) -> None:
    done = rewritten(read_by(kind, head, outputs, constant), "fold-linear")
    assert len(done.ops) == len(done.before.graph)
