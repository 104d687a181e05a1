"""Sizes of inputs that the graph's relations give, and random samples of such sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qdqc.data.input_sizes import free_sizes, size_of, tried_sizes
from qdqc.data.random_inputs import random_samples
from qdqc.diagnostics import QdqcError
from qdqc.flow.random_checks import samples_that_run
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

DECODER = """module @m {opsets = {"" = 17}} {
  const %axes : i64[2] = dense[1, 2]
  graph (INPUTS) -> (%y, %keys) {
    %m = cast(%mask) {to = "f32"} : f32[?,?]
    %m4 = unsqueeze(%m) {axes = [1, 2]} : f32[?,?,?,?]
    %keys = concat(%past_0_key, %x) {axis = 2} : f32[?,2,?,4]
    %turned = transpose(%keys) {perm = [0, 1, 3, 2]} : f32[?,2,4,?]
    %s = matmul(%x, %turned) : f32[?,2,?,?]
    %sm = add(%s, %m4) : f32[?,2,?,?]
    %p = softmax(%sm) {axis = -1} : f32[?,2,?,?]
    %y = matmul(%p, %keys) : f32[?,2,?,4]
  }
}"""
NAMED = "%x : f32[B,2,seq,4], %mask : i64[B,total], %past_0_key : f32[B,2,past,4]"
UNNAMED = "%x : f32[?,2,?,4], %mask : i64[?,?], %past_0_key : f32[?,2,?,4]"
ONE_STEP = "%x : f32[B,2,1,4], %mask : i64[B,total], %past_0_key : f32[B,2,past,4]"
ATTENTION = """module @m {opsets = {"" = 23}} {
  graph (%q : f32[B,2,seq,4], %mask : f32[B,1,seq,total], %pk : f32[B,2,past,4],
         %pv : f32[B,2,past,4]) -> (%y) {
    %y, %k, %v = attention(%q, %q, %q, %mask, %pk, %pv) : f32[B,2,seq,4], f32[?,2,?,4], f32[?,2,?,4]
  }
}"""
LARGE = """module @m {opsets = {"" = 17}} {
  const %w : f32[1,1,40] = dense[ONES]
  graph (%x : f32[?,?], %state : f32[2,?]) -> (%y, %state) {
    %u = unsqueeze(%x) {axes = [1]} : f32[?,1,?]
    %y = conv(%u, %w) : f32[?,1,?]
  }
}"""


def decoder(inputs: str) -> Module:
    return parse_module(DECODER.replace("INPUTS", inputs))


@pytest.mark.parametrize("inputs", [NAMED, UNNAMED, ONE_STEP])
def test_a_cache_and_a_mask_fit_together_at_once(inputs: str) -> None:
    """The first sizes are right, without a run that would tell."""
    module = decoder(inputs)
    (sample,) = random_samples(module.graph, 1, sizes=next(tried_sizes(module.graph)))
    seq, past = sample["x"].shape[2], sample["past_0_key"].shape[2]
    assert sample["mask"].shape[1] == seq + past
    assert Runner(module).run(sample)["y"].shape == sample["x"].shape


def test_attention_says_how_long_its_mask_is() -> None:
    module = parse_module(ATTENTION.replace("\n         ", " "))
    sizes = next(tried_sizes(module.graph))
    assert sizes == {"B": 2, "seq": 2, "total": 4, "past": 2}


def test_caches_of_layers_share_their_sizes() -> None:
    text = "%past_0_key : f32[?,?], %past_1_key : f32[?,?], %x : f32[N,N+1]"
    module = parse_module(f"module @m {{ graph ({text}) -> (%x) {{}} }}")
    assert free_sizes(module.graph) == ["past_#_key.0", "past_#_key.1", "N"]


def test_a_size_is_never_negative_and_is_given_where_it_is_not_known() -> None:
    module = parse_module("module @m { graph (%x : f32[N,N+1,?,2*M]) -> (%x) {} }")
    shape = module.graph.inputs[0].tensor.shape or ()
    assert [size_of(d, {"N": 5}) for d in shape] == [5, 6, 2, 4]
    assert size_of((shape[0] or 0) + -9, {"N": 5}) == 0


def test_an_input_that_must_be_large_is_found_by_trying() -> None:
    module = parse_module(LARGE.replace("ONES", ", ".join(["1"] * 40)))
    (sample,) = samples_that_run(module, 1, None)
    assert sample["x"].shape[1] >= 40


def test_sizes_that_never_run_end_in_what_to_do() -> None:
    text = """module @m {opsets = {"" = 17}} {
  const %s : i64[2] = dense[3, 7]
  graph (%x : f32[N,5]) -> (%y) {
    %y = reshape(%x, %s) : f32[3,7]
  }
}"""
    with pytest.raises(QdqcError) as caught:
        samples_that_run(parse_module(text), 1, None)
    message = str(caught.value)
    assert "no random inputs were found on which the model runs; for N = 2" in message
    assert "`input_shapes`" in message
    assert "`test_input`" in message


def test_there_is_an_end_to_trying() -> None:
    names = ", ".join(f"%x{chr(97 + i)} : f32[A{i},B{i}]" for i in range(20))
    module = parse_module(f"module @m {{ graph ({names}) -> (%xa) {{}} }}")
    tried = list(itertools.islice(tried_sizes(module.graph), 5000))
    assert len(tried) < 5000
    assert all(size > 0 for sizes in tried for size in sizes.values())


def test_a_mask_lets_the_first_through() -> None:
    module = parse_module(
        "module @m { graph (%attention_mask : i64[500,3]) -> (%attention_mask) {} }"
    )
    (sample,) = random_samples(module.graph, 1)
    mask = sample["attention_mask"]
    assert set(mask[:, 0]) == {1}
    assert set(mask[:, 1]) == {0, 1}
    (known,) = random_samples(module.graph, 1, {"attention_mask": (0, 1)})
    assert set(known["attention_mask"][:, 0]) == {0, 1}


def test_sequences_and_optionals_hold_what_they_may() -> None:
    text = "module @m { graph (%s : seq<f32[2,N]>, %o : opt<f32[3]>) -> (%s) {} }"
    (sample,) = random_samples(parse_module(text).graph, 1)
    assert [part.shape for part in sample["s"]] == [(2, 2), (2, 2)]
    assert np.asarray(sample["o"]).shape == (3,)
