"""The folder of statistics: shared, bounded, and never in the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from qdqc.calibration import cache as module
from qdqc.calibration.cache import Cache
from qdqc.calibration.state import to_bytes
from qdqc.calibration.statistics import Collector
from qdqc.diagnostics import Diagnostic


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
    return Cache(tmp_path / "a" / "b", warnings.append)


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


def test_what_is_old_left_over_or_too_much_is_removed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, warnings: list[Diagnostic]
) -> None:
    now = time.time()

    def put(name: str, size: int, days: float) -> None:
        path = cache.folder / name
        path.write_bytes(bytes(size))
        os.utime(path, (now - days * 86400,) * 2)

    put("new.statistics", 60, 1)
    put("older.statistics", 30, 2)
    put("too_much.statistics", 30, 3)
    put("old.statistics", 1, 31)
    put(".new.statistics.1234.tmp", 1, 0.5)
    put(".live.statistics.5678.tmp", 1, 0)
    put("not_ours", 1000, 99)
    monkeypatch.setattr(module, "LIMIT", 100)
    Cache(cache.folder, warnings.append)
    left = sorted(p.name for p in cache.folder.iterdir())
    assert left == [
        ".live.statistics.5678.tmp",
        "new.statistics",
        "not_ours",
        "older.statistics",
    ]
    assert not warnings


def test_reading_an_entry_keeps_it_young(cache: Cache) -> None:
    entry = cache.entry("k")
    entry.save(held(), [])
    os.utime(entry.path, (1, 1))
    entry.load()
    assert entry.path.stat().st_mtime > 1


def test_a_folder_that_cannot_be_used_is_told_once(
    tmp_path: Path, warnings: list[Diagnostic]
) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "folder", warnings.append)
    entry = cache.entry("k")
    entry.save(held(), [])
    assert entry.load() is None
    (warning,) = warnings
    assert "goes on without its cache: Not a directory" in warning.message
    assert "`cache` names another folder" in warning.notes[0]


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
    assert list(cache.folder.iterdir()) == []
