"""Sessions that share their constants compute what those compute that have their own."""

from __future__ import annotations

import numpy as np

from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Add, Conv, Gather
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.sessions.shared_weights import Weights

RNG = np.random.default_rng(0)
LARGE = RNG.normal(size=(64, 16, 3, 3)).astype(np.float32)
INDICES = RNG.integers(0, 64, 2048)


def module(bias: float) -> Module:
    """A convolution with a large weight and a small bias, and a look-up by many indices."""
    out = Module("m", {"": 17})
    x = out.graph.add_input("x", TensorType(Elem.F32, (1, 16, 4, 4)))
    weight = out.add_constant("w", Data.of(LARGE))
    held = out.add_constant("b", Data.of(np.full(64, bias, np.float32)))
    y = out.graph.insert(Conv(pads=(1, 1, 1, 1)), [x, weight, held], None, ["y"]).result
    indices = out.add_constant("i", Data.of(INDICES))
    z = out.graph.insert(Gather(axis=1), [y, indices], None, ["z"]).result
    out.graph.set_outputs([out.graph.insert(Add(), [z, z], None, ["sum"]).result])
    return out


def test_shared_constants_change_no_bit() -> None:
    weights = Weights()
    feeds = {"x": RNG.normal(size=(1, 16, 4, 4)).astype(np.float32)}
    for bias in (0.0, 1.0, 2.0):
        own = Runner(module(bias), threads=1).run(feeds)
        shared = Runner(module(bias), threads=1, weights=weights).run(feeds)
        np.testing.assert_array_equal(own["sum"], shared["sum"])


def test_contents_are_laid_out_once_whatever_their_name() -> None:
    weights = Weights()
    first = weights.place(Data.of(LARGE), "a")
    assert not first.raw_data
    one = weights.take()
    second = weights.place(Data.of(LARGE.copy()), "b")
    other = weights.take()
    assert (first.name, second.name) == ("a", "b")
    assert one["a"] is other["b"]
    assert weights.take() == {}


def test_small_constants_stay_in_the_model() -> None:
    weights = Weights()
    assert weights.place(Data.of(np.zeros(8, np.float32)), "a").raw_data
    assert weights.place(Data.of(np.array(["text"] * 5000)), "s").string_data
    assert weights.take() == {}
