"""Values of many runs in one file: what numpy's concatenate gives, in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.data.archive import Archive
from qdqc.data.spool import Spool
from qdqc.diagnostics import QdqcError


def joined(folder: Path, rounds: list[dict[str, Any]]) -> Archive:
    with Spool(folder / "o.npz") as spool:
        for values in rounds:
            spool.add(values)
        headers = spool.write()
    found = Archive(folder / "o.npz")
    assert {n: (h.dtype, h.shape) for n, h in headers.items()} == {
        n: (found[n].dtype, found[n].shape) for n in found
    }
    return found


@given(st.lists(st.integers(0, 3), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_it_joins_as_numpy_does(lengths: list[int], seed: int) -> None:
    import tempfile

    rng = np.random.default_rng(seed)
    rounds: list[dict[str, Any]] = [
        {
            "a": rng.standard_normal((n, 2, 3)).astype(np.float32),
            "turned": np.asfortranarray(rng.integers(-9, 9, (n, 4))),
            "s": np.float32(rng.standard_normal()),
            "text": np.array(["x" * (n + 1)]),
        }
        for n in lengths
    ]
    with tempfile.TemporaryDirectory() as name:
        found = joined(Path(name), rounds)
        for key in ("a", "turned", "text"):
            wanted = np.concatenate([r[key] for r in rounds])
            assert found[key].dtype == wanted.dtype
            np.testing.assert_array_equal(found[key], wanted)
        assert found["s"].tolist() == [float(r["s"]) for r in rounds]


def test_a_single_run_stays_as_it_is(tmp_path: Path) -> None:
    given = {"s": np.float32(1), "e": np.zeros((0, 2)), "t": np.arange(6.0).reshape(2, 3).T}
    found = joined(tmp_path, [given])
    for name, array in given.items():
        assert found[name].shape == np.shape(array)
        np.testing.assert_array_equal(found[name], array)


def test_types_that_npz_has_not(tmp_path: Path) -> None:
    values = {"b": np.array([1.5], ml_dtypes.bfloat16), "i": np.array([-8], ml_dtypes.int4)}
    found = joined(tmp_path, [values, values])
    assert (found["b"].dtype, found["b"].tolist()) == (np.float32, [1.5, 1.5])
    assert (found["i"].dtype, found["i"].tolist()) == (np.int8, [-8, -8])


def test_shapes_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path / "o.npz") as spool:
        spool.add({"a": np.ones((1, 2))})
        with pytest.raises(QdqcError, match="'%a' has shape"):
            spool.add({"a": np.ones((1, 3))})
    assert list(tmp_path.iterdir()) == []


def test_memory_holds_one_run(tmp_path: Path) -> None:
    one = np.zeros(1 << 20, np.float32)
    tracemalloc.start()
    try:
        with Spool(tmp_path / "o.npz") as spool:
            for value in range(16):
                one[:] = value
                spool.add({"x": one[None]})
            spool.write()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    found = Archive(tmp_path / "o.npz")["x"]
    assert found.shape == (16, 1 << 20)
    assert found[:, 5].tolist() == list(range(16))
    assert peak < 4 * one.nbytes
