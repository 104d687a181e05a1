"""Why one node runs as it does, in words."""

from __future__ import annotations

import re

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.quant.targets.target import target_named
from qdqc.report.why import node_named, render_why
from qdqc.runtime.audit.audit import Audit, AuditRow
from qdqc.text.parser import parse_module

ORT = target_named("ort-cpu")

TYPED = """module @m {opsets = {"" = 17}} {
  const %w : i8[2,3,1,1] q(axis = 0, scale = [0.5, 0.25]) = dense[1, -2, 3, -127, 5, 127]
  const %b : i32[2] q(axis = 0, scale = [0.05, 0.025]) = dense[7, -9]
  graph (%x : f32[1,3,2,2]) -> (%y, %z) {
    %x_q = quantize(%x) : u8[1,3,2,2] q(scale = 0.1, zero_point = 3)
    %c = conv(%x_q, %w, %b) {clamp = [0, inf]} : u8[1,2,2,2] q(scale = 0.2)
    %y = dequantize(%c) : f32[1,2,2,2]
    %z = tanh(%x) : f32[1,3,2,2] range(-1, 1, 1)
  }
}"""


@pytest.fixture
def typed() -> Module:
    return parse_module(TYPED)


def audit_of(*rows: tuple[str, str, str, str, str]) -> Audit:
    return Audit(tuple(AuditRow(*row) for row in rows), ())


def test_an_integer_node_with_all_that_it_reads(typed: Module) -> None:
    audit = audit_of(("c", "conv", "integer", "QLinearConv", ""))
    lines = render_why(node_named(typed, "c"), audit, ORT).splitlines()
    assert lines[0] == "conv 'c' runs in integers by QLinearConv"
    assert lines[1:5] == [
        "  x        %x_q : u8[1,3,2,2], scale 0.1, zero point 3",
        "  weight   %w : i8[2,3,1,1], 2 scales 0.25..0.5 along axis 0, from -127 to 127",
        "  bias     %b : i32[2], 2 scales 0.025..0.05 along axis 0, from -9 to 7",
        "  gives    %c : u8[1,2,2,2], scale 0.2, zero point 0",
    ]
    (kept,) = (line for line in lines if line.startswith("  keeps the rules of ort-cpu: "))
    named = re.split(", |: ", kept)[1:]
    assert {"kernel", "operands", "weight-range", "bias-scale", "relu-zero-point"} <= set(named)
    assert not [line for line in lines if line.startswith("  breaks")]


def test_a_broken_rule_says_how(typed: Module) -> None:
    text = TYPED.replace("q(scale = 0.2)", "q(scale = 0.2, zero_point = 5)")
    node = node_named(parse_module(text), "c")
    told = render_why(node, audit_of(), ORT)
    assert "  breaks relu-zero-point: the zero point is 5, and the Relu wants 0" in told
    assert told.startswith("conv 'c' is not in the deployed model\n")
    kept = next(line for line in told.splitlines() if "keeps the rules" in line)
    assert "relu-zero-point" not in kept


def test_a_float_node_has_a_reason_a_range_and_no_rules(typed: Module) -> None:
    reason = "ort-cpu has no integer kernel for 'tanh'"
    audit = audit_of(("z", "tanh", "float", "Tanh", reason))
    assert render_why(node_named(typed, "z"), audit, ORT).splitlines() == [
        f"tanh 'z' runs in float by Tanh: {reason}",
        "  x        %x : f32[1,3,2,2]",
        "  gives    %z : f32[1,3,2,2], range -1..1",
    ]


@pytest.mark.parametrize("name", ["cc", "x", "w", "no such\nname", ""])
def test_what_is_no_node(typed: Module, name: str) -> None:
    with pytest.raises(QdqcError, match="no node is called") as caught:
        node_named(typed, name)
    assert "names are those of the .qir file" in str(caught.value)


def test_a_near_name_is_offered(typed: Module) -> None:
    with pytest.raises(QdqcError, match=r"no node is called 'x_p'; did you mean 'x_q'\?"):
        node_named(typed, "x_p")


def test_operands_in_any_number_share_the_last_name() -> None:
    module = parse_module("""module @m {opsets = {"" = 17}} {
  graph (%a : f32[1], %b : f32[?], %c : f32[1]) -> (%y) {
    %y = concat(%a, %b, %c) {axis = 0} : f32[?]
  }
}""")
    lines = render_why(node_named(module, "y"), audit_of(), ORT).splitlines()
    labels = [line.split()[0] for line in lines[1:4]]
    assert len(set(labels)) == 1
    assert [line.split()[1] for line in lines[1:4]] == ["%a", "%b", "%c"]
