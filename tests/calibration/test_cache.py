"""The folder of statistics: shared, bounded, and never in the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from qdqc.calibration import cache as module
from qdqc.calibration.cache import SUFFIX, Cache
from qdqc.calibration.state import to_bytes
from qdqc.calibration.statistics import Collector
from qdqc.diagnostics import Diagnostic
from qdqc.kept_folder import KeptFolder


def held(value: float = 1.0) -> Collector:
    out = Collector()
    out.update("x", np.full((2, 2), value, np.float32))
    out.end_sample()
    return out


@pytest.fixture
def warnings() -> list[Diagnostic]:
    return []


@pytest.fixture
def cache(tmp_path: Path, warnings: list[Diagnostic]) -> Cache:
    return Cache(KeptFolder(tmp_path, "calibration", SUFFIX), warnings.append)


def test_an_entry_is_read_back_by_its_key(cache: Cache) -> None:
    cache.entry("k").save(held(), ["d1", "d2"])
    loaded = cache.entry("k").load()
    assert loaded is not None
    assert to_bytes(loaded[0], {}) == to_bytes(held(), {})
    assert loaded[1] == ["d1", "d2"]
    assert cache.entry("other").load() is None


def test_an_entry_under_another_name_is_not_believed(cache: Cache) -> None:
    cache.entry("k").save(held(), [])
    cache.entry("k").path.rename(cache.entry("other").path)
    assert cache.entry("other").load() is None


def test_writing_takes_a_share_of_the_time_only(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 104.9, 105.1, 106.0, 106.1, 106.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    entry = cache.entry("k")
    entry.save(held(1), [])
    entry.save(held(2), [])  # 3.9 seconds after a writing of one second
    loaded = entry.load()
    assert loaded is not None
    assert loaded[0].statistics["x"].max == 1
    entry.save(held(3), [])
    entry.save(held(4), [], at_once=True)
    loaded = entry.load()
    assert loaded is not None
    assert loaded[0].statistics["x"].max == 4


def damaged(payload: bytes) -> bytes:
    """Bytes with a checksum that fits, whatever they are."""
    return b"qdqc statistics 1 " + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def test_a_damaged_entry_counts_for_nothing(cache: Cache) -> None:
    """Cut short, changed, or of another form under a checksum that fits."""
    entry = cache.entry("k")
    entry.save(held(), ["d"])
    whole = entry.path.read_bytes()
    payload = whole[whole.index(b"\n") + 1 :]
    size = int.from_bytes(payload[:8], "little")
    header = payload[8 : 8 + size]
    for end in range(0, len(whole), 97):
        entry.path.write_bytes(whole[:end])
        assert entry.load() is None
    for old, new in ((b"HISTOGRAM", b"HISTOGRAMM"), (b'"spans"', b'"spanx"'), (b"[1,2]", b"[2,1]")):
        assert old in header
        changed = header.replace(old, new)
        parts = len(changed).to_bytes(8, "little") + changed + payload[8 + size :]
        entry.path.write_bytes(damaged(parts))
        assert entry.load() is None or old == b"[1,2]"
    for place in range(8 + size, len(payload), 131):
        parts = payload[:place] + b"\xff" + payload[place + 1 :]
        entry.path.write_bytes(damaged(parts))
        entry.load()  # whatever it is now, it raises nothing


def test_reading_an_entry_keeps_it_young(cache: Cache) -> None:
    entry = cache.entry("k")
    entry.save(held(), [])
    os.utime(entry.path, (1, 1))
    entry.load()
    assert entry.path.stat().st_mtime > 1


def test_a_disk_that_fills_up_is_told_once(
    cache: Cache, warnings: list[Diagnostic], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    entry = cache.entry("k")
    for _ in range(2):
        entry.save(held(), [], at_once=True)
    (warning,) = warnings
    assert "No space left on device" in warning.message
    assert [p.name for p in cache.folder.path.iterdir()] == ["CACHEDIR.TAG"]
