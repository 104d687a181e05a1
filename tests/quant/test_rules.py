"""Every rule of every target is broken once, and named by the pass that verifies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Elem
from qdqc.ops import Conv
from qdqc.pipeline.manager import run
from qdqc.quant.targets.ort_cpu import OrtCpu
from qdqc.quant.targets.rules import RULES, broken_rules, rule
from qdqc.quant.targets.target import TARGETS, Target, target_named
from qdqc.text.parser import parse_module

CONV = """
module @m {
  const %w : i8[2,1,1,1] q(axis = 0, scale = [0.5, 0.25]) = dense[63, -60]
  const %b : i32[2] q(axis = 0, scale = [0.25, 0.125]) = dense[7, -9]
  graph (%x : u8[1,1,2,2] q(scale = 0.5, zero_point = 128)) -> (%y) {
    %y = conv(%x, %w, %b) {clamp = [0, inf]} : u8[1,2,2,2] q(scale = 0.5)
  }
}
"""
MOVE = """
module @m {
  const %s : i64[2] = dense[2, 2]
  graph (%x : u8[1,4] q(scale = 0.5, zero_point = 3)) -> (%y) {
    %y = reshape(%x, %s) : u8[2,2] q(scale = 0.5, zero_point = 3)
  }
}
"""
ADD = """
module @m {
  graph (%x : u8[2] q(scale = 0.5), %z : u8[2] q(scale = 0.25)) -> (%y) {
    %y = add(%x, %z) : u8[2] q(scale = 0.5)
  }
}
"""
GEMM = """
module @m {
  const %w : i8[2,2] q(axis = 1, scale = [0.5, 0.25]) = dense[63, 1, -60, 2]
  graph (%x : u8[2,2] q(scale = 0.5, zero_point = 128)) -> (%y) {
    %y = gemm(%x, %w) : f32[2,2]
  }
}
"""
MATMUL = """
module @m {
  const %w : i8[2,2] q(axis = 1, scale = [0.5, 0.25]) = dense[63, 1, -60, 2]
  const %b : f32[1,2] = dense[0.5, 1]
  graph (%x : u8[1,3,2] q(scale = 0.5, zero_point = 128)) -> (%y) {
    %y = matmul(%x, %w, %b) : f32[1,3,2]
  }
}
"""
CLEAN = {"conv": CONV, "move": MOVE, "add": ADD, "gemm": GEMM, "matmul": MATMUL}
ONE_SCALE = "q(axis = 0, scale = [0.25, 0.125]) = dense[7, -9]"
CHANNELS = "u8[1,2,2,2] q(axis = 1, scale = [0.5, 0.5], zero_point = [0, 0])"

FLOAT_BIAS = "%b : f32[2] = dense[1.75, -1.125]"
INTEGER_BIAS = f"%b : i32[2] {ONE_SCALE}"


def for_target(text: str, target: str) -> str:
    """The text with its bias in the form that the target wants."""
    is_float = target_named(target).bias is Elem.F32
    return text.replace(INTEGER_BIAS, FLOAT_BIAS) if is_float else text


BREAKS: dict[str, list[tuple[str, str, str]]] = {
    "activation-scale": [(CONV, "u8[1,2,2,2] q(scale = 0.5)", CHANNELS)],
    "activation-type": [
        (ADD, "%z : u8[2]", "%z : i8[2]"),
        (ADD, "add(%x, %z) : u8", "add(%x, %z) : i8"),
    ],
    "bias-float": [(CONV, FLOAT_BIAS, INTEGER_BIAS)],
    "bias-overflow": [
        (CONV, "dense[7, -9]", "dense[7, -2147483648]"),
        (CONV, "dense[7", "dense[1100000000"),
    ],
    "bias-scale": [
        (CONV, ONE_SCALE, ONE_SCALE.replace("0.125", "0.126")),
        (CONV, ONE_SCALE, "q(scale = 0.25) = dense[7, -9]"),
    ],
    "bias-type": [
        (CONV, f"i32[2] {ONE_SCALE}", "f32[2] = dense[1.75, -1.125]"),
        (CONV, "[0.25, 0.125])", "[0.25, 0.125], zero_point = [0, 1])"),
    ],
    "clip-range": [(CONV, "clamp = [0, inf]", "clamp = [0, 6]")],
    "gemm-form": [
        (GEMM, "gemm(%x, %w)", "gemm(%x, %w) {alpha = 2}"),
        (GEMM, "gemm(%x, %w)", "gemm(%x, %w) {trans_a = true}"),
    ],
    "kernel": [(ADD, "add", "sub")],
    "matmul-bias": [(MATMUL, "f32[1,2] = dense[0.5, 1]", "f32[2] = dense[0.5, 1]")],
    "operands": [(ADD, "%z : u8[2] q(scale = 0.25)", "%z : f32[2]")],
    "relu-zero-point": [
        (CONV, "u8[1,2,2,2] q(scale = 0.5)", "u8[1,2,2,2] q(scale = 0.5, zero_point = 4)")
    ],
    "result": [
        (CONV, "u8[1,2,2,2] q(scale = 0.5)", "f32[1,2,2,2]"),
        (ADD, "u8[2] q(scale = 0.5)\n", "f32[2]\n"),
    ],
    "shared-scale": [
        (MOVE, "u8[2,2] q(scale = 0.5, zero_point = 3)", "u8[2,2] q(scale = 0.5, zero_point = 4)"),
        (MOVE, "u8[2,2] q(scale = 0.5,", "u8[2,2] q(scale = 0.51,"),
    ],
    "weight-axis": [(GEMM, "q(axis = 1", "q(axis = 0")],
    "weight-range": [(CONV, "dense[63", "dense[-128")],
    "weight-symmetric": [
        (CONV, "scale = [0.5, 0.25])", "scale = [0.5, 0.25], zero_point = [0, 1])")
    ],
    "weight-type": [(CONV, "i8[2,1,1,1]", "i16[2,1,1,1]")],
}
"""Texts with what is replaced in them, by the rule that is broken then."""

CASES = [
    (target, rule, for_target(text, target), old, new)
    for target in TARGETS.names()
    for rule in sorted(TARGETS[target].rules)
    for text, old, new in BREAKS.get(rule, [])
]


def demanding(parent: type[Target], *rules: str) -> Target:
    """A target as another one that demands these rules only; it has no name, so nobody finds it."""
    return type("Only", (parent,), {"rules": frozenset(rules)})()


def found(text: str, target: str) -> list[str]:
    return [b.rule for b in broken_rules(parse_module(text).graph, target_named(target))]


@pytest.mark.parametrize("target", TARGETS.names())
@pytest.mark.parametrize("name", CLEAN)
def test_a_module_that_keeps_the_rules_passes(name: str, target: str) -> None:
    text = for_target(CLEAN[name], target)
    assert found(text, target) == []
    run(parse_module(text), f'verify-target{{target="{target}"}}')


@pytest.mark.parametrize(("target", "rule", "text", "old", "new"), CASES)
def test_a_broken_rule_is_named(target: str, rule: str, text: str, old: str, new: str) -> None:
    assert text.count(old) == 1
    broken = text.replace(old, new)
    assert rule in found(broken, target)
    only = demanding(type(target_named(target)), rule)
    assert [b.rule for b in broken_rules(parse_module(broken).graph, only)] == [rule]
    with pytest.raises(QdqcError, match=f"{target} wants "):
        run(parse_module(broken), f'verify-target{{target="{target}"}}')


def test_every_rule_of_every_target_is_broken_by_a_test() -> None:
    demanded = frozenset[str]().union(*(t.rules for t in TARGETS))
    assert demanded == set(RULES) == set(BREAKS)
    assert all(BREAKS.values())


def test_a_rule_that_nobody_defined_is_an_error() -> None:
    target = demanding(OrtCpu, "kernel", "wait-range")
    with pytest.raises(QdqcError, match=r"rule 'wait-range', .* mean 'weight-range'"):
        list(broken_rules(parse_module(ADD).graph, target))


def test_a_second_rule_of_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "kernel", RULES["kernel"])
    with pytest.raises(ValueError, match=r"rule 'kernel' is already that of qdqc\.quant"):
        rule("kernel")(lambda case: None)


def test_weights_of_eight_bits_break_the_target_that_saturates() -> None:
    wide = CONV.replace("dense[63", "dense[64")
    assert found(wide, "ort-cpu") == []
    assert found(wide, "ort-cpu-avx2") == ["weight-range"]


def test_pairs_of_seven_bit_products_stay_within_int16() -> None:
    limit = target_named("ort-cpu-avx2").weight_limit
    assert 2 * 255 * limit <= np.iinfo(np.int16).max
    assert 2 * 255 * (limit + 2) > np.iinfo(np.int16).max  # one more bit would not


def test_a_weight_only_product_has_no_rule() -> None:
    text = GEMM.replace("u8[2,2] q(scale = 0.5, zero_point = 128)", "f32[2,2]")
    assert found(text, "ort-cpu") == []


def test_a_target_of_a_user_is_data() -> None:
    class Toy(OrtCpu):
        activation = Elem.I8
        rules = frozenset({"activation-type"})

    broken = list(broken_rules(parse_module(ADD).graph, Toy()))
    assert [b.message for b in broken] == ["%x is u8, not i8"]
    assert broken[0].node.name == "y"


def test_a_module_without_a_target_says_so() -> None:
    with pytest.raises(QdqcError, match="names no target"):
        run(parse_module(ADD), "verify-target")


def test_the_error_is_located_and_names_the_rule() -> None:
    text = CONV.replace("0.125]", "0.126]")
    with pytest.raises(QdqcError, match=r"ort-cpu wants bias-scale: .*s_x \* s_w") as error:
        run(parse_module(text), 'verify-target{target="ort-cpu"}')
    assert error.value.diagnostic.node == "conv"


def test_openvino_biases_stay_float_and_have_room(net: Any, quantized: Any) -> None:
    """The bias of a dead channel would not fit int32 beside a scale of its own weights."""
    made = net()
    x = made.input("x", 1, 4, 6, 6)
    weight = np.concatenate([np.ones((1, 4, 1, 1)), np.full((1, 4, 1, 1), 1e-9)])
    y = made.op("y", Conv(), x, made.const("w", weight), made.const("b", np.array([0.1, 1.0])))
    done = quantized(made.returns(y), 'quantize{target="openvino"}')
    node = done.node("y_i")
    np.testing.assert_array_equal(node.operand("bias").data.array(), np.float32([0.1, 1.0]))


def test_avx2_weights_are_laid_in_seven_bits(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 4, 6, 6)
    y = made.op("y", Conv(), x, made.weight("w", 5, 4, 1, 1), made.weight("b", 5))
    done = quantized(made.returns(y), 'quantize{target="ort-cpu-avx2"}')
    stored = done.node("y_i").operand("weight").data.array()
    assert np.abs(stored.reshape(5, -1)).max(axis=1).tolist() == [63] * 5
