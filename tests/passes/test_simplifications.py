"""Folding, merging and removal: fold-constants, fold-shapes, CSE, dead code, infer-shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.ir.types import TensorType
from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module


def module(body: str, constants: str = "", signature: str = "(%x : f32[4]) -> (%y)") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  {constants}
  graph {signature} {{
    {body}
  }}
}}"""


AB = "const %a : f32[4] = random\n  const %b : f32[4] = random"


def test_constants_fold_to_onnxruntimes_numbers(rewritten: Any) -> None:
    body = """%s = add(%a, %b) : f32[4]
    %t = exp(%s) : f32[4]
    %y = mul(%x, %t) : f32[4]"""
    done = rewritten(module(body, AB), "fold-constants")
    assert done.ops == ["mul"]
    a, b = done.before.constants["a"].data.array(), done.before.constants["b"].data.array()
    np.testing.assert_allclose(done.constant("t"), np.exp(a + b), rtol=1e-6)
    assert list(done.after.constants) == ["t"]


def test_all_results_of_a_node_fold(rewritten: Any) -> None:
    body = """%p, %q = split(%a) {axis = 0, num_outputs = 2} : f32[2], f32[2]
    %s = add(%p, %q) : f32[2]
    %c = concat(%q, %s) {axis = 0} : f32[4]
    %y = add(%x, %c) : f32[4]"""
    assert rewritten(module(body, AB), "fold-constants").ops == ["add"]


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        ("%y = add(%a, %b) : f32[4]", "(%x : f32[4]) -> (%y)"),  # an output is computed
        ("%r = random_normal_like(%a) : f32[4]\n%y = shape(%r) : i64[1]", "() -> (%y)"),
        ("%t = add(%x, %a) : f32[4]\n%y = add(%t, %b) : f32[4]", "(%x : f32[4]) -> (%y)"),
    ],
)
def test_what_is_not_folded(body: str, signature: str) -> None:
    text = module(body, AB.replace("random", "dense[1, 2, 3, 4]"), signature)
    before = parse_module(text)
    after = run(before, "fold-constants")
    assert [n.name for n in after.graph.nodes()] == [n.name for n in before.graph.nodes()]


def test_a_result_that_is_much_larger_than_its_inputs_stays(rewritten: Any) -> None:
    body = "%e = expand(%a, %s) : f32[64,4]\n%y = add(%x, %e) : f32[64,4]"
    text = module(body, f"{AB}\n  const %s : i64[2] = dense[64, 4]")
    assert rewritten(text, "fold-constants{limit=100}").ops == ["expand", "add"]
    assert rewritten(text, "fold-constants").ops == ["add"]


def test_weights_behind_casts_stay_integers(rewritten: Any) -> None:
    body = "%w = dequantize(%q) : f32[4]\n%y = mul(%x, %w) : f32[4]"
    text = module(body, "const %q : i8[4] q(scale = 0.5, zero_point = 0) = dense[1, 2, 3, 4]")
    assert rewritten(text, "fold-constants").ops == ["dequantize", "mul"]


def test_an_output_that_others_read_is_folded_for_neither(rewritten: Any) -> None:
    body = "%y = add(%a, %b) : f32[4]\n%z = exp(%y) : f32[4]\n%u = mul(%x, %z) : f32[4]"
    done = rewritten(module(body, AB, "(%x : f32[4]) -> (%y, %u)"), "fold-constants")
    assert done.ops == ["add", "mul"]


def test_equal_nodes_and_constants_become_one(rewritten: Any) -> None:
    constants = "const %c : f32[4] = dense[1, 2, 3, 4]\n  const %d : f32[4] = dense[1, 2, 3, 4]"
    body = """%p = add(%x, %c) : f32[4] loc("/p")
    %q = add(%x, %d) : f32[4] loc("/q")
    %s = exp(%p) : f32[4] loc("/s")
    %t = exp(%q) : f32[4] loc("/t")
    %y = mul(%s, %t) : f32[4] loc("/y")"""
    done = rewritten(module(body, constants), "eliminate-common-subexpressions")
    assert done.names == ["p", "s", "y"]
    assert done.node("p").loc.names == ("/p", "/q")
    assert done.node("s").loc.names == ("/s", "/t")
    assert list(done.after.constants) == ["c"]


@pytest.mark.parametrize(
    "body",
    [
        "%p = softmax(%x) {axis = 0} : f32[4]\n%q = softmax(%x) : f32[4]",
        "%p = sub(%x, %a) : f32[4]\n%q = sub(%a, %x) : f32[4]",
        "%p = exp(%x) : f32[4] mode(F32)\n%q = exp(%x) : f32[4] mode(INT8)",
        "%p = random_normal_like(%x) : f32[4]\n%q = random_normal_like(%x) : f32[4]",
    ],
)
def test_nodes_that_are_not_equal(body: str) -> None:
    text = module(f"{body}\n%y = add(%p, %q) : f32[4]", AB.replace("random", "dense[1, 2, 3, 4]"))
    after = run(parse_module(text), "eliminate-common-subexpressions")
    assert len(list(after.graph.nodes())) == 3


def test_an_output_passes_its_name_to_the_node_that_stays(rewritten: Any) -> None:
    body = "%p = exp(%x) : f32[4]\n%s = neg(%p) : f32[4]\n%y = exp(%x) : f32[4]"
    done = rewritten(
        module(body, signature="(%x : f32[4]) -> (%y, %s)"), "eliminate-common-subexpressions"
    )
    assert done.names == ["y", "s"]


def test_two_outputs_stay_two(rewritten: Any) -> None:
    body = "%p = exp(%x) : f32[4]\n%y = exp(%x) : f32[4]"
    text = module(body, signature="(%x : f32[4]) -> (%p, %y)")
    assert rewritten(text, "eliminate-common-subexpressions").names == ["p", "y"]


def test_branches_share_nothing_with_each_other(rewritten: Any) -> None:
    body = """%y = if(%c) : f32[4] {
      graph () -> (%t2) {
        %t = exp(%x) : f32[4]
        %u = exp(%x) : f32[4]
        %t2 = add(%t, %u) : f32[4]
      }
      graph () -> (%e) { %e = exp(%x) : f32[4] }
    }"""
    done = rewritten(
        module(body, signature="(%c : bool[], %x : f32[4]) -> (%y)"),
        "eliminate-common-subexpressions",
    )
    assert [n.name for n in done.after.walk()] == ["y", "t", "t2", "e"]


def test_dead_code_goes_and_inputs_stay(rewritten: Any) -> None:
    body = """%d = exp(%x) : f32[4]
    %e = add(%d, %a) : f32[4]
    %y = neg(%x) : f32[4]"""
    done = rewritten(
        module(body, AB, "(%x : f32[4], %unused : f32[2]) -> (%y)"), "eliminate-dead-code"
    )
    assert done.names == ["y"]
    assert not done.after.constants


def test_a_branch_keeps_what_it_captures_and_loses_what_is_dead(rewritten: Any) -> None:
    body = """%k = exp(%x) : f32[4]
    %y = if(%c) : f32[4] {
      graph () -> (%t) { %t = neg(%k) : f32[4] }
      graph () -> (%e) {
        %dead = exp(%k) : f32[4]
        %e = abs(%k) : f32[4]
      }
    }"""
    text = module(body, signature="(%c : bool[], %x : f32[4]) -> (%y)")
    done = rewritten(text, "eliminate-dead-code")
    assert [n.name for n in done.after.walk()] == ["k", "y", "t", "e"]


def test_a_dead_branch_frees_what_it_captured(rewritten: Any) -> None:
    body = """%k = exp(%x) : f32[4]
    %d = if(%c) : f32[4] {
      graph () -> (%t) { %t = neg(%k) : f32[4] }
      graph () -> (%e) { %e = abs(%k) : f32[4] }
    }
    %y = neg(%x) : f32[4]"""
    text = module(body, signature="(%c : bool[], %x : f32[4]) -> (%y)")
    assert rewritten(text, "eliminate-dead-code").names == ["y"]


FLATTEN = """%s = shape(%x) : i64[4]
    %n = gather(%s, %zero) {axis = 0} : i64[]
    %nu = unsqueeze(%n) {axes = [0]} : i64[1]
    %t = concat(%nu, %minus) {axis = 0} : i64[2]
    %y = reshape(%x, %t) : f32[N,?]"""
FLATTEN_CONSTANTS = "const %zero : i64[] = dense[0]\n  const %minus : i64[1] = dense[-1]"


@pytest.mark.parametrize(("shape", "target"), [("N,3,4,5", [0, -1]), ("2,3,4,5", [2, -1])])
def test_the_shape_arithmetic_of_a_flatten(rewritten: Any, shape: str, target: list[int]) -> None:
    text = module(FLATTEN, FLATTEN_CONSTANTS, f"(%x : f32[{shape}]) -> (%y)")
    done = rewritten(text.replace("[N,?]", f"[{shape[0]},?]"), "fold-shapes")
    assert done.ops == ["reshape"]
    assert done.node("y").operands[1].data.array().tolist() == target
    assert done.after.value("y").tensor.shape[1] == 60


def test_two_unknown_dimensions_keep_their_arithmetic(rewritten: Any) -> None:
    body = """%s = shape(%x) : i64[3]
    %m = shape(%z) : i64[2]
    %nh = slice(%m, %b, %e, %b) : i64[1]
    %t = concat(%nh, %mh, %minus) {axis = 0} : i64[3]
    %y = reshape(%x, %t) : f32[?,?,?]"""
    body = body.replace("%t = ", "%mh = slice(%s, %b, %e, %b) : i64[1]\n    %t = ")
    constants = """const %b : i64[1] = dense[0]
  const %e : i64[1] = dense[1]
  const %minus : i64[1] = dense[-1]"""
    text = module(body, constants, "(%x : f32[N,M,4], %z : f32[M,2]) -> (%y)")
    assert "concat" in rewritten(text, "fold-shapes").ops


def test_a_shape_that_is_an_output_is_computed(rewritten: Any) -> None:
    done = rewritten(module("%y = shape(%x) : i64[1]"), "fold-shapes")
    assert done.ops == ["shape"]


@pytest.mark.parametrize("allowzero", ["", " {allowzero = true}"])
def test_reshape_targets_with_symbols(rewritten: Any, allowzero: str) -> None:
    body = f"""%s = shape(%x) : i64[2]
    %t = concat(%s, %one) {{axis = 0}} : i64[3]
    %y = reshape(%x, %t){allowzero} : f32[N,4,1]"""
    text = module(body, "const %one : i64[1] = dense[1]", "(%x : f32[N,4]) -> (%y)")
    done = rewritten(text, "fold-shapes")
    assert done.ops == ["reshape"]
    assert done.node("y").operands[1].data.array().tolist() == [-1 if allowzero else 0, 4, 1]


def test_an_empty_batch_with_allowzero_stays_right(rewritten: Any) -> None:
    """With allowzero a target may not hold both 0 and -1."""
    body = """%s = shape(%x) : i64[2]
    %t = concat(%s, %zero) {axis = 0} : i64[3]
    %y = reshape(%x, %t) {allowzero = true} : f32[N,0,0]"""
    text = module(body, "const %zero : i64[1] = dense[0]", "(%x : f32[N,0]) -> (%y)")
    rewritten(text, "fold-shapes")


def test_inference_refines_what_the_file_left_open(rewritten: Any) -> None:
    body = "%t = transpose(%x) {perm = [1, 0]} : f32[?,?]\n%y = matmul(%t, %x) : f32[*]"
    done = rewritten(module(body, signature="(%x : f32[N,4]) -> (%y)"), "infer-shapes")
    y = done.after.value("y").type
    assert isinstance(y, TensorType)
    assert y.shape == (4, 4)
    assert str(done.after.value("t").tensor.shape[1]) == "N"


@pytest.mark.parametrize(
    "name",
    ["infer-shapes", "fold-shapes", "fold-constants", "canonicalize", "eliminate-dead-code",
     "eliminate-common-subexpressions", "fuse-pad", "fuse-batchnorm", "fuse-activation"],
)  # fmt: skip
def test_a_pass_leaves_a_finished_module_alone(rewritten: Any, name: str) -> None:
    """What @transform made is a fixed point of each of its passes."""
    body = f"""{FLATTEN.replace("%y =", "%f =")}
    %e = exp(%f) : f32[N,?]
    %e2 = exp(%f) : f32[N,?]
    %y = add(%e, %e2) : f32[N,?]"""
    text = module(body, FLATTEN_CONSTANTS, "(%x : f32[N,3,4,5]) -> (%y)")
    done = rewritten(text, "@transform")
    again = run(done.after, name)
    assert [n.name for n in again.walk()] == [n.name for n in done.after.walk()]
