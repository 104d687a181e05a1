"""Ranges chosen by local error, against the same computed in numpy, on a Conv and an Add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Quant, Range, TensorType
from qdqc.ops import Conv
from qdqc.quant.arithmetic import dequantize, quantize, rounded
from qdqc.search.strategies.reader_errors import local_errors, quantized_reads, reads_with_values
from qdqc.search.strategies.threshold import search_threshold
from qdqc.search.strategies.tuned_ranges import STEPS, best_of, tuned
from qdqc.search.trials.mixed_models import MixedModels

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 1, 1)).astype(np.float32)
SAMPLES = [{"x": RNG.laplace(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
WIDEST = max(float(np.abs(s["x"]).max()) for s in SAMPLES)


def module() -> Module:
    """x -> conv -> y -> conv -> z."""
    out = Module()
    value = out.graph.add_input("x", TensorType(Elem.F32, (1, 3, 8, 8)))
    second = RNG.standard_normal((2, 4, 1, 1)).astype(np.float32)
    for name, weight in (("y", WEIGHT), ("z", second)):
        held = out.add_constant(f"{name}_w", Data.of(weight))
        bias = out.add_constant(f"{name}_b", Data.of(np.zeros(len(weight), np.float32)))
        value = out.graph.insert(Conv(), [value, held, bias], None, [name]).result
    out.graph.set_outputs([value])
    return out


def table(x: Range) -> Table:
    wide = Range(-30, 30, 30)
    observed = {"x": (-WIDEST, WIDEST), "y": (-30.0, 30.0), "z": (-30.0, 30.0)}
    return Table(rows={"x": x, "y": wide, "z": wide}, observed=observed)


def expected_error(found: Range, *, symmetric: bool) -> float:
    """The cost of the first convolution, straight from its definition."""
    low, high = (-found.threshold, found.threshold) if symmetric else (found.min, found.max)
    scale = np.float32(high / 127) if symmetric else np.float32((high - low) / 255)
    zero = 128 if symmetric else int(np.rint(-low / float(scale)))
    total = 0.0
    for sample in SAMPLES:
        x = sample["x"]
        codes = np.clip(np.rint(x / scale) + zero, 0, 255)
        near = (codes - zero) * scale
        ref = np.einsum("oi,nihw->nohw", WEIGHT[:, :, 0, 0], x.astype(np.float64))
        out = np.einsum("oi,nihw->nohw", WEIGHT[:, :, 0, 0], near.astype(np.float64))
        total += float(np.linalg.norm(ref - out) / np.abs(ref).sum())
    return total / len(SAMPLES)


@pytest.mark.parametrize("symmetric", [False, True])
def test_local_errors_are_the_straight_line_computation(symmetric: bool) -> None:
    net = module()
    ranges = [Range(-t, t * 0.9, t) for t in (1.0, 3.0, WIDEST)]
    reads = quantized_reads(net, table(ranges[-1]))
    assert [(r.value.name, [n.name for n in r.readers]) for r in reads] == [
        ("x", ["y"]),
        ("y", ["z"]),
    ]
    (read, values), *_ = reads_with_values(net, reads, SAMPLES)
    found = local_errors(read, ranges, values, symmetric=symmetric)
    expected = [expected_error(r, symmetric=symmetric) for r in ranges]
    np.testing.assert_allclose(found[0], expected, rtol=1e-3)


def test_a_small_budget_gives_the_same_values_in_more_runs() -> None:
    net = module()
    reads = quantized_reads(net, table(Range(-1, 1, 1)))
    whole = list(reads_with_values(net, reads, SAMPLES))
    parts = list(reads_with_values(net, reads, SAMPLES, budget=1))
    assert [r.value.name for r, _ in parts] == ["x", "y"]
    assert list(parts[0][1][0]) == ["x"]
    for (read, a), (_, b) in zip(whole, parts, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one[read.value.name], other[read.value.name])
    assert list(reads_with_values(net, reads, [])) == []


def test_tuning_takes_the_step_with_the_least_error() -> None:
    start = Range(-0.5, 0.5, 0.5)
    found = tuned(module(), table(start), SAMPLES).rows
    step = (WIDEST - 0.5) / STEPS
    ends = [0.5 + i * step for i in range(STEPS + 1)]
    errors = [expected_error(Range(-e, e, e), symmetric=False) for e in ends]
    assert found["x"].max == pytest.approx(ends[int(np.argmin(errors))])
    assert found["x"].min == pytest.approx(-found["x"].max)
    errors = [expected_error(Range(-e, e, e), symmetric=True) for e in ends]
    assert found["x"].threshold == pytest.approx(ends[int(np.argmin(errors))])
    assert found["z"] == Range(-30, 30, 30), "nothing reads it"


def test_tuning_leaves_a_range_that_holds_everything() -> None:
    held = table(Range(-WIDEST, WIDEST, WIDEST))
    assert tuned(module(), held, SAMPLES).rows == held.rows


def test_best_of_takes_each_range_from_the_best_method() -> None:
    good, bad = Range(-WIDEST, WIDEST, WIDEST), Range(-0.1, 0.1, 0.1)
    mixed = replace(table(good), rows={**table(good).rows, "y": Range(-0.01, 0.01, 0.01)})
    tables = {"a": table(bad), "b": mixed}
    found = best_of(module(), tables, SAMPLES)
    assert found.rows["x"] == good
    assert found.rows["y"] == Range(-30, 30, 30)
    assert found.header["method"] == "best_of"
    assert found.header["methods"] == "a, b"


def test_search_takes_the_table_whose_model_is_nearest() -> None:
    tables = {"bad": table(Range(-0.1, 0.1, 0.1)), "good": table(Range(-WIDEST, WIDEST, WIDEST))}
    found = search_threshold(MixedModels(module()), tables, SAMPLES)
    assert found.method == "good"
    assert found.scores["good"].sqnr > found.scores["bad"].sqnr + 10
    assert 0.99 < found.scores["good"].cos <= 1
    with pytest.raises(QdqcError, match="no samples"):
        search_threshold(MixedModels(module()), tables, [])


@pytest.mark.parametrize("zero", [0, 100, 255])
def test_rounding_is_quantizing_and_back(zero: int) -> None:
    array = RNG.standard_normal(10_000).astype(np.float32) * 5
    quant = Quant.make(0.037, zero)
    expected = dequantize(quantize(array, quant, Elem.U8), quant)
    np.testing.assert_array_equal(rounded(array, quant, Elem.U8), expected)
