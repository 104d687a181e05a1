"""simplify-layout: chains of reshapes and transposes, before and after on random inputs."""

from __future__ import annotations

from typing import Any

import pytest

from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module


def module(body: str, constants: str = "", signature: str = "(%x : f32[2,3,4]) -> (%y)") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {constants}
  graph {signature} {{
    {body}
  }}
}}"""


@pytest.mark.parametrize(
    "first",
    [
        "squeeze(%x)",
        "squeeze(%x) {axes = []}",
        "reshape(%x, %s)",
        "expand(%x, %one)",
        "tile(%x, %ones)",
        "transpose(%x) {perm = [0, 1, 2]}",
    ],
)
def test_what_keeps_the_shape_goes(rewritten: Any, first: str) -> None:
    constants = """const %s : i64[3] = dense[0, -1, 4]
  const %one : i64[1] = dense[1]
  const %ones : i64[3] = dense[1, 1, 1]"""
    body = f"%a = {first} : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]"
    assert rewritten(module(body, constants), "simplify-layout").ops == ["tanh"]


def test_an_expansion_to_the_same_symbols_goes(rewritten: Any) -> None:
    body = """%s = shape(%x) : i64[2]
    %a = expand(%x, %s) : f32[N,M]
    %y = tanh(%a) : f32[N,M]"""
    signature = "(%x : f32[N,M]) -> (%y)"
    passes = "infer-shapes,simplify-layout,eliminate-dead-code"
    done = rewritten(module(body, signature=signature), passes)
    assert done.ops == ["tanh"]


@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [
        ("[1]} : f32[2,1,3,4]", "[1, -1]} : f32[2,1,1,3,4,1]", (1, 2, 5)),
        ("[-1]} : f32[2,3,4,1]", "[0]} : f32[1,2,3,4,1]", (0, 4)),
    ],
)
def test_unsqueezes_join(rewritten: Any, first: str, second: str, axes: tuple[int, ...]) -> None:
    body = f"%a = unsqueeze(%x) {{axes = {first}\n%y = unsqueeze(%a) {{axes = {second}"
    done = rewritten(module(body), "simplify-layout")
    assert done.ops == ["unsqueeze"]
    assert done.node("y").op.axes == axes


def test_squeezes_join(rewritten: Any) -> None:
    body = """%a = squeeze(%x) {axes = [1]} : f32[2,1,3,1]
    %y = squeeze(%a) {axes = [1, -1]} : f32[2,3]"""
    done = rewritten(module(body, signature="(%x : f32[2,1,1,3,1]) -> (%y)"), "simplify-layout")
    assert done.ops == ["squeeze"]
    assert done.node("y").op.axes == (1, 2, 4)


@pytest.mark.parametrize(("axis", "ops"), [(1, ["tanh"]), (0, ["unsqueeze", "squeeze", "tanh"])])
def test_what_was_put_in_is_taken_out(rewritten: Any, axis: int, ops: list[str]) -> None:
    """What takes out another dimension of unknown size stays."""
    out = "N,M" if axis else "1,M"
    body = f"""%a = unsqueeze(%x) {{axes = [1]}} : f32[N,1,M]
    %b = squeeze(%a) {{axes = [{axis}]}} : f32[{out}]
    %y = tanh(%b) : f32[{out}]"""
    text = module(body, signature="(%x : f32[N,M]) -> (%y)")
    if axis:
        assert rewritten(text, "simplify-layout").ops == ops
    else:
        after = run(parse_module(text), "simplify-layout")
        assert [n.op.name for n in after.graph.nodes()] == ops


@pytest.mark.parametrize(
    ("shape", "perm", "ops"),
    [
        ("2,1,4", "1, 0, 2", ["reshape"]),
        ("N,4,1,1", "0, 2, 3, 1", ["reshape"]),
        ("N,M,1", "0, 2, 1", ["reshape"]),
        ("N,M,1", "1, 0, 2", ["transpose"]),
        ("1,N,M", "1, 2, 0", ["transpose"]),
    ],
)
def test_only_ones_move(rewritten: Any, shape: str, perm: str, ops: list[str]) -> None:
    """The last case moves ones alone too, but two symbols change places: -1 says only one."""
    dims = shape.split(",")
    out = ",".join(dims[int(i)] for i in perm.split(","))
    body = f"%y = transpose(%x) {{perm = [{perm}]}} : f32[{out}]"
    text = module(body, signature=f"(%x : f32[{shape}]) -> (%y)")
    assert rewritten(text, "simplify-layout").ops == ops


def test_symbols_in_the_target_come_from_the_first(rewritten: Any) -> None:
    constants = "const %s : i64[3] = dense[0, -1, 6]\nconst %t : i64[4] = dense[0, 0, 2, 3]"
    body = "%a = reshape(%x, %s) : f32[N,M,6]\n%y = reshape(%a, %t) : f32[N,M,2,3]"
    text = module(body, constants, "(%x : f32[N,M,3,2]) -> (%y)")
    done = rewritten(text, "simplify-layout")
    assert done.ops == ["reshape"]
    assert done.node("y").operands[1].data.array().tolist() == [0, 0, 2, 3]


def test_transposes_compose(rewritten: Any) -> None:
    """Neither permutation is its own inverse, and they do not commute."""
    body = """%a = transpose(%x) {perm = [1, 2, 3, 0]} : f32[3,4,5,2]
    %y = transpose(%a) {perm = [0, 2, 1, 3]} : f32[3,5,4,2]"""
    done = rewritten(module(body, signature="(%x : f32[2,3,4,5]) -> (%y)"), "simplify-layout")
    assert done.ops == ["transpose"]
    assert done.node("y").op.perm == (1, 3, 2, 0)


def test_transposes_that_undo_each_other_go(rewritten: Any) -> None:
    body = """%a = transpose(%x) {perm = [1, 2, 0]} : f32[3,4,2]
    %b = transpose(%a) {perm = [2, 0, 1]} : f32[2,3,4]
    %y = tanh(%b) : f32[2,3,4]"""
    assert rewritten(module(body), "simplify-layout").ops == ["tanh"]


def test_a_transpose_that_others_read_stays_for_them(rewritten: Any) -> None:
    body = """%a = transpose(%x) : f32[4,3,2]
    %y = transpose(%a) {perm = [1, 0, 2]} : f32[3,4,2]"""
    done = rewritten(module(body, signature="(%x : f32[2,3,4]) -> (%a, %y)"), "simplify-layout")
    assert done.ops == ["transpose", "transpose"]
    assert done.node("y").operands[0].name == "x"


@pytest.mark.parametrize(
    ("first", "ops"),
    [
        ("reshape(%x, %s6) : f32[6,4]", ["reshape"]),
        ("flatten(%x) : f32[2,12]", ["reshape"]),
        ("unsqueeze(%x) {axes = [0]} : f32[1,2,3,4]", ["reshape"]),
        ("tanh(%x) : f32[2,3,4]", ["tanh", "reshape"]),
    ],
)
def test_reshapes_compose(rewritten: Any, first: str, ops: list[str]) -> None:
    constants = """const %s6 : i64[2] = dense[6, 4]
  const %s : i64[2] = dense[-1, 8]"""
    body = f"%a = {first}\n%y = reshape(%a, %s) : f32[3,8]"
    assert rewritten(module(body, constants), "simplify-layout").ops == ops


def test_a_dimension_that_is_taken_over(rewritten: Any) -> None:
    """0 means the operand's own dimension: of the reshaped one, not of the first."""
    constants = "const %s6 : i64[2] = dense[6, 4]\nconst %s : i64[2] = dense[0, -1]"
    body = "%a = reshape(%x, %s6) : f32[6,4]\n%b = tanh(%a) : f32[6,4]\n"
    body += "%c = reshape(%a, %s) : f32[6,4]\n%y = add(%b, %c) : f32[6,4]"
    assert rewritten(module(body, constants), "simplify-layout").ops == ["reshape", "tanh", "add"]
    body = "%a = reshape(%x, %s6) : f32[6,4]\n%y = reshape(%a, %s) : f32[6,2,2]"
    constants = "const %s6 : i64[2] = dense[6, 4]\nconst %s : i64[3] = dense[0, 2, 2]"
    done = rewritten(module(body, constants), "simplify-layout")
    assert done.ops == ["reshape"]
    assert done.node("y").operands[1].data.array().tolist() == [6, 2, 2]


def test_symbols_count_as_equal_shapes(rewritten: Any) -> None:
    body = "%a = reshape(%x, %s) : f32[N,4]\n%y = tanh(%a) : f32[N,4]"
    text = module(body, "const %s : i64[2] = dense[-1, 4]", "(%x : f32[N,4]) -> (%y)")
    assert rewritten(text, "simplify-layout").ops == ["tanh"]


@pytest.mark.parametrize(
    "body",
    [
        "%y = transpose(%x) {perm = [1, 0, 2]} : f32[1,12,4]",
        "%a = reshape(%x, %s) : f32[?,4] %y = reshape(%a, %t) : f32[1,12,4]",
        "%a = expand(%x, %t) : f32[?,?,4] %y = squeeze(%a) {axes = [1]} : f32[12,4]",
    ],
)
def test_sizes_of_an_example_are_not_taken_for_true(rewritten: Any, body: str) -> None:
    """An exporter states 12 for an inner value where the model has a symbol: it runs with any."""
    constants = "const %s : i64[2] = dense[-1, 4]\nconst %t : i64[3] = dense[1, -1, 4]"
    body = body.replace("expand(%x, %t) : f32[?,?,4]", "identity(%x) : f32[T,1,4]")
    text = module(body, constants, "(%x : f32[T,1,4]) -> (%y)")
    assert rewritten(text, "simplify-layout").ops[-1] in ("reshape", "squeeze")
