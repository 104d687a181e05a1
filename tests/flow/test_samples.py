"""Samples that a model is checked on when the user gives none."""

from __future__ import annotations

import math

import numpy as np

from qdqc.flow.samples import check_samples
from qdqc.text.parser import parse_module

SYMBOLIC = """module @m {opsets = {"" = 17}} {
  const %s : i64[2] = dense[BATCH, 4]
  graph (%x : f32[N,2,2]) -> (%y) {
    %y = reshape(%x, %s) : f32[M,4]
  }
}"""


def test_random_samples_stay_within_what_was_seen() -> None:
    module = parse_module(SYMBOLIC.replace("BATCH", "-1"))
    given = check_samples(module, None, 3, {"x": (-0.5, 2.0)})
    samples = given.samples
    assert given.are_random
    assert len(samples) == 3
    every = np.concatenate([s["x"].ravel() for s in samples])
    assert every.min() >= -0.5
    assert every.max() <= 2.0
    assert math.isfinite(float(every.sum()))


def test_a_batch_that_is_fixed_inside_gets_samples_that_run() -> None:
    """The symbol claims any size, and the graph takes one row only."""
    module = parse_module(SYMBOLIC.replace("BATCH", "1"))
    samples = check_samples(module, None, 2).samples
    assert {s["x"].shape for s in samples} == {(1, 2, 2)}
