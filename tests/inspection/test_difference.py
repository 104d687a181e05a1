"""Differences of hand-made pairs, each known beforehand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qdqc
from qdqc.inspection.difference import Change, Detail, difference
from qdqc.inspection.stages import quantized_stage
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module

NET = """module @m {opsets = {"" = 17}, pipeline = "a,b{x=1,y=2}"} {
  const %w : f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %c = conv(%x, %w) : f32[1,4,8,8] loc("/c")
    %r = relu(%c) : f32[1,4,8,8] loc("/r")
    %y = add(%r, %c) : f32[1,4,8,8] loc("/y")
  }
}"""


def net(*changes: tuple[str, str]) -> Module:
    text = NET
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return qdqc.from_text(text)


def changed(*changes: tuple[str, str]) -> list[Change]:
    return list(difference(net(), net(*changes)).changes)


def details(*changes: tuple[str, str]) -> dict[str, list[Detail]]:
    found = changed(*changes)
    assert {c.sign for c in found} <= {"~"}
    return {c.name: list(c.details) for c in found}


def test_a_module_does_not_differ_from_itself() -> None:
    found = difference(net(), net())
    assert found.changes == ()
    assert found.nodes == (3, 3)
    assert found.counts == {"added": 0, "removed": 0, "changed": 0}


@pytest.mark.parametrize(
    ("change", "name", "wanted"),
    [
        (("relu(%c)", "tanh(%c)"), "r", Detail("op", "relu", "tanh")),
        (
            ("conv(%x, %w)", "conv(%x, %w) {clamp = [0, 6]}"),
            "c",
            Detail("clamp", "default", "[0, 6]"),
        ),
        (("add(%r, %c)", "add(%c, %r)"), "y", Detail("reads", "r, c", "c, r")),
        (
            ('f32[1,4,8,8] loc("/r")', 'f32[1,4,8,8] range(-1, 2, 2) loc("/r")'),
            "r",
            Detail("range", "none", "-1..2 threshold 2"),
        ),
        (
            ('f32[1,4,8,8] loc("/r")', 'f32[1,4,8,8] mode(F32) loc("/r")'),
            "r",
            Detail("mode", "none", "F32"),
        ),
        (("-> (%y)", "-> (%r)"), "m", Detail("outputs", "y", "r")),
        (('"" = 17', '"" = 18'), "m", Detail("opsets", '{"" = 17}', '{"" = 18}')),
        (("a,b{x=1,y=2}", "a,b{x=1,y=2},c"), "m", Detail("passes", "none", "c")),
        (
            ("a,b{x=1,y=2}", "z,b{x=1,y=3}"),
            "m",
            Detail("passes", "a, b{x=1,y=2}", "z, b{x=1,y=3}"),
        ),
    ],
)
def test_one_aspect(change: tuple[str, str], name: str, wanted: Detail) -> None:
    assert details(change)[name] == [wanted]


def test_passes_that_both_ran_last_are_left_out() -> None:
    before, after = net(), net()
    before.header["pipeline"], after.header["pipeline"] = "a,b,z", "a,c,d,z"
    (change,) = difference(before, after).changes
    assert change.details == (Detail("passes", "b", "c, d"),)


def test_a_file_that_does_not_say_how_it_was_made_changed_nothing_by_that() -> None:
    after = net()
    before = net()
    before.graph.input_attrs["x"] = {"mean": (127.5,)}
    del after.header["pipeline"]
    assert difference(before, after).changes == ()
    after.graph.input_attrs["x"] = {"mean": (0.5,)}
    (change,) = difference(before, after).changes
    assert change.details == (Detail("mean", "[127.5]", "[0.5]"),)


def test_shapes_and_symbols() -> None:
    found = details(("f32[1,3,8,8]", "f32[N,3,8,8]"), ("f32[1,4,8,8]", "f32[N,4,8,8]"))
    assert found["x"] == [Detail("shape", "[1,3,8,8]", "[N,3,8,8]")]
    assert set(found) == {"x", "c", "r", "y"}


def test_weights_by_the_operand_that_they_are_and_by_their_numbers() -> None:
    assert changed(("%w", "%other_name")) == [], "the name of a constant is nobody's business"
    ((weight,),) = details(("dense[1, 2,", "dense[1, 1,")).values()
    w = np.arange(1.0, 13.0)
    noise = 10 * math.log10(np.sum(w**2) / 1.0)
    assert weight == Detail("weight", "f32", f"other numbers, {noise:.1f} dB")


def test_a_quantized_weight_tells_its_scales_and_what_it_keeps() -> None:
    stored = "i8[4,3,1,1] q(axis = 0, scale = [0.5, 1, 1, 2])"
    codes = "dense[2, 4, 6, 4, 5, 6, 7, 8, 9, 5, 6, 6]"
    found = details(
        ("f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]", f"{stored} = {codes}")
    )
    # Row 3 holds 10, 12, 12 for 10, 11, 12; all others are exact.
    noise = 10 * math.log10(sum(i**2 for i in range(1, 13)))
    assert found["c"] == [Detail("weight", "f32", f"i8, 4 scales 0.5..2 on axis 0, {noise:.1f} dB")]


def test_other_scales_of_the_same_extremes_are_seen() -> None:
    held = "f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]"
    text = "i8[4,3,1,1] q(axis = 0, scale = [{}]) = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]"
    one, other = (net((held, text.format(s))) for s in ("1, 2, 3, 4", "1, 3, 2, 4"))
    ((weight,),) = [c.details for c in difference(one, other).changes]
    assert weight.before == "i8, 4 scales 1..4 on axis 0"
    assert weight.after.startswith("other numbers, ")


def test_elided_weights_are_compared_by_the_digest_that_is_known() -> None:
    whole = net()
    part = qdqc.from_text(qdqc.to_text(whole, weights=False))
    assert difference(whole, part).changes == ()
    other = qdqc.from_text(
        NET.replace("dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]", 'elided("sha256:00000000")')
    )
    ((weight,),) = [c.details for c in difference(whole, other).changes]
    assert weight == Detail("weight", "f32", "other numbers")


def test_removed_and_added_nodes_say_where_they_went() -> None:
    fused = qdqc.run(net(("add(%r, %c)", "add(%r, %r)")), "canonicalize,fuse-activation")
    found = difference(net(("add(%r, %c)", "add(%r, %r)")), fused)
    assert [(c.sign, c.name, c.note) for c in found.changes if c.op != "module"] == [
        ("-", "c", "now part of conv r"),
        ("~", "r", ""),
    ]
    back = difference(fused, net(("add(%r, %c)", "add(%r, %r)")))
    assert ("+", "c", "from conv r") in [(c.sign, c.name, c.note) for c in back.changes]
    assert found.counts == {"added": 0, "removed": 1, "changed": 2}
    assert found.by_aspect()["op"] == 1
    assert found.moves() == [(Detail("op", "relu", "conv"), 1)]


def test_inputs_come_and_go() -> None:
    found = changed(
        ("%x : f32[1,3,8,8]", "%z : f32[1,3,8,8], %more : f32[1]"), ("conv(%x", "conv(%z")
    )
    assert [(c.sign, c.op, c.name) for c in found] == [
        ("-", "input", "x"),
        ("+", "input", "z"),
        ("+", "input", "more"),
        ("~", "conv", "c"),
    ]


def test_casts_are_nodes_but_nobody_reads_something_else_by_them() -> None:
    held = net(
        ("%r = relu(%c)", "%c_q = quantize(%c) : u8[1,4,8,8] q(scale = 0.1)\n    %r = relu(%c_d)"),
        ("%r = relu", "%c_d = dequantize(%c_q) : f32[1,4,8,8]\n    %r = relu"),
    )
    found = difference(net(), held)
    assert [(c.sign, c.op) for c in found.changes] == [("+", "quantize"), ("+", "dequantize")]


def test_nested_graphs_and_what_they_capture() -> None:
    text = """module @n {{opsets = {{"" = 17}}}} {{
  graph (%c : bool[], %x : f32[2], %z : f32[2]) -> (%y) {{
    %y = if(%c) : f32[2] {{ graph () -> (%a) {{ %a = relu(%{}) : f32[2] }}
      graph () -> (%b) {{ %b = neg(%x) : f32[2] }} }}
  }}
}}"""
    found = difference(*(qdqc.from_text(text.format(name)) for name in ("x", "z")))
    assert {c.name: c.details for c in found.changes} == {
        "y": (Detail("captures", "x", "x, z"),),
        "a": (Detail("reads", "x", "z"),),
    }


def test_a_deployment_beside_its_float_module(digits: Path) -> None:
    before, after = (quantized_stage(digits / f) for f in ("digits.qir", "digits_int8.onnx"))
    found = difference(before, after)
    assert not [c for c in found.changes if c.sign == "-"]
    precise = {c.name for c in found.changes if Detail("precision", "f32", "u8") in c.details}
    known = {n.name for n in before.graph.nodes()}
    held = {n.name for n in after.graph.nodes() if n.result.tensor.quant is not None}
    assert precise == held & known
    assert len(precise) > 10


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from(["c", "r", "y"])), st.sampled_from([8.0, 16.0]))
def test_what_was_added_one_way_was_removed_the_other(names: set[str], factor: float) -> None:
    """Differences turned round have the same things with before and after exchanged."""
    one, other = net(), clone(net())
    for name in names:
        value = other.value(name)
        assert value is not None
        value.rename(f"{name}_{factor}")
    there, back = difference(one, other), difference(other, one)
    turned = {"+": "-", "-": "+", "~": "~"}
    assert {(turned[c.sign], c.op if c.sign != "~" else "", c.name) for c in there.changes} == {
        (c.sign, c.op if c.sign != "~" else "", c.name) for c in back.changes
    }
    assert there.counts["added"] == len(names)
    pairs = {(c.name, d.aspect): (d.before, d.after) for c in there.changes for d in c.details}
    for change in back.changes:
        for detail in change.details:
            assert pairs[change.name, detail.aspect] == (detail.after, detail.before)
