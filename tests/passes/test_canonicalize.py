"""Each rule of canonicalize, run before and after on random inputs."""

from __future__ import annotations

import math
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
    ("body", "constants", "ops"),
    [
        (
            "%a = identity(%x) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "",
            ["tanh"],
        ),
        (
            '%a = cast(%x) {to = "f32"} : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]',
            "",
            ["tanh"],
        ),
        (
            '%a = cast(%x) {to = "i32"} : i32[2,3,4]\n%y = cast(%a) {to = "f32"} : f32[2,3,4]',
            "",
            ["cast", "cast"],
        ),
        (
            "%a = concat(%x) {axis = 1} : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "",
            ["tanh"],
        ),
        (
            "%a = clip(%x) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "",
            ["tanh"],
        ),
        (
            "%a = clip(%x) {min = 0.5} : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "",
            ["clip", "tanh"],
        ),
        (
            "%a = sub(%x, %c) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %c : f32[4] = random",
            ["add", "tanh"],
        ),
        (
            "%a = sub(%c, %x) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %c : f32[4] = random",
            ["sub", "tanh"],
        ),
        (
            "%a = div(%x, %c) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %c : f32[4] = random",
            ["mul", "tanh"],
        ),
        (
            "%a = div(%c, %x) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %c : f32[4] = random",
            ["div", "tanh"],
        ),
        (
            "%a = mul(%one, %x) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %one : f32[1] = dense[1]",
            ["tanh"],
        ),
        (
            "%a = add(%x, %zero) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %zero : f32[4] = dense[0, 0, 0, 0]",
            ["tanh"],
        ),
        (
            "%a = add(%x, %zero) {clamp = [-1, 1]} : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %zero : f32[] = dense[0]",
            ["clip", "tanh"],
        ),
        (
            "%a = sub(%x, %zero) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]",
            "const %zero : f32[] = dense[0]",
            ["tanh"],
        ),
        (
            "%a = mul(%x, %one) : f32[5,2,3,4]\n%y = tanh(%a) : f32[5,2,3,4]",
            "const %one : f32[5,1,1,1] = dense[1, 1, 1, 1, 1]",
            ["mul", "tanh"],
        ),
    ],
)
def test_a_rule(rewritten: Any, body: str, constants: str, ops: list[str]) -> None:
    assert rewritten(module(body, constants), "canonicalize").ops == ops


def test_division_that_has_no_finite_inverse_stays() -> None:
    body = "%a = div(%x, %c) : f32[2,3,4]\n%y = tanh(%a) : f32[2,3,4]"
    for number in ("2e-39", "0", "inf", "nan"):
        before = parse_module(module(body, f"const %c : f32[4] = dense[1, {number}, 2, 4]"))
        after = run(before, "canonicalize")
        assert [n.op.name for n in after.graph.nodes()] == ["div", "tanh"]


def test_integer_division_stays(rewritten: Any) -> None:
    body = "%a = div(%x, %c) : i32[6]\n%y = sub(%a, %c) : i32[6]"
    text = module(body, "const %c : i32[] = dense[2]", "(%x : i32[6]) -> (%y)")
    assert rewritten(text, "canonicalize").ops == ["div", "sub"]


CONSTANTS = """const %w : f32[4,5] = random
  const %b : f32[5] = random"""


@pytest.mark.parametrize("shape", ["5", "1,5"])
@pytest.mark.parametrize("order", ["%a, %b", "%b, %a"])
@pytest.mark.parametrize("clamp", ["", " {clamp = [0, inf]}"])
def test_a_product_takes_its_bias(rewritten: Any, shape: str, order: str, clamp: str) -> None:
    body = f"""%a = matmul(%x, %w) : f32[N,5] loc("/matmul")
    %y = add({order}){clamp} : f32[N,5] loc("/add")"""
    constants = CONSTANTS.replace("%b : f32[5]", f"%b : f32[{shape}]")
    done = rewritten(module(body, constants, "(%x : f32[N,4]) -> (%y)"), "canonicalize")
    assert done.ops == ["gemm"]
    node = done.node("y")
    assert node.loc.names == ("/matmul", "/add")
    assert node.operands[2].tensor.shape == (5,)
    assert node.op.clamp == ((0, math.inf) if clamp else None)


@pytest.mark.parametrize(
    ("x", "bias", "outputs"),
    [
        ("2,3,4", "3,5", "%y"),  # a number for each element of a matrix
        ("3,4", "1", "%y"),  # one number for all columns
        ("3,4", "3,5", "%y"),  # a number for each element
        ("3,4", "5", "%a, %y"),  # the product is read elsewhere
    ],
)
def test_a_product_that_keeps_its_add(rewritten: Any, x: str, bias: str, outputs: str) -> None:
    rows = x.rpartition(",")[0]
    body = f"""%a = matmul(%x, %w) : f32[{rows},5]
    %y = add(%a, %b) : f32[{rows},5]"""
    constants = CONSTANTS.replace("%b : f32[5]", f"%b : f32[{bias}]")
    text = module(body, constants, f"(%x : f32[{x}]) -> ({outputs})")
    assert rewritten(text, "canonicalize").ops == ["matmul", "add"]


@pytest.mark.parametrize("bias", ["5", "1,5"])
@pytest.mark.parametrize("swapped", [False, True])
def test_matmul_takes_its_bias(rewritten: Any, bias: str, swapped: bool) -> None:
    operands = "%b, %a" if swapped else "%a, %b"
    body = f"""%a = matmul(%x, %w) : f32[2,3,5]
    %y = add({operands}) {{clamp = [0, 6]}} : f32[2,3,5]"""
    constants = CONSTANTS.replace("%b : f32[5]", f"%b : f32[{bias}]")
    done = rewritten(module(body, constants, "(%x : f32[2,3,4]) -> (%y)"), "canonicalize")
    assert done.ops == ["matmul"]
    assert done.node("y").op.clamp == (0, 6)
    assert done.node("y").need("bias").name == "b"


@pytest.mark.parametrize(
    ("shape", "wanted"), [("1,5", (5,)), ("5", (5,)), ("1,1", (1, 1)), ("3,5", (3, 5))]
)
def test_the_bias_of_a_gemm_is_a_row(rewritten: Any, shape: str, wanted: tuple[int, ...]) -> None:
    constants = CONSTANTS.replace("%b : f32[5]", f"%b : f32[{shape}]")
    text = module("%y = gemm(%x, %w, %b) : f32[3,5]", constants, "(%x : f32[3,4]) -> (%y)")
    done = rewritten(text, "canonicalize")
    assert done.node("y").operands[2].tensor.shape == wanted


def test_the_numbers_of_quantized_constants_are_not_their_integers(rewritten: Any) -> None:
    """An integer 0 with zero point 7 is not a zero, and an integer 1 no one."""
    body = """%q = quantize(%x) : u8[2,3,4] q(scale = 0.1, zero_point = 128)
    %a = add(%q, %c) : u8[2,3,4] q(scale = 0.1, zero_point = 128)
    %m = mul(%a, %d) : u8[2,3,4] q(scale = 0.1, zero_point = 128)
    %y = dequantize(%m) : f32[2,3,4]"""
    constants = """const %c : u8[] q(scale = 0.5, zero_point = 7) = dense[0]
  const %d : u8[] q(scale = 0.5, zero_point = 0) = dense[1]"""
    assert rewritten(module(body, constants), "canonicalize").ops == [
        "quantize", "add", "mul", "dequantize",
    ]  # fmt: skip


def test_an_input_never_becomes_an_output(rewritten: Any) -> None:
    assert rewritten(module("%y = identity(%x) : f32[2,3,4]"), "canonicalize").ops == ["identity"]


def test_two_outputs_of_one_value_keep_both_names(rewritten: Any) -> None:
    body = """%t = tanh(%x) : f32[2,3,4]
    %y = identity(%t) : f32[2,3,4]
    %z = identity(%t) : f32[2,3,4]"""
    text = module(body, signature="(%x : f32[2,3,4]) -> (%y, %z)")
    assert rewritten(text, "canonicalize").names == ["y", "z"]


def test_an_opaque_node_is_revealed_when_its_inputs_are_constants(rewritten: Any) -> None:
    """Clip with computed bounds has no op of its own until they are folded."""
    body = """%low = add(%a, %b) : f32[]
    %t = onnx(%x, %low) {domain = "", type = "Clip", version = 13} : f32[2,3,4]
    %y = tanh(%t) : f32[2,3,4]"""
    constants = "const %a : f32[] = dense[0.5]\n  const %b : f32[] = dense[-1]"
    assert rewritten(module(body, constants), "canonicalize").ops == ["add", "onnx", "tanh"]
    done = rewritten(module(body, constants), "fold-constants,canonicalize")
    assert done.ops == ["clip", "tanh"]
    assert done.node("t").op.min == -0.5
