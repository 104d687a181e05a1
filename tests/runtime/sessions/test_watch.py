"""Loops that do not end: refused where that is known, stopped where only the run shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.flow.transform import transform
from qdqc.onnx_io.importer import import_onnx
from qdqc.ops.control import MOST_ROUNDS
from qdqc.runtime.sessions import watch
from qdqc.runtime.sessions.onnx_file import OnnxRunner
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.sessions.watch import check_rounds

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
X = {"x": np.ones(2, np.float32)}


def info(name: str, elem: int, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem, shape)


def body(*, forever: bool, inner: list[onnx.NodeProto] | None = None, mark: str = "") -> GraphProto:
    """Adds x once a round; goes on while its condition came in true, or the sum is below 5."""
    names = {n: f"{n}{mark}" for n in "icadus"}
    nodes = inner or [helper.make_node("Add", [names["a"], "x"], [names["s"]])]
    if forever:
        nodes.append(helper.make_node("Identity", [names["c"]], [names["d"]]))
    else:
        nodes.append(helper.make_node("ReduceMax", [names["s"]], [names["u"]], keepdims=0))
        nodes.append(helper.make_node("Less", [names["u"], "five"], [names["d"]]))
    given = [info(names["i"], I64, []), info(names["c"], BOOL, []), info(names["a"], F32, [2])]
    return helper.make_graph(
        nodes, "body", given, [info(names["d"], BOOL, []), info(names["s"], F32, [2])]
    )


def model(nodes: list[onnx.NodeProto], trip: int = 0, five: float = 5) -> ModelProto:
    constants = [
        numpy_helper.from_array(np.array(trip), "trip"),
        numpy_helper.from_array(np.array(five, np.float32), "five"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    graph = helper.make_graph(nodes, "m", [info("x", F32, [2])], [info("y", F32, [2])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def loop(trip: str, cond: str, inside: GraphProto, out: str = "y") -> onnx.NodeProto:
    return helper.make_node("Loop", [trip, cond, "x"], [out], name=f"the {out} loop", body=inside)


@pytest.mark.parametrize("cond", ["", "yes"])
def test_too_many_constant_rounds_are_refused_with_their_place(cond: str) -> None:
    endless = model([loop("trip", cond, body(forever=True))], 1 << 40)
    with pytest.raises(QdqcError, match="would run 1099511627776 times") as caught:
        transform(endless)
    assert "the y loop" in str(caught.value)


def test_rounds_of_loops_in_loops_are_multiplied() -> None:
    rounds = 1 << 13
    inner = loop("trip", "", body(forever=True, mark="2"), "s")
    nested = model([loop("trip", "", body(forever=True, inner=[inner]))], rounds)
    with pytest.raises(QdqcError, match=f"would run {rounds * rounds} times"):
        check_rounds(import_onnx(nested))
    check_rounds(import_onnx(model([loop("trip", "", body(forever=True))], MOST_ROUNDS)))


def test_a_scan_runs_as_often_as_its_axis_is_long() -> None:
    outputs = [info("s", F32, []), info("t", F32, [])]
    nodes = [
        helper.make_node("Add", ["a", "e"], ["s"]),
        helper.make_node("Identity", ["s"], ["t"]),
    ]
    inside = helper.make_graph(nodes, "b", [info("a", F32, []), info("e", F32, [])], outputs)
    scan = helper.make_node("Scan", ["five", "x"], ["y", "z"], body=inside, num_scan_inputs=1)
    long = model([scan])
    long.graph.input[0].CopyFrom(info("x", F32, [MOST_ROUNDS + 1]))
    long.graph.output[0].CopyFrom(info("y", F32, []))
    with pytest.raises(QdqcError, match=f"would run {MOST_ROUNDS + 1} times"):
        check_rounds(import_onnx(long))


def test_a_loop_that_a_condition_ends_may_state_any_count() -> None:
    ends = model([loop("trip", "yes", body(forever=False))], (1 << 63) - 1)
    module = transform(ends).module
    np.testing.assert_array_equal(Runner(module).run(X)["y"], [5, 5])


def test_a_loop_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LONGEST", 0.2)
    never = model([loop("", "yes", body(forever=False))], five=np.inf)
    onnx.save(never, tmp_path / "m.onnx")
    for runner in (Runner(import_onnx(never)), OnnxRunner(tmp_path / "m.onnx")):
        with pytest.raises(QdqcError, match=r"the run was stopped: it took more than 0\.2 s"):
            runner.run(X)


def test_a_loop_that_fills_the_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "memory_bytes", lambda: 1 << 20)
    never = model([loop("", "yes", body(forever=False))], five=np.inf)
    with pytest.raises(QdqcError, match="bytes of memory, and a loop"):
        Runner(import_onnx(never)).run(X)
