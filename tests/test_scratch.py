"""Files that are not meant to stay: gone behind their block, and behind a killed process too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qdqc.scratch import beside, prune_beside, prune_scratch, scratch_folder

fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def killed(action: object) -> None:
    """Run an action in a copy of this process, which is killed at its end."""

    def run() -> None:
        action()  # type: ignore[operator]

    process = fork.Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_folder_is_gone_behind_its_block(temporary: Path) -> None:
    with scratch_folder("audit") as folder:
        (folder / "a").write_text("x")
        assert folder.parent == temporary
        prune_scratch()
        assert (folder / "a").exists(), "it is in use"
    assert left(temporary) == []


def test_what_a_killed_process_left_is_removed_by_the_next(temporary: Path) -> None:
    target = temporary / "net.onnx"

    def die() -> None:
        with scratch_folder("audit") as folder, beside(target) as (_, stream):
            (folder / "large").write_text("x")
            stream.write(b"half")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    killed(die)
    assert len(left(temporary)) == 2
    prune_scratch()
    prune_beside(target)
    assert left(temporary) == []


def test_a_file_in_use_is_not_left_over(temporary: Path) -> None:
    target = temporary / "net.onnx"
    with beside(target) as (file, stream):
        process = fork.Process(target=prune_beside, args=(target,))
        process.start()
        process.join()
        stream.write(b"x")
        stream.flush()
        assert file.read_bytes() == b"x"
    assert left(temporary) == []


def test_what_is_not_ours_stays(temporary: Path) -> None:
    """Folders without our mark, and files of other names."""
    theirs = temporary / "qdqc-audit-0123abcd"
    theirs.mkdir()
    (theirs / "photo.png").write_text("x")
    for name in ("qdqc-notes", "qdqc-audit-0123", ".net.onnx.0123abcd.tmp", ".net.onnx.bak"):
        (temporary / name).write_text("x")
    before = left(temporary)
    prune_scratch()
    prune_beside(temporary / "net.onnx")
    assert left(temporary) == before
    assert (theirs / "photo.png").exists()


def test_long_names_of_any_alphabet(temporary: Path) -> None:
    target = temporary / ("模" * 80)
    with beside(target) as (file, _):
        assert file.exists()
    assert left(temporary) == []


def test_a_folder_of_a_process_goes_with_it(temporary: Path) -> None:
    """At its end, not at that of a copy; a killed one leaves it to the next."""
    code = (
        "import os, sys; from qdqc.scratch import process_folder as f\n"
        "(f('weights') / 'a').write_text('x')\n"
        "if not os.fork(): sys.exit()\n"
        "os.wait(); print(len(os.listdir(sys.argv[1])))\n"
        "if sys.argv[2]: os.kill(os.getpid(), 9)"
    )
    for dies in ("", "yes"):
        words = [sys.executable, "-c", code, str(temporary), dies]
        assert subprocess.run(words, capture_output=True, text=True).stdout.strip() in ("1", "")
        assert bool(left(temporary)) is bool(dies)
    prune_scratch()
    assert left(temporary) == []


def test_a_folder_that_is_taken_for_a_left_over_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened, gone = os.open, list[str]()

    def late(path: object, *given: int, **named: object) -> int:
        if not gone and Path(str(path)).name.startswith("qdqc-race-"):
            gone.append(str(path))
            os.rmdir(str(path))
        return opened(path, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", late)
    with scratch_folder("race") as folder:
        assert folder.is_dir()
        assert str(folder) not in gone
    assert len(gone) == 1
    assert not list(tmp_path.iterdir())
