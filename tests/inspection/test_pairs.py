"""Values of two modules that are one."""

from __future__ import annotations

import qdqc
from qdqc.inspection.pairs import pairs_of
from qdqc.ir.graph import Module

FLOAT = """module @m {opsets = {"" = 17}} {
  const %w : f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %c = conv(%x, %w) : f32[1,4,8,8] loc("/c")
    %s = sigmoid(%c) : f32[1,4,8,8] loc("/s")
    %y = relu(%s) : f32[1,4,8,8] loc("/y")
  }
}"""

QUANTIZED = """module @m {opsets = {"" = 17}} {
  const %w : i8[4,3,1,1] q(scale = 1) = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %x_q = quantize(%x) : u8[1,3,8,8] q(scale = 0.1)
    %c = conv(%x_q, %w) : u8[1,4,8,8] q(scale = 0.5) loc("/c")
    %c_dq = dequantize(%c) : f32[1,4,8,8] loc("/c")
    %s = sigmoid(%c_dq) : f32[1,4,8,8] loc("/s")
    %s_q = quantize(%s) : u8[1,4,8,8] q(scale = 0.004)
    %y = relu(%s_q) : u8[1,4,8,8] q(scale = 0.004) loc("/y")
  }
}"""


def module(text: str) -> Module:
    return qdqc.from_text(text)


def shown(quantized: str, reference: str = FLOAT) -> list[tuple[str, str, str, str]]:
    return [
        (p.value.name, p.name, p.stored.elem.text if p.stored else "float", p.tap)
        for p in pairs_of(module(quantized), module(reference))
    ]


def test_values_are_found_by_name_and_held_in_their_casts() -> None:
    assert shown(QUANTIZED) == [
        ("x", "x", "u8", "x"),
        ("c", "c", "u8", "c"),
        ("s", "s", "u8", "s_q"),
        ("y", "y", "u8", "y"),
    ]


def test_values_of_other_names_are_found_by_their_node() -> None:
    renamed = QUANTIZED.replace("%c ", "%conv_out ").replace("%c)", "%conv_out)")
    assert shown(renamed)[1] == ("conv_out", "c", "u8", "conv_out")


def test_a_node_that_became_two_is_not_guessed() -> None:
    twice = QUANTIZED.replace("%c ", "%d ").replace("%c)", "%d)").replace('"/s"', '"/c"')
    twice = twice.replace("%s ", "%t ").replace("%s)", "%t)")
    assert [n for n, *_ in shown(twice)] == ["x", "y"]


FOREIGN = """module @m {opsets = {"" = 17}} {
  const %w : i8[4,3,1,1] q(scale = 1) = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %x_QuantizeLinear_Output = quantize(%x) : u8[1,3,8,8] q(scale = 0.1)
    %x_DequantizeLinear_Output = dequantize(%x_QuantizeLinear_Output) : f32[1,3,8,8]
    %w_DequantizeLinear_Output = dequantize(%w) : f32[4,3,1,1]
    %c = conv(%x_DequantizeLinear_Output, %w_DequantizeLinear_Output) : f32[1,4,8,8]
    %c_QuantizeLinear_Output = quantize(%c) : u8[1,4,8,8] q(scale = 0.5)
    %c_DequantizeLinear_Output = dequantize(%c_QuantizeLinear_Output) : f32[1,4,8,8]
    %s = sigmoid(%c_DequantizeLinear_Output) : f32[1,4,8,8]
    %y = relu(%s) : f32[1,4,8,8]
  }
}"""


def test_names_of_onnxruntimes_quantizer_are_understood() -> None:
    """A result and the integers behind it are one value, which bears the shorter name."""
    typed = qdqc.run(module(FOREIGN), "import-qdq")
    pairs = {p.name: p for p in pairs_of(typed, module(FLOAT))}
    assert list(pairs) == ["x", "c", "s", "y"]
    assert pairs["c"].value.name == "c"
    assert pairs["c"].stored is not None


def test_a_result_is_no_input_of_that_name() -> None:
    swapped = FLOAT.replace("%x ", "%in ").replace("%x,", "%in,").replace("%c", "%x")
    assert "x" not in [n for n, *_ in shown(QUANTIZED, swapped)]
