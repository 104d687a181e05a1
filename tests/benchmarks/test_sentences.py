from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sentences import Pairs, batch, calibration_samples, embedding, ranks, spearman


def pairs_file(folder: Path, count: int = 5) -> Path:
    rng = np.random.default_rng(0)
    held: dict[str, np.ndarray] = {"score": np.arange(count, dtype=np.float32)}
    for side, shortest in (("a", 3), ("b", 10)):
        lengths = shortest + np.arange(count)[:, None]
        mask = (np.arange(64) < lengths).astype(np.int64)
        held[f"{side}_attention_mask"] = mask
        held[f"{side}_input_ids"] = rng.integers(1, 1000, (count, 64)) * mask
    np.savez(folder / "pairs.npz", **held)
    return folder / "pairs.npz"


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    np.testing.assert_array_equal(ranks([30, 10, 20, 10]), [4.0, 1.5, 3.0, 1.5])
    np.testing.assert_array_equal(ranks([7.0, 7.0, 7.0]), [2.0, 2.0, 2.0])


def test_without_ties_spearman_is_the_formula_of_rank_differences() -> None:
    """``1 - 6 sum d^2 / (n (n^2 - 1))`` holds for distinct ranks."""
    base = np.arange(5)
    for order in permutations(range(5)):
        squares = np.square(base - np.array(order)).sum()
        wanted = 1 - 6 * squares / (5 * (5**2 - 1))
        assert spearman(base, np.exp(order)) == pytest.approx(wanted)


def test_spearman_with_ties_is_pearson_of_the_shared_ranks() -> None:
    first, second = [1.0, 2.0, 2.0, 4.0], [3.0, 1.0, 5.0, 5.0]
    pearson = np.corrcoef([1, 2.5, 2.5, 4], [2, 1, 3.5, 3.5])[0, 1]
    assert spearman(first, second) == pytest.approx(pearson)
    assert spearman(first, np.negative(second)) == pytest.approx(-pearson)


def test_values_that_are_all_equal_have_no_correlation() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_padding_has_no_part_in_an_embedding() -> None:
    hidden = np.array([[[3.0, 0.0], [3.0, 8.0], [99.0, -99.0]], [[0.0, 2.0]] * 3])
    found = embedding(hidden, np.array([[1, 1, 0], [1, 1, 1]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 1.0]])


def test_pairs_stand_first_sentences_first(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    pairs = Pairs.load(path)
    with np.load(path) as held:
        np.testing.assert_array_equal(pairs.ids[:5], held["a_input_ids"])
        np.testing.assert_array_equal(pairs.mask[5:], held["b_attention_mask"])
    assert pairs.score.tolist() == [0, 1, 2, 3, 4]


def test_fewer_pairs_are_spread_over_the_file(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    every, few = Pairs.load(path), Pairs.load(path, 3)
    assert few.score.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(few.ids, every.ids[[0, 2, 4, 5, 7, 9]])
    assert len(Pairs.load(path, 50).score) == 5


def test_a_batch_is_as_long_as_its_longest_sentence_or_as_asked(tmp_path: Path) -> None:
    pairs = Pairs.load(pairs_file(tmp_path))
    feeds = batch(pairs, [0, 2])
    assert {name: array.shape for name, array in feeds.items()} == {
        "input_ids": (2, 5),
        "attention_mask": (2, 5),
        "token_type_ids": (2, 5),
    }
    np.testing.assert_array_equal(feeds["attention_mask"].sum(-1), [3, 5])
    assert not feeds["token_type_ids"].any()
    np.testing.assert_array_equal(batch(pairs, [5], 32)["input_ids"], pairs.ids[5:6, :32])


def test_calibration_samples_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        np.savez(tmp_path / f"{number:03}.npz", input_ids=np.full((1, 4), number))
    found = [int(sample["input_ids"][0, 0]) for sample in calibration_samples(tmp_path)]
    assert found == [0, 1, 2]
