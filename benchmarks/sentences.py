"""Sentence pairs with human scores, and how a sentence encoder is judged on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["TOKENS", "Pairs", "batch", "calibration_samples", "embedding", "ranks", "spearman"]

Floats: TypeAlias = npt.NDArray[np.float64]
Feeds: TypeAlias = dict[str, npt.NDArray[np.int64]]

TOKENS = 64
"""Length to which the sentences of the data are padded."""


@dataclass(frozen=True)
class Pairs:
    """Tokens and masks of all sentences, i64 [2N,64], first sentences first; scores [N]."""

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]

    @staticmethod
    def load(path: Path, count: int = 0) -> Pairs:
        """The pairs of a file: all, or ``count`` at even distances, as they come by topic."""
        with np.load(path) as held:
            every = len(held["score"])
            picks = np.linspace(0, every - 1, min(count or every, every)).round().astype(int)
            ids = np.concatenate([held[f"{side}_input_ids"][picks] for side in "ab"])
            mask = np.concatenate([held[f"{side}_attention_mask"][picks] for side in "ab"])
            return Pairs(ids, mask, held["score"][picks])


def batch(pairs: Pairs, rows: Sequence[int], tokens: int = 0) -> Feeds:
    """Inputs of some sentences, each i64 [len(rows),tokens].

    Without ``tokens`` they are as long as the longest of the sentences.
    """
    mask = pairs.mask[rows]
    length = tokens or int(mask.sum(-1).max())
    ids = pairs.ids[rows, :length]
    held = {"input_ids": ids, "attention_mask": mask[:, :length]}
    return {**held, "token_type_ids": np.zeros_like(ids)}


def calibration_samples(folder: Path) -> Iterator[Feeds]:
    """The samples of a folder of npz files, in the order of their names."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as held:
            yield {name: held[name] for name in held.files}


def embedding(hidden: npt.NDArray[Any], mask: npt.NDArray[np.int64]) -> Floats:
    """Mean over the tokens under the mask, of length 1: [B,T,C] and [B,T] to [B,C]."""
    weights = mask[..., None].astype(np.float64)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def ranks(values: npt.ArrayLike) -> Floats:
    """Ranks from 1 on; equal values share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks; NaN where all values are equal."""
    x, y = (r - r.mean() for r in (ranks(a), ranks(b)))
    with np.errstate(invalid="ignore"):
        return float((x * y).sum() / np.sqrt(np.square(x).sum() * np.square(y).sum()))
