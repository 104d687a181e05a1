"""Means per channel: against numpy, merged, and which values have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.calibration.channels import ChannelMean, channel_inputs
from qdqc.calibration.statistics import Collector
from qdqc.text.parser import parse_module

CHANNELS = 3
NUMBERS = st.floats(-1000, 1000, width=32)
TENSORS = st.lists(
    st.tuples(st.integers(1, 3), st.just(CHANNELS), st.integers(1, 4)).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=NUMBERS)
    ),
    max_size=4,
)


def mean_of(tensors: list[np.ndarray]) -> ChannelMean:
    out = ChannelMean()
    for tensor in tensors:
        out.update(tensor)
    return out


def assert_close(found: ChannelMean, tensors: list[np.ndarray]) -> None:
    """Against all numbers of each channel side by side, in float64."""
    if not tensors:
        assert found.mean == ()
        return
    flat = [np.moveaxis(t, 1, 0).reshape(CHANNELS, -1) for t in tensors]
    expected = np.concatenate(flat, axis=1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5, atol=1e-3)
    assert found.count == sum(f.shape[1] for f in flat)


@given(TENSORS)
def test_the_mean_is_that_of_all_numbers(tensors: list[np.ndarray]) -> None:
    assert_close(mean_of(tensors), tensors)


@given(TENSORS, TENSORS)
def test_merging_is_as_one_run(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    a, b = mean_of(first), mean_of(second)
    held = (a.mean, b.mean)
    assert_close(a.merge(b), [*first, *second])
    assert (a.mean, b.mean) == held
    np.testing.assert_allclose(a.merge(b).mean, b.merge(a).mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, CHANNELS), (2, CHANNELS, 5), (1, CHANNELS, 2, 3, 2)])
def test_every_rank(shape: tuple[int, ...]) -> None:
    tensor = np.random.default_rng(0).normal(2, 1, shape).astype(np.float32)
    assert_close(mean_of([tensor]), [tensor])


def test_a_large_tensor_beside_a_large_mean_keeps_its_digits() -> None:
    tensor = np.full((1, 2, 1 << 20), 1000.1, np.float32)
    tensor[0, 1] = -0.1
    assert mean_of([tensor]).mean == pytest.approx((np.float32(1000.1), np.float32(-0.1)), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_left_out_with_their_tensor(bad: float) -> None:
    good = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    spoilt = good.copy()
    spoilt[0, 1, 0] = bad
    found = mean_of([good, spoilt, np.zeros((0, 3, 2), np.float32)])
    assert found.mean == (0.5, 2.5, 4.5)
    assert mean_of([spoilt]).mean == ()


def test_the_collector_takes_means_of_the_names_it_is_made_with() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    first, second = Collector(["x"]), Collector(["x", "y"])
    for name in ("x", "y"):
        first.update(name, tensor)
        second.update(name, tensor * 3)
    merged = first.merge(second)
    assert first.channels.keys() == {"x"}
    assert merged.channels["x"].mean == (1.0, 5.0, 9.0)
    assert merged.channels["y"].mean == (1.5, 7.5, 13.5)


def test_extremes_of_integers() -> None:
    first, second = Collector(), Collector()
    first.update_extremes("ids", np.array([3, 900]))
    first.update_extremes("ids", np.array([], np.int64))
    second.update_extremes("ids", np.array([-1]))
    second.update_extremes("mask", np.array([True, False]))
    merged = first.merge(second)
    assert merged.extremes == {"ids": (-1.0, 900.0), "mask": (0.0, 1.0)}
    assert first.extremes == {"ids": (3.0, 900.0)}


MODEL = """
module @m {
  const %w : f32[2,3,1,1] = dense[1, 2, 3, 4, 5, 6]
  const %g : f32[4,2] = dense[1, 2, 3, 4, 5, 6, 7, 8]
  graph (%x : f32[N,3,8,8], %u : f32[N,C,8,8], %r : f32[*], %v : f32[N,4]) -> (%c, %d, %e, %p, %q) {
    %a = relu(%x) : f32[N,3,8,8]
    %c = conv(%a, %w) : f32[N,2,8,8]
    %d = conv(%u, %w) : f32[N,2,8,8]
    %e = conv(%r, %w) : f32[*]
    %p = gemm(%v, %g) : f32[N,2]
    %q = matmul(%v, %g) : f32[N,2]
  }
}
"""


def test_means_are_taken_of_what_weighted_ops_with_a_bias_read() -> None:
    """A matmul has no bias; unknown ranks and numbers of channels have no means."""
    assert channel_inputs(parse_module(MODEL).graph) == ["a", "v"]
