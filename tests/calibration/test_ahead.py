from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compiler.calibration.ahead import run_ahead


def samples(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"x": np.array(i)}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_values_come_in_order(count: int) -> None:
    found = run_ahead(lambda s: {"y": s["x"] * 2}, samples(count))
    assert [int(v["y"]) for v in found] == [2 * i for i in range(count)]


def test_the_next_sample_runs_meanwhile_and_no_further() -> None:
    started = [threading.Event() for _ in range(4)]

    def run(sample: dict[str, Any]) -> dict[str, Any]:
        started[int(sample["x"])].set()
        return sample

    found = run_ahead(run, samples(4))
    next(found)
    assert started[1].wait(5), "the second runs while the first is looked at"
    assert not started[2].is_set()
    found.close()


def test_errors_come_up() -> None:
    def run(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["x"] == 1:
            raise ValueError("sample 1")
        return sample

    found = run_ahead(run, samples(3))
    next(found)
    with pytest.raises(ValueError, match="sample 1"):
        next(found)
