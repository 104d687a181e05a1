"""Statistics as bytes: what is kept on disk, and what worker processes send.

The bytes are a line of magic and a sha256 of all that follows, then safetensors: numbers by
column, one entry a tensor, the bins in use of all histograms one behind the other, and names as
JSON. Nothing is unpickled, and nothing is believed whose checksum or form is wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from qdqc.calibration.channels import ChannelMean
from qdqc.calibration.sample_means import ExactMeans
from qdqc.calibration.statistics import SIDE, Collector, Detail, NonFinite, Statistics

__all__ = ["DamagedError", "from_bytes", "to_bytes"]

_MAGIC = b"qdqc statistics 1 "
_DIGEST = 64

_ODD = (
    SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading bytes of another form raises: of an older version, say."""

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class DamagedError(ValueError):
    """The bytes are not statistics, or are cut short."""


def to_bytes(collector: Collector, notes: Mapping[str, str]) -> bytes:
    """The statistics, and notes of the caller's. Equal statistics give equal bytes."""
    arrays: Arrays = {}
    _put_statistics(arrays, list(collector.statistics.values()))
    means = list(collector.channels.values())
    arrays["channels"] = _joined([m.total for m in means], np.float64)
    arrays["channel_sizes"] = np.array([(m.total.size, m.count) for m in means], np.int64)
    arrays["extremes"] = np.array(list(collector.extremes.values()), np.float64)
    names = {
        "detail": collector.detail.name,
        "samples": collector.samples,
        "statistics": list(collector.statistics),
        "channels": list(collector.channels),
        "extremes": list(collector.extremes),
        "nonfinite": [(n.name, n.sample) for n in collector.nonfinite],
    }
    # One entry of metadata: safetensors writes several in any order.
    payload = safetensors.save(arrays, {"state": json.dumps([names, dict(notes)])})
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def from_bytes(content: bytes) -> tuple[Collector, dict[str, str]]:
    """The statistics and the notes. Raises DamagedError."""
    start = len(_MAGIC) + _DIGEST + 1
    payload = content[start:]
    digest = hashlib.sha256(payload).hexdigest().encode()
    if content[:start] != _MAGIC + digest + b"\n":
        raise DamagedError("these are not statistics, or they are cut short")
    try:
        return _parsed(payload)
    except _ODD as err:
        raise DamagedError(f"the statistics have another format: {err}") from err


def _parsed(payload: bytes) -> tuple[Collector, dict[str, str]]:
    arrays = safetensors.load(payload)
    size = int.from_bytes(payload[:8], "little")
    metadata = json.loads(payload[8 : 8 + size])["__metadata__"]
    names, notes = json.loads(metadata["state"])
    out = Collector(detail=Detail[names["detail"]])
    out.samples = int(names["samples"])
    statistics = _get_statistics(arrays, len(names["statistics"]))
    out.statistics = dict(zip(names["statistics"], statistics, strict=True))
    sizes = arrays["channel_sizes"].reshape(-1, 2)
    totals = _split(arrays["channels"], sizes[:, 0])
    means = [ChannelMean(t, int(n)) for t, n in zip(totals, sizes[:, 1], strict=True)]
    out.channels = dict(zip(names["channels"], means, strict=True))
    pairs = [(low, high) for low, high in arrays["extremes"].reshape(-1, 2).tolist()]
    out.extremes = dict(zip(names["extremes"], pairs, strict=True))
    out.nonfinite = [NonFinite(name, sample) for name, sample in names["nonfinite"]]
    return out, notes


def _columns(kind: type) -> list[Field[Any]]:
    """The fields of Statistics that hold a value of that class to begin with."""
    plain = Statistics()
    return [f for f in fields(Statistics) if type(getattr(plain, f.name)) is kind]


def _put_statistics(arrays: Arrays, statistics: Sequence[Statistics]) -> None:
    for kind, dtype in ((int, np.int64), (float, np.float64)):
        for column in _columns(kind):
            arrays[column.name] = np.array([getattr(s, column.name) for s in statistics], dtype)
    for column in _columns(ExactMeans):
        means = [getattr(s, column.name) for s in statistics]
        arrays[f"{column.name}.count"] = np.array([m.count for m in means], np.int64)
        arrays[f"{column.name}.sums"] = np.array([m.sums for m in means], np.float64)
    spans = [_span(s.counts) for s in statistics]
    used = [s.counts[first:last] for s, (first, last) in zip(statistics, spans, strict=True)]
    arrays["spans"] = np.array(spans, np.int64)
    counts = _joined(used, np.int64)
    small = counts.max(initial=0) <= np.iinfo(np.uint32).max
    arrays["counts"] = counts.astype(np.uint32) if small else counts


def _get_statistics(arrays: Arrays, count: int) -> list[Statistics]:
    statistics = [Statistics() for _ in range(count)]
    for kind in (int, float):
        for column in _columns(kind):
            for stats, value in zip(statistics, arrays[column.name].tolist(), strict=True):
                setattr(stats, column.name, value)
    for column in _columns(ExactMeans):
        counts, sums = arrays[f"{column.name}.count"], arrays[f"{column.name}.sums"]
        for stats, number, rows in zip(statistics, counts.tolist(), sums, strict=True):
            if rows.shape != getattr(stats, column.name).sums.shape:
                raise ValueError(f"{column.name} has shape {rows.shape}")
            setattr(stats, column.name, ExactMeans(rows.copy(), number))
    spans = arrays["spans"].reshape(-1, 2)
    used = _split(arrays["counts"], spans[:, 1] - spans[:, 0])
    for stats, (first, last), counts in zip(statistics, spans.tolist(), used, strict=True):
        if not 0 <= first <= last <= 2 * SIDE:
            raise ValueError(f"counts from bin {first} to {last}")
        if last > first:
            stats.counts = np.zeros(2 * SIDE, np.int64)
            stats.counts[first:last] = counts
    return statistics


def _span(counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """The first bin in use, and the one behind the last."""
    used = np.flatnonzero(counts)
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)


def _joined(parts: Iterable[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _split(joined: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    ends = list(itertools.accumulate(sizes.tolist(), initial=0))
    if min(sizes, default=0) < 0 or ends[-1] != joined.size:
        raise ValueError(f"{joined.size} numbers where {ends[-1]} belong")
    return [joined[a:b].copy() for a, b in itertools.pairwise(ends)]
