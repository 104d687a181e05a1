"""What people and JSON see of an audit and of bad fusions."""

from __future__ import annotations

import json
import math

import pytest

from qdqc.report.audit_text import (
    audit_entries,
    bad_fusion_entries,
    render_audit,
    render_bad_fusions,
)
from qdqc.runtime.audit.audit import Audit, AuditRow
from qdqc.runtime.audit.fusions import BadFusion


def row(name: str, op: str, runs: str, reason: str = "") -> AuditRow:
    kernel = "QLinearConv" if runs == "integer" else op.title()
    return AuditRow(name, op, runs, kernel, reason)


ROWS = (
    row("a", "conv", "integer"),
    row("b", "conv", "float", "its mode is F32"),
    row("c", "conv", "float", "its mode is F32"),
    row("d", "conv", "float", "its mode is F32"),
    row("e", "conv", "float", "its mode is F32"),
    row("m", "matmul", "float", "onnxruntime runs MatMul, not integers"),
    row("s", "add", "integer"),
    row("t", "tanh", "float", "ort-cpu has no integer kernel for 'tanh'"),
)


def test_the_text_counts_and_groups_by_reason() -> None:
    assert render_audit(Audit(ROWS, ())).splitlines() == [
        "integer: 1 of 6 Conv, ConvTranspose, MatMul and Gemm; 1 of 2 other nodes",
        "  float conv b, c, d and 1 more: its mode is F32",
        "  float matmul m: onnxruntime runs MatMul, not integers",
    ]


def test_a_node_that_runs_in_integers_unasked_is_told() -> None:
    unasked = row("g", "gemm", "integer", "its mode is F32, and onnxruntime quantized it")
    text = render_audit(Audit((*ROWS[:1], unasked), (unasked,)))
    assert text.splitlines()[0].startswith("integer: 2 of 2 ")
    assert text.splitlines()[1:] == [f"  integer gemm g: {unasked.reason}"]


def test_a_rule_stands_beside_how_a_node_runs() -> None:
    given = AuditRow("g", "gemm", "integer", "QGemm", "breaks weight-type: why", "weight-type")
    assert audit_entries(Audit((given,), ()))["ops"][0]["rule"] == "weight-type"
    assert len(render_audit(Audit((given,), ())).splitlines()) == 1, "it runs, and is no finding"


def test_one_line_for_all_that_break_a_rule() -> None:
    rows = [
        AuditRow(n, "conv", "float", "Conv", f"breaks result: %{n} is float", "result")
        for n in ("a", "b")
    ]
    lines = render_audit(Audit(tuple(rows), ())).splitlines()[1:]
    assert lines == ["  float conv a, b: breaks result: %a is float"]


def test_products_without_a_kernel_are_counted_apart() -> None:
    text = render_audit(Audit((*ROWS[:2], row("z", "conv", "folded")), ()))
    head = "integer: 1 of 2 Conv, ConvTranspose, MatMul and Gemm; 0 of 0 other nodes"
    assert text.splitlines()[0] == f"{head}; 1 more have no kernel left"


def test_nothing_to_tell_of() -> None:
    assert render_audit(Audit((), ())).startswith("integer: 0 of 0 ")
    assert audit_entries(Audit((), ())) == {
        "ops": [],
        "runtime": "onnxruntime",
        "integer": 0,
        "float": 0,
    }


def test_entries_hold_every_row_in_order() -> None:
    found = audit_entries(Audit(ROWS, ()))
    assert (found["integer"], found["float"]) == (1, 5)
    assert [r["name"] for r in found["ops"]] == list("abcdemst")
    assert found["ops"][5] == {
        "name": "m",
        "op": "matmul",
        "runs": "float",
        "kernel": "Matmul",
        "reason": "onnxruntime runs MatMul, not integers",
    }
    json.dumps(found)


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (5, " and 2 more")])
def test_bad_fusions_in_one_sentence(count: int, more: str) -> None:
    bad = [BadFusion(f"v{i}", "Conv", 4.4 + i) for i in range(count)]
    text = render_bad_fusions(bad)
    assert text.startswith("onnxruntime fuses badly: 'v0' (Conv, 4 steps)")
    assert text.endswith(f"{more} come out otherwise than their casts say")
    assert text.count("steps)") == min(count, 3)


def test_an_infinite_difference_is_no_json_number() -> None:
    found = bad_fusion_entries([BadFusion("y", "Gemm", math.inf), BadFusion("z", "Conv", 5.0)])
    assert [e["steps"] for e in found] == [None, 5.0]
    json.dumps(found, allow_nan=False)
