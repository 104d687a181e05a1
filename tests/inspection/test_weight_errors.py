"""Figures of weights, against their definitions written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qdqc
from qdqc.inspection.pairs import Pair, pairs_of
from qdqc.inspection.weight_errors import weight_figures
from qdqc.ir.data import Data
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.quant.arithmetic import quantize

TEXT = """module @m {{opsets = {{"" = 17}}}} {{
  const %w : f32[4,3,1,1] = dense[{weights}]
  graph (%x : f32[1,3,8,8]) -> (%y) {{
    %y = conv(%x, %w) : f32[1,4,8,8] loc("/y")
  }}
}}"""

W = np.arange(1, 13, dtype=np.float32).reshape(4, 3, 1, 1) * [[[[1]]], [[[-2]]], [[[3]]], [[[4]]]]
RIGHT = np.abs(W).max(axis=(1, 2, 3)) / 127


def pair(scale: Any, axis: int | None = 0) -> Pair:
    """The convolution with weights stored by this scale, and the float one."""
    text = TEXT.format(weights=", ".join(str(float(v)) for v in W.ravel()))
    reference, stored = qdqc.from_text(text), qdqc.from_text(text)
    quant = Quant.make(scale, 0, axis)
    node = stored.value("y").producer
    typed = TensorType(Elem.I8, (4, 3, 1, 1), quant)
    integers = quantize(W.astype(np.float32), quant, Elem.I8)
    node.set_operand(1, stored.add_constant("w_i8", Data.of(integers, Elem.I8), typed))
    (found,) = [p for p in pairs_of(stored, reference) if p.node is not None]
    return found


def test_right_scales_have_nothing_to_avoid() -> None:
    found = weight_figures(pair(RIGHT))
    steps = np.rint(W / RIGHT[:, None, None, None]) * RIGHT[:, None, None, None]
    assert found.noise == pytest.approx(((W - steps) ** 2).sum() / (W**2).sum(), rel=1e-4)
    assert found.avoidable == pytest.approx(0, abs=1e-9)
    assert not found.permuted
    np.testing.assert_array_equal(found.low, W.min(axis=(1, 2, 3)).clip(max=0))
    np.testing.assert_array_equal(found.high, W.max(axis=(1, 2, 3)).clip(min=0))
    np.testing.assert_allclose(found.reach, RIGHT * 127, rtol=1e-6)


def test_scales_at_other_channels_are_told_from_scales_that_are_wrong() -> None:
    moved, small = weight_figures(pair(RIGHT[::-1])), weight_figures(pair(RIGHT / 4))
    assert moved.permuted
    assert moved.avoidable > 0.1
    assert not small.permuted
    assert small.avoidable > 0.1


def test_one_scale_for_all_is_held_against_one_scale_for_all() -> None:
    found = weight_figures(pair(RIGHT.max(), None))
    assert found.avoidable == pytest.approx(0, abs=1e-9)
    assert not found.permuted
    np.testing.assert_allclose(found.reach, np.full(4, RIGHT.max() * 127), rtol=1e-6)


def test_float_weights_have_no_figures() -> None:
    text = TEXT.format(weights=", ".join(["1"] * 12))
    modules = qdqc.from_text(text), qdqc.from_text(text)
    assert [weight_figures(p) for p in pairs_of(*modules)] == [None, None]
