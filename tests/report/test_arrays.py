"""Arrays as people see them, and where two of them lie apart."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.data import archive as archives
from qdqc.data.archive import Archive, write_arrays
from qdqc.diagnostics import QdqcError
from qdqc.report.apart import apart, render_apart, worst_parts
from qdqc.report.arrays import (
    render_array,
    render_statistics,
    statistics_csv,
    statistics_of,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "CHUNK", 6)


def held(folder: Path, name: str = "a.npz", **arrays: Any) -> Archive:
    write_arrays(folder / name, arrays)
    return Archive(folder / name)


def test_an_array_with_its_channels(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    lines = render_array(held(tmp_path, x=x), "x", 3).splitlines()
    assert lines[0] == "x  float32[1, 3, 2, 4]"
    assert lines[1] == "0.0 1.0 2.0 ..."
    assert lines[2] == "all: min 0  max 23  mean 11.5  mean|x| 11.5  std 6.92219"
    assert [line.split(":")[0] for line in lines[3:]] == ["channel 0", "channel 1", "channel 2"]
    assert lines[4] == "channel 1: min 8  max 15  mean 11.5  mean|x| 11.5  std 2.29129"


def test_odd_arrays(tmp_path: Path) -> None:
    arrays = {
        "n": np.array([np.nan, 1.0, np.inf]),
        "t": np.array(["a"]),
        "e": np.zeros((0, 2)),
        "all": np.array([np.nan]),
        "s": np.float32(2.5),
    }
    archive = held(tmp_path, **arrays)
    assert render_array(archive, "n", -1).splitlines() == [
        "n  float64[3]",
        "nan 1.0 inf",
        "all: min 1  max 1  mean 1  mean|x| 1  std 0  not finite 2",
    ]
    assert render_array(archive, "t").splitlines() == ["t  <U1[1]", "a"]
    assert render_array(archive, "e").splitlines() == ["e  float64[0, 2]"]
    assert render_array(archive, "all").splitlines()[-1] == "all:  not finite 1"
    assert render_array(archive, "s").splitlines()[1] == "2.5"
    table = render_statistics([r for n in archive for r in statistics_of(archive, n, 0)])
    assert [line.split()[-1] for line in table.splitlines()][:3] == ["name", "n", "n[0]"]


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_statistics_are_numpys(tmp_path: Path, axis: int | None) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    x[:, 1] = 0
    rows = statistics_of(held(tmp_path, x=x), "x", axis)
    slices = [x] if axis is None else [x, *np.moveaxis(x, axis, 0)]
    assert len(rows) == len(slices)
    found = list(csv.DictReader(io.StringIO(statistics_csv(rows))))
    for row, wanted in zip(found, slices, strict=True):
        w = wanted.astype(np.float64)
        figures = [float(row[k]) for k in ("min", "max", "mean", "mean_abs", "std")]
        expected = [w.min(), w.max(), w.mean(), np.abs(w).mean(), w.std()]
        assert figures == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert int(row["count"]) == w.size
        assert int(row["zeros"]) == np.count_nonzero(w == 0)
    table = render_statistics(rows).splitlines()
    assert len(table) == len(rows) + 1
    assert table[1].split()[-1] == "x"
    assert table[1].split()[5] == f"{np.mean(x == 0):.1%}"


def test_the_farthest_elements_and_their_histogram(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    exact = rng.standard_normal((5, 8))
    value = exact + rng.uniform(-0.1, 0.1, exact.shape)
    value[2, 3] += 7.5
    value[4, 1] -= 1.25
    found = apart(held(tmp_path, "a.npz", x=value), held(tmp_path, "b.npz", x=exact), "x", 3)
    difference = value - exact
    assert found.reach == pytest.approx(np.abs(difference).max(), rel=1e-12)
    assert found.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-12)
    order = np.argsort(-np.abs(difference).reshape(-1))[:3]
    assert found.places == order.tolist()
    assert found.values == value.reshape(-1)[order].tolist()
    assert found.wanted == exact.reshape(-1)[order].tolist()
    ends = (-found.reach, found.reach)
    assert found.counts == np.histogram(difference, 15, ends)[0].tolist()
    lines = render_apart(found).splitlines()
    assert lines[0].startswith("A - B over 40 elements: rms 1.19594, largest 7.43606")
    assert lines[1].split()[-1] == "0"
    assert lines[-3].endswith("[2, 3]")
    assert max(map(len, lines)) <= 100


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(0, 5))
def test_every_finite_difference_is_counted_once(values: list[float], count: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        x = np.array(values)
        a, b = held(Path(name), "a.npz", x=x), held(Path(name), "b.npz", x=np.zeros(x.size))
        found = apart(a, b, "x", count)
        assert sum(found.counts) == x.size
        sizes = [abs(v) for v in found.values]
        assert sizes == sorted((abs(v) for v in values if v), reverse=True)[:count]


def test_elements_that_are_no_number_come_first(tmp_path: Path) -> None:
    value, exact = np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 2.0])
    found = apart(held(tmp_path, "a.npz", x=value), held(tmp_path, "b.npz", x=exact), "x")
    assert (found.odd, found.reach, found.places) == (1, 1.0, [1, 2])
    assert "1 that are not a number" in render_apart(found)


def test_equal_arrays_and_scalars_have_no_picture(tmp_path: Path) -> None:
    a = held(tmp_path, "a.npz", x=np.ones(4), s=np.float32(3))
    b = held(tmp_path, "b.npz", x=np.ones(4), s=np.float32(1))
    assert render_apart(apart(a, b, "x")) == "A - B over 4 elements: rms 0, largest 0"
    assert render_apart(apart(a, b, "s")).splitlines()[-1].split()[:3] == ["3", "1", "2"]


@pytest.mark.parametrize("other", [np.ones((4, 1)), np.array(["a"] * 4)])
def test_what_does_not_fit_is_refused(tmp_path: Path, other: Any) -> None:
    a, b = held(tmp_path, "a.npz", x=np.ones(4)), held(tmp_path, "b.npz", x=other)
    with pytest.raises(QdqcError, match=r"'x' is float64\[4\] in one file and .* in the other"):
        apart(a, b, "x")


def test_the_worst_indices_along_an_axis(tmp_path: Path) -> None:
    exact = np.random.default_rng(5).standard_normal((6, 12))
    noise = np.linspace(0.5, 0.01, 12)
    value = exact + noise * np.sign(exact)
    lines = worst_parts(held(tmp_path, "a.npz", x=value), held(tmp_path, "b.npz", x=exact), "x", 1)
    ratios = np.sum(exact**2, axis=0) / np.sum((value - exact) ** 2, axis=0)
    order = np.argsort(ratios)[:8]
    assert [line.split()[-1] for line in lines] == [f"x[:,{i}]" for i in order]
    assert float(lines[0].split()[0]) == pytest.approx(10 * np.log10(ratios.min()), abs=0.05)
