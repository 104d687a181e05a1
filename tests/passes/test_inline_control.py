"""Branches that are known, loops and scans of no or one round: the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_graph, make_node, make_tensor_value_info

from qdqc.flow.transform import transform
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner

LOOP = """module @loop {{opsets = {{"" = 17}}}} {{
  const %trip : i64[] = dense[{trip}]
  const %cond : bool[] = dense[{cond}]
  const %end : bool[] = dense[false]
  graph (%x : f32[3], %u : f32[3]) -> (%y, %s) {{
    %a = abs(%x) : f32[3]
    %y, %h, %s = loop({operands}, %a, %u) : f32[3], f32[3], f32[?,3] {{
      graph (%i : i64[], %c : bool[], %p : f32[3], %q : f32[3]) -> ({go}, %p1, %q1, %e) {{
        %f = cast(%i) {{to = "f32"}} : f32[]
        %r = add(%p, %f) : f32[3]
        %p1 = mul(%r, %q) : f32[3]
        %q1 = sub(%q, %a) : f32[3]
        %e = exp(%p1) : f32[3]
      }}
    }}
  }}
}}"""


@pytest.mark.parametrize(
    ("trip", "cond", "operands", "go", "inlined"),
    [
        (0, "true", "%trip, none", "%c", True),
        (0, "true", "%trip, %cond", "%c", True),
        (5, "false", "%trip, %cond", "%c", True),
        (1, "true", "%trip, %cond", "%c", True),
        (1, "true", "%trip, none", "%c", True),
        (4, "true", "%trip, none", "%end", True),
        (4, "true", "none, %cond", "%end", True),
        (2, "true", "%trip, none", "%c", False),
        (2, "true", "%trip, %cond", "%c", False),
    ],
)
def test_loops(rewritten: Any, trip: int, cond: str, operands: str, go: str, inlined: bool) -> None:
    text = LOOP.format(trip=trip, cond=cond, operands=operands, go=go)
    done = rewritten(text, "inline-control")
    assert ("loop" not in done.ops) == inlined
    assert ("loop" not in rewritten(text, "@transform").ops) == inlined


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("stacked", [0, 1, -1])
@pytest.mark.parametrize("backward", [0, 1])
def test_scans_of_one_slice(rewritten: Any, axis: int, stacked: int, backward: int) -> None:
    shape = "1,3" if axis == 0 else "3,1"
    out = "1,3" if stacked == 0 else "3,1"
    text = f"""module @scan {{opsets = {{"" = 17}}}} {{
  graph (%x : f32[3], %s : f32[{shape}]) -> (%y, %t) {{
    %y, %t = scan(%x, %s) {{num_scan_inputs = 1, scan_input_axes = [{axis}],
      scan_input_directions = [{backward}], scan_output_axes = [{stacked}]}} : f32[3], f32[{out}] {{
      graph (%p : f32[3], %k : f32[3]) -> (%n, %m) {{
        %n = mul(%p, %k) : f32[3]
        %m = exp(%n) : f32[3]
      }}
    }}
  }}
}}"""
    assert "scan" not in rewritten(text, "inline-control").ops


@pytest.mark.parametrize("cond", ["true", "false"])
def test_branches_with_shared_captured_and_nested_results(rewritten: Any, cond: str) -> None:
    text = f"""module @if {{opsets = {{"" = 17}}}} {{
  const %c : bool[] = dense[{cond}]
  const %k : f32[3] = dense[1, 2, 3]
  graph (%x : f32[3], %d : bool[]) -> (%y, %z, %w) {{
    %a = abs(%x) : f32[3]
    %y, %z, %v = if(%c) : f32[3], f32[3], f32[3] {{
      graph () -> (%r, %r, %s) {{
        %r = add(%a, %k) : f32[3]
        %s = if(%d) : f32[3] {{
          graph () -> (%t) {{
            %t = mul(%r, %a) : f32[3]
          }}
          graph () -> (%u) {{
            %u = neg(%r) : f32[3]
          }}
        }}
      }}
      graph () -> (%m, %n, %n) {{
        %m = identity(%x) : f32[3]
        %n = neg(%k) : f32[3]
      }}
    }}
    %w = exp(%v) : f32[3]
  }}
}}"""
    assert rewritten(text, "inline-control").ops.count("if") == (cond == "true")
    rewritten(text, "@transform")


def test_dead_results_of_nested_graphs(rewritten: Any) -> None:
    """Outputs stay what they were when what nobody reads is gone, in @transform as well."""
    text = """module @dead {opsets = {"" = 17}} {
  const %three : i64[] = dense[3]
  graph (%x : f32[2], %s : f32[4,2], %c : bool[]) -> (%b, %l2, %sc) {
    %y, %b = if(%c) : f32[2], f32[2] {
      graph () -> (%r, %r2) {
        %r = relu(%x) : f32[2]
        %r2 = exp(%r) : f32[2]
      }
      graph () -> (%n, %m) {
        %n = neg(%x) : f32[2]
        %m = neg(%n) : f32[2]
      }
    }
    %l, %l2, %l3, %st = loop(%three, none, %x, %b, %x) : f32[2], f32[2], f32[2], f32[3,2] {
      graph (%i : i64[], %ci : bool[], %acc : f32[2], %acc2 : f32[2], %acc3 : f32[2])
          -> (%ci, %nx, %nx2, %nx3, %nx) {
        %nx = add(%acc, %x) : f32[2]
        %nx2 = mul(%acc2, %acc3) : f32[2]
        %nx3 = add(%acc3, %x) : f32[2]
      }
    }
    %last, %s0, %sc = scan(%x, %s) {num_scan_inputs = 1, scan_output_axes = [0, 1]}
        : f32[2], f32[4,2], f32[2,4] {
      graph (%state : f32[2], %sl : f32[2]) -> (%ns, %sl2, %sl3) {
        %ns = add(%state, %sl) : f32[2]
        %sl2 = exp(%sl) : f32[2]
        %sl3 = sin(%sl) : f32[2]
      }
    }
  }
}"""
    done = rewritten(text, "eliminate-dead-code")
    loop, scan = done.node("l2"), done.node("sc")
    assert [len(n.results) for n in (done.node("b"), loop, scan)] == [1, 2, 1]
    assert (len(loop.operands), len(scan.operands)) == (4, 1)
    rewritten(text, "@transform")


def test_a_condition_on_shapes_is_decided_by_the_shapes() -> None:
    """As PyTorch's exporter writes it: squeeze where the batch has one row, else not."""
    info = make_tensor_value_info
    then = make_graph(
        [make_node("Squeeze", ["a", "zero"], ["t"])], "t", [], [info("t", TensorProto.FLOAT, None)]
    )
    other = make_graph(
        [make_node("Identity", ["a"], ["e"])], "e", [], [info("e", TensorProto.FLOAT, None)]
    )
    nodes = [
        make_node("Abs", ["x"], ["a"]),
        make_node("Shape", ["a"], ["shape"]),
        make_node("Gather", ["shape", "index"], ["rows"]),
        make_node("Equal", ["rows", "one"], ["single"]),
        make_node("If", ["single"], ["b"], then_branch=then, else_branch=other, name="/if"),
        make_node("Neg", ["b"], ["y"]),
    ]
    constants = [
        helper.make_tensor(n, TensorProto.INT64, shape, [value])
        for n, shape, value in (("zero", [1], 0), ("index", [], 0), ("one", [], 1))
    ]
    graph = make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["N", 4])],
        [info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for rows, shape in ((1, (4,)), (3, (3, 4))):
        x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
        module = run(import_onnx(model, input_shapes={"x": [rows, 4]}), "@transform")
        assert "if" not in [n.op.name for n in module.walk()]
        assert module.graph.outputs[0].tensor.shape == shape
        np.testing.assert_array_equal(Runner(module).run({"x": x})["y"], -np.abs(x).reshape(shape))
    open_ = run(import_onnx(model), "@transform")
    assert "if" in [n.op.name for n in open_.walk()]


def constant_if(other: Any, then: Any = None) -> Any:
    """An If that takes its first branch, relu then neg."""
    inner = [make_node("Relu", ["x"], ["a"]), make_node("Neg", ["a"], ["b"])]
    then = then or make_graph(inner, "t", [], [make_tensor_value_info("b", 1, None)])
    nodes = [
        make_node("If", ["cond"], ["r"], then_branch=then, else_branch=other),
        make_node("Abs", ["r"], ["y"]),
    ]
    tensors = [helper.make_tensor("cond", TensorProto.BOOL, [], [True])]
    value = make_tensor_value_info
    graph = make_graph(nodes, "g", [value("x", 1, [2, 4])], [value("y", 1, None)], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.none", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def branch_of(*nodes: Any, elem: int = TensorProto.FLOAT) -> Any:
    last = nodes[-1].output[0]
    return make_graph(nodes, "e", [], [make_tensor_value_info(last, elem, None)])


def test_a_check_of_a_branch_with_values_inside() -> None:
    """What was nested and stands in the graph now is compared with nothing."""
    done = transform(constant_if(branch_of(make_node("Identity", ["x"], ["c"]))))
    assert [n.op.name for n in done.module.graph.nodes()] == ["relu", "abs"]
    assert [r.name for r in done.check().comparison.rows] == ["y"]


NEVER = {
    "another type": branch_of(make_node("Shape", ["x"], ["s"]), elem=TensorProto.INT64),
    "operands that do not fit": branch_of(make_node("MatMul", ["x", "x"], ["s"])),
    "an unknown op": branch_of(make_node("Frob", ["x"], ["s"], domain="com.none")),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_branch_that_never_runs_may_hold_anything(name: str) -> None:
    never = NEVER[name]
    nested = branch_of(
        make_node(
            "If",
            ["cond"],
            ["q"],
            then_branch=branch_of(make_node("Relu", ["x"], ["i"])),
            else_branch=never,
        )
    )
    x = np.array([[-1, 2, -3, 4], [0, -1, 1, -2]], np.float32)
    for source in (constant_if(never), constant_if(never, nested)):
        module = transform(source).module
        assert "if" not in [n.op.name for n in module.walk()]
        ours = Runner(module).run({"x": x})["y"]
        np.testing.assert_array_equal(ours, np.maximum(x, 0))
