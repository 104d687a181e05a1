"""Whoever does the work, what is found is the same, in the same order."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.calibration.in_order import can_fork
from qdqc.diagnostics import QdqcError
from qdqc.search.trials.spread import ALONE, Hands

forks = pytest.mark.skipif(not can_fork(), reason="this system does not fork")
WAYS = [Hands(), Hands(threads=3), pytest.param(Hands(workers=2), marks=forks)]


def squares(number: int) -> list[Mapping[str, npt.NDArray[Any]]]:
    """Two mappings: one of two arrays with odd names, one of a scalar and integers."""
    rng = np.random.default_rng(number)
    return [
        {"a b": rng.normal(size=(3, number)).astype(np.float32), "": np.zeros((0, 2))},
        {"/x:0": np.float64(number), "n": np.arange(number), "t": np.array([True, False])},
    ]


@pytest.mark.parametrize("hands", WAYS)
def test_results_come_in_order_with_all_bits(hands: Hands) -> None:
    found = list(hands.each(squares, range(7)))
    assert len(found) == 7
    for number, ours in enumerate(found):
        for a, b in zip(ours, squares(number), strict=True):
            assert list(a) == list(b) or set(a) == set(b)
            for name, array in b.items():
                np.testing.assert_array_equal(a[name], array)
                assert a[name].dtype == np.asarray(array).dtype


@pytest.mark.parametrize("hands", WAYS)
def test_nothing_to_do_gives_nothing(hands: Hands) -> None:
    assert list(hands.each(squares, [])) == []
    assert len(list(hands.each(squares, [3]))) == 1


@pytest.mark.parametrize("hands", WAYS)
def test_what_goes_wrong_comes_up(hands: Hands) -> None:
    def refuse(number: int) -> list[Mapping[str, npt.NDArray[Any]]]:
        if number == 2:
            raise QdqcError("no third sample", notes=["leave it out"])
        return squares(number)

    with pytest.raises(QdqcError, match="no third sample"):
        list(hands.each(refuse, range(4)))


@forks
def test_the_work_of_a_process_that_dies_is_done_again(tmp_path: Path) -> None:
    parent = os.getpid()

    def die_once(number: int) -> list[Mapping[str, npt.NDArray[Any]]]:
        flag = tmp_path / f"died{number}"
        if number % 2 and not flag.exists():
            flag.write_text("")
            assert os.getpid() != parent
            os.kill(os.getpid(), signal.SIGKILL)
        return squares(number)

    found = list(Hands(workers=2).each(die_once, range(6)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["died1", "died3", "died5"]
    for number, ours in enumerate(found):
        np.testing.assert_array_equal(ours[0]["a b"], squares(number)[0]["a b"])


@forks
def test_an_item_that_kills_every_process_is_given_up() -> None:
    def die(number: int) -> list[Mapping[str, npt.NDArray[Any]]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    with pytest.raises(QdqcError, match="worker processes died over the same samples"):
        list(Hands(workers=2).each(die, range(2)))


def test_one_process_is_the_default() -> None:
    assert Hands() == ALONE
    assert (ALONE.threads, ALONE.workers) == (1, 1)
