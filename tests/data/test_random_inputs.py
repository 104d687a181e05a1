"""Random samples fit the inputs, keep to the ranges, and come again with their seed."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.data.random_inputs import random_samples
from qdqc.ir.graph import Graph
from qdqc.ops import Relu
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

INPUTS = "%x : f32[N,3,2*S], %h : f16[4], %ids : i64[N,1000], %mask : bool[?,5], %s : string[2]"


def graph(inputs: str = INPUTS) -> Graph:
    first = inputs.partition(" ")[0]
    return parse_module(f"module @m {{ graph ({inputs}) -> ({first}) {{}} }}").graph


def test_types_and_shapes() -> None:
    (sample,) = random_samples(graph(), 1)
    assert {n: (a.dtype.name, a.shape) for n, a in sample.items()} == {
        "x": ("float32", (2, 3, 4)),
        "h": ("float16", (4,)),
        "ids": ("int64", (2, 1000)),
        "mask": ("bool", (2, 5)),
        "s": ("object", (2,)),
    }
    assert list(sample["s"]) == ["", ""]
    assert set(sample["ids"].reshape(-1)) == {0, 1}


def test_the_same_seed_gives_the_same_samples() -> None:
    first, again, other = (random_samples(graph(), 3, seed=s) for s in (1, 1, 2))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(first[0]["x"], other[0]["x"])
    assert not np.array_equal(first[0]["x"], first[1]["x"])


def test_floats_are_normal_unless_their_range_is_known() -> None:
    one = graph("%x : f32[100000]")
    (free,) = random_samples(one, 1)
    assert free["x"].mean() == pytest.approx(0, abs=0.02)
    assert free["x"].std() == pytest.approx(1, abs=0.02)
    (held,) = random_samples(one, 1, {"x": (-1.0, 5.0)})
    assert -1 <= held["x"].min() < -0.9
    assert 4.9 < held["x"].max() <= 5
    assert held["x"].mean() == pytest.approx(2, abs=0.02)
    assert held["x"].std() == pytest.approx(1, abs=0.02)


def test_integers_are_even_over_their_range_and_reach_its_ends() -> None:
    (sample,) = random_samples(graph("%ids : i32[60000]"), 1, {"ids": (-1.0, 4.0)})
    values, counts = np.unique(sample["ids"], return_counts=True)
    assert values.tolist() == [-1, 0, 1, 2, 3, 4]
    assert counts.min() > 9000


def test_a_range_without_extent_and_a_range_of_another_name() -> None:
    (sample,) = random_samples(graph("%x : f32[8], %n : i64[8]"), 1, {"x": (2, 2), "n": (7, 7)})
    assert set(sample["x"]) == {2.0}
    assert set(sample["n"]) == {7}
    (other,) = random_samples(graph("%x : f32[8]"), 1, {"y": (2, 2)})
    assert len(set(other["x"])) == 8


def test_the_model_takes_them() -> None:
    module = parse_module("module @m { graph (%x : f32[N,3]) -> (%x) {} }")
    made = module.graph.insert(Relu(), [module.graph.inputs[0]], None, ["y"])
    module.graph.set_outputs([made.result])
    (sample,) = random_samples(module.graph, 1)
    np.testing.assert_array_equal(Runner(module).run(sample)["y"], np.maximum(sample["x"], 0))
