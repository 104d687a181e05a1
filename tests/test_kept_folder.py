"""Folders of findings: below a folder of the user's, of which nothing else is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qdqc.kept_folder import KeptFolder, goes_on_without

DAY = 24 * 3600
LIMIT = 1000


def opened(base: Path | None) -> KeptFolder:
    return KeptFolder(base, "calibration", ".statistics")


def put(path: Path, size: int, days: float) -> Path:
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def test_it_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert opened(None).path == tmp_path / "qdqc" / "calibration"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert opened(None).path == tmp_path / "home" / ".cache" / "qdqc" / "calibration"


def test_what_is_old_left_over_or_too_much_is_removed(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    kept = [
        put(folder.file("new"), 600, 1),
        put(folder.file("older"), 300, 2),
        put(folder.path / "theirs.statistics", 5000, 99),
        put(folder.path / f"{'0' * 40}.journal", 5000, 99),
    ]
    put(folder.file("too much"), 300, 3)
    put(folder.file("old"), 1, 31)
    put(folder.path / f".{'a' * 40}.0123abcd.qdqc-tmp", 1, 0)
    opened(tmp_path).prune(LIMIT)
    assert {p.name for p in folder.path.iterdir()} == {"CACHEDIR.TAG", *(p.name for p in kept)}


def test_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    """Whatever they are called, and wherever they lie."""
    theirs = [
        tmp_path / "mine.statistics",
        tmp_path / "old.journal",
        tmp_path / f"{'0' * 40}.statistics",
        tmp_path / f".{'0' * 40}.0123abcd.qdqc-tmp",
        tmp_path / "qdqc" / "notes.statistics",
    ]
    (tmp_path / "qdqc").mkdir()
    for path in theirs:
        put(path, 5000, 99)
    opened(tmp_path).prune(0)
    assert all(path.stat().st_size == 5000 for path in theirs)


def test_a_folder_that_is_not_ours_is_not_used(tmp_path: Path) -> None:
    taken = tmp_path / "qdqc" / "calibration"
    taken.mkdir(parents=True)
    theirs = put(taken / "notes.txt", 1, 0)
    with pytest.raises(FileExistsError, match="it holds files that are not qdqc's") as found:
        opened(tmp_path)
    assert theirs.exists()
    warning = goes_on_without("calibration", tmp_path, found.value)
    assert "goes on without its cache: it holds files" in warning.message
    assert "`cache` names another folder" in warning.notes[0]
    (taken / "notes.txt").unlink()
    (taken / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Pip's")
    with pytest.raises(FileExistsError):
        opened(tmp_path)


def test_what_an_earlier_version_kept_becomes_ours(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    put(folder.file("k"), 1, 0)
    (folder.path / "CACHEDIR.TAG").unlink()
    assert opened(tmp_path).file("k").exists()
    assert (folder.path / "CACHEDIR.TAG").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    put(tmp_path / "file", 1, 0)
    with pytest.raises(NotADirectoryError):
        opened(tmp_path / "file")
