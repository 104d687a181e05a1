"""Comparison of files: by pieces what whole arrays give, along axes, in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.data import archive as archives
from qdqc.data.archive import Archive
from qdqc.diagnostics import QdqcError
from qdqc.runtime.comparison.compare import Level, Sums
from qdqc.runtime.comparison.compare_files import compare_files, similarities
from qdqc.runtime.comparison.pooled import compare, similarity

NUMBERS = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32)),
    min_size=1,
    max_size=40,
)


def files(folder: Path, a: dict[str, Any], b: dict[str, Any]) -> tuple[Archive, Archive]:
    np.savez(folder / "a.npz", **a)
    np.savez(folder / "b.npz", **b)
    return Archive(folder / "a.npz"), Archive(folder / "b.npz")


@given(NUMBERS, st.integers(1, 9))
def test_sums_of_pieces_are_those_of_the_whole(pairs: list[Any], piece: int) -> None:
    value, exact = (np.array(x, np.float32) for x in zip(*pairs, strict=True))
    sums = Sums()
    for start in range(0, value.size, piece):
        sums.see(value[start : start + piece], exact[start : start + piece])
    found, whole = sums.similarity("x", (0.9, 0.9)), Sums()
    whole.see(value, exact)
    wanted = whole.similarity("x", (0.9, 0.9))
    assert found.level is wanted.level
    figures = [(f.cos, f.euclid, f.sqnr) for f in (found, wanted)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_along_an_axis_are_those_of_slices(
    axis: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "CHUNK", 7)
    rng = np.random.default_rng(axis)
    exact = rng.standard_normal((4, 3, 5)).astype(np.float32)
    value = exact + rng.standard_normal(exact.shape).astype(np.float32) * 0.1
    value[1, 2, 3] = exact[1, 2, 3] = np.nan
    value[:, 0] = exact[:, 0]
    target, reference = files(tmp_path, {"x": value}, {"x": exact})
    whole, *parts = similarities("x", target, reference, axis=axis)
    assert len(parts) == exact.shape[axis]
    for index, row in enumerate(parts):
        part = Sums()
        part.see(*(np.take(x, index, axis).copy() for x in (value, exact)))
        wanted = part.similarity(row.name, (0.99, 0.99))
        assert row.name == f"x[{':,' * axis}{index}]"
        assert row.level is wanted.level
        assert (row.cos, row.euclid) == pytest.approx((wanted.cos, wanted.euclid), rel=1e-9)
    assert whole.sqnr == pytest.approx(similarity("x", value, exact).sqnr, rel=1e-9)


def test_an_axis_that_an_array_has_not_adds_no_rows(tmp_path: Path) -> None:
    target, reference = files(tmp_path, {"x": np.ones(3)}, {"x": np.ones(3)})
    assert [r.name for r in compare_files(target, reference, axis=1).rows] == ["x"]


def test_files_compare_as_their_arrays_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "CHUNK", 5)
    rng = np.random.default_rng(1)
    b = {
        "f": rng.standard_normal((3, 4)),
        "i": rng.integers(-9, 9, 12),
        "c": rng.standard_normal(8) * (1 + 2j),
        "flag": np.array([True, False]),
        "text": np.array(["a", "bc"]),
        "scalar": np.float32(2.5),
        "none": np.zeros((0, 4)),
        "fortran": np.asfortranarray(rng.standard_normal((5, 6))),
        "shape": np.ones(3),
    }
    a = {n: x + 0.25 if x.dtype.kind in "fc" else x for n, x in b.items()}
    a["shape"], a["i"] = np.ones((3, 1)), b["i"] + 1
    target, reference = files(tmp_path, a, b)
    found, wanted = compare_files(target, reference), compare(a, b)
    assert [(r.name, r.level, r.note) for r in found.rows] == [
        (r.name, r.level, r.note) for r in wanted.rows
    ]
    for one, other in zip(found.rows, wanted.rows, strict=True):
        assert (one.cos, one.sqnr) == pytest.approx((other.cos, other.sqnr), rel=1e-9)
    assert found.rows[-1].note == "shape [3, 1] against [3]"
    assert [r.name for r in compare_files(target, reference, excepts=["[fint]*"]).rows] == [
        "c", "scalar", "shape"
    ]  # fmt: skip


def test_types_that_numpy_only_holds_are_equal_or_not(tmp_path: Path) -> None:
    held = {
        "bf16": np.array([1.5, 2], ml_dtypes.bfloat16),
        "i4": np.array([3, -4], ml_dtypes.int4),
        "half": np.array([1.5, 2], np.float16),
        "day": np.array(["2020-01-01"], "datetime64[D]"),
        "bytes": np.array([b"ab"]),
    }
    other = held | {
        "bf16": np.array([1.5, 3], ml_dtypes.bfloat16),
        "half": np.array([1.5, 2.001], np.float16),
    }
    rows = {r.name: r for r in compare_files(*files(tmp_path, other, held)).rows}
    assert (rows["bf16"].level, rows["bf16"].share_equal) == (Level.NOT_SIMILAR, 0.5)
    assert {rows[n].level for n in ("i4", "day", "bytes")} == {Level.EQUAL}
    assert rows["half"].level is Level.CLOSE


@pytest.mark.parametrize(
    "other", [np.zeros(2, "V4"), np.zeros(2, "f4,i4"), np.zeros(2, np.float32)]
)
def test_bytes_of_another_type_do_not_match(tmp_path: Path, other: np.ndarray) -> None:
    held = {"x": np.zeros(2, ml_dtypes.bfloat16)}
    for pair in ((held, {"x": other}), ({"x": other}, held)):
        (row,) = compare_files(*files(tmp_path, *pair)).rows
        assert row.level is Level.NOT_MATCH
        assert row.note.startswith("type ")


def test_memory_does_not_grow_with_the_arrays(tmp_path: Path) -> None:
    size = 1 << 23
    x = np.arange(size, dtype=np.float32)
    target, reference = files(tmp_path, {"x": x}, {"x": x + 1})
    del x
    tracemalloc.start()
    try:
        found = compare_files(target, reference, axis=0 if size < 100 else None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.rows[0].level is Level.SIMILAR
    assert peak < 24 << 20 < 4 * size, "less than one of the two arrays"


def test_damage_is_found_in_the_piece_where_it_lies(tmp_path: Path) -> None:
    target, reference = files(tmp_path, {"x": np.arange(1000.0)}, {"x": np.arange(1000.0)})
    blob = bytearray(target.path.read_bytes())
    blob[4000] ^= 1
    target.path.write_bytes(blob)
    with pytest.raises(QdqcError, match="can't read the array 'x': Bad CRC"):
        compare_files(target, reference)
