"""Padding is left out: of hidden states, of attention scores, of flattened batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.calibration.collection import collect
from qdqc.calibration.masking import masking_by
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, TensorType
from qdqc.text.parser import parse_module

TEXT = """module @text {opsets = {"" = 17}} {
  graph (%ids : i64[N,S], %mask : i64[N,S], %h : f32[N,S,8]) -> (%h2) {
    %h2 = tanh(%h) : f32[N,S,8]
  }
}"""
SAMPLE = {"mask": np.array([[1, 1, 0], [1, 0, 0]])}


def graph() -> Graph:
    return parse_module(TEXT, verify=True).graph


def with_shapes() -> Graph:
    """The hidden states, and values of the shapes that attention has."""
    found = graph()
    (n, s, _) = found.inputs[2].tensor.shape or ()
    assert n is not None
    assert s is not None
    shapes = {"q": (n, 2, s, 4), "a": (n, 2, s, s), "f": (n * s, 8), "p": (n, 8)}
    for name, shape in shapes.items():
        found.add_input(name, TensorType(Elem.F32, shape))
    return found


def test_the_axis_of_the_positions() -> None:
    found = masking_by(with_shapes(), "mask").axes
    assert found == {"h": 1, "h2": 1, "q": 2, "a": 2, "f": 0}


def test_what_is_kept_is_what_the_mask_shows() -> None:
    masking = masking_by(with_shapes(), "mask")
    rng = np.random.default_rng(0)
    h = rng.normal(size=(2, 3, 8))
    expected = np.stack([h[0, 0], h[0, 1], h[1, 0]])
    np.testing.assert_array_equal(masking.kept("h", h, SAMPLE), expected)
    np.testing.assert_array_equal(masking.kept("f", h.reshape(6, 8), SAMPLE), expected)
    a = rng.normal(size=(2, 2, 3, 3))
    queries = np.stack([a[0, :, 0], a[0, :, 1], a[1, :, 0]])
    np.testing.assert_array_equal(masking.kept("a", a, SAMPLE), queries)


@pytest.mark.parametrize("shape", [(2, 8), (2, 4, 8), (3, 3, 8)])
def test_values_without_the_positions_are_whole(shape: tuple[int, ...]) -> None:
    masking = masking_by(with_shapes(), "mask")
    array = np.ones(shape)
    for name in ("p", "h", "a"):
        assert masking.kept(name, array, SAMPLE) is array


def test_the_statistics_leave_padding_out() -> None:
    found = graph()
    h = np.zeros((2, 3, 8), np.float32)
    h[:, 0], h[0, 2] = 1.0, 50.0  # the 50 stands on padding

    def open_taps(names: Any) -> Any:
        return lambda sample: {n: sample[n] if n in sample else np.tanh(h) for n in names}

    samples = [{"h": h, "ids": SAMPLE["mask"], **SAMPLE}]
    whole = collect(found, samples, open_taps)
    masked = collect(found, samples, open_taps, masking=masking_by(found, "mask"))
    assert whole.statistics["h"].max == 50.0
    assert masked.statistics["h"].max == 1.0
    assert masked.statistics["h"].count == 3 * 8


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(QdqcError, match="no input 'maks' to mask by; did you mean 'mask'"):
        masking_by(graph(), "maks")
    with pytest.raises(QdqcError, match="'h' is not a mask"):
        masking_by(graph(), "h")
