"""Figures of values, against straight numpy over the same runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from qdqc.data.dataset import open_dataset
from qdqc.inspection.measure import Measured, measure
from qdqc.inspection.stages import quantized_stage, reference_stage
from qdqc.ir.graph import Module
from qdqc.runtime.comparison.compare import decibels
from qdqc.runtime.sessions.session import Runner

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
NAME = "/block2/project/norm/BatchNormalization_output_0"
COUNT = 3


@pytest.fixture(scope="module")
def modules(digits: Path) -> tuple[Module, Module]:
    return quantized_stage(digits / "digits_int8.qir"), reference_stage(digits / "digits.qir")


@pytest.fixture(scope="module")
def measured(modules: tuple[Module, Module]) -> Measured:
    samples = open_dataset(DIGITS / "test.npz", modules[1].graph, input_num=COUNT)
    return measure(*modules, samples)


def test_every_float_value_is_measured_in_graph_order(
    measured: Measured, modules: tuple[Module, Module]
) -> None:
    reference = modules[1].graph
    made = [r.name for n in reference.nodes() for r in n.present_results]
    assert [f.name for f in measured.figures] == [*(v.name for v in reference.inputs), *made]
    assert measured.samples == COUNT
    assert measured.agreement == {"logits": 1.0}


def test_figures_of_one_value(measured: Measured, modules: tuple[Module, Module]) -> None:
    quantized, reference = modules
    samples = list(open_dataset(DIGITS / "test.npz", reference.graph, input_num=COUNT))
    exact = [Runner(reference, [NAME]).run(s)[NAME].astype(np.float64) for s in samples]
    found = [Runner(quantized, [NAME]).run(s)[NAME].astype(np.float64) for s in samples]
    figures = next(f for f in measured.figures if f.name == NAME)
    quant = quantized.value(NAME).tensor.quant
    scale, zero = float(quant.scale), int(quant.zero_point)
    all_exact = np.concatenate(exact)
    held = (np.clip(np.rint(all_exact / scale) + zero, 0, 255) - zero) * scale
    noise = sum(((e - f) ** 2).sum() for e, f in zip(exact, found, strict=True))
    signal = (all_exact**2).sum()
    assert figures.sqnr == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    assert figures.rounding == pytest.approx(
        ((all_exact - held) ** 2).sum() / (all_exact**2).sum(), rel=1e-3
    )
    assert (figures.low, figures.high) == (all_exact.min(), all_exact.max())
    assert figures.covered == pytest.approx((-zero * scale, (255 - zero) * scale))
    low, high = figures.covered
    over = (all_exact < low - scale / 2) | (all_exact > high + scale / 2)
    assert figures.outside == pytest.approx(over.mean())
    assert figures.mean == pytest.approx(all_exact.mean(), abs=1e-5)
    assert figures.std == pytest.approx(all_exact.std(), rel=1e-5)
    assert (figures.op, figures.precision) == ("conv", "u8")


def test_the_own_error_leaves_out_what_came_before(measured: Measured) -> None:
    """Ranges and weights are sound: every node alone is better than the run that leads to it."""
    deep = [f for f in measured.figures if f.pair.node is not None][3:-1]
    own = [decibels(f.local) for f in deep if f.local > 0]
    assert min(own) > 35
    assert np.mean(own) > np.mean([f.sqnr for f in deep]) + 5


def test_what_stays_float_has_no_range(measured: Measured) -> None:
    end = next(f for f in measured.figures if f.name == "logits")
    assert (end.covered, end.precision, end.rounding, end.avoidable) == (None, "f32", 0.0, 0.0)


def test_decibels() -> None:
    assert decibels(0.001) == pytest.approx(30)
    assert decibels(0.0) == math.inf
