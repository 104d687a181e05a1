"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.files import (
    read_text,
    refuse_inputs,
    refuse_unwritable,
    write_outputs,
    write_together,
    write_whole,
)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    "content", ["text ü", "text ü".encode(), lambda f: f.write("text ü".encode())]
)
def test_every_kind_of_content(tmp_path: Path, content: object) -> None:
    write_whole(tmp_path / "a", content)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_text() == "text ü"
    assert left(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def half(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_whole(target, half)
    assert target.read_text() == "old"
    assert left(tmp_path) == ["a"]


def test_permissions_are_those_of_a_normal_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    held = os.umask(0o022)
    try:
        write_whole(target, "x")
    finally:
        os.umask(held)
    assert target.stat().st_mode & 0o777 == 0o644
    target.chmod(0o640)
    write_whole(target, "y")
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_whole("/dev/null", "gone")
    assert Path("/dev/null").is_char_device()


def test_a_pipe_behind_dev_stdout_is_written_to() -> None:
    """The link leads to no path: ``/proc/1/fd/pipe:[2]``."""
    code = (
        "from qdqc.files import refuse_unwritable, write_whole\n"
        "refuse_unwritable(['/dev/stdout']); write_whole('/dev/stdout', 'whole')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("whole", "")


@pytest.mark.parametrize("how", ["same", "relative", "link", "hard link"])
def test_an_input_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source = tmp_path / "in.qir"
    source.write_text("in")
    monkeypatch.chdir(tmp_path)
    output: str | Path = source
    if how == "relative":
        output = "./in.qir"
    elif how == "link":
        output = tmp_path / "out.qir"
        output.symlink_to(source)
    elif how == "hard link":
        output = tmp_path / "out.qir"
        output.hardlink_to(source)
    with pytest.raises(QdqcError, match="is also an input"):
        write_whole(output, "out", inputs=[source])
    assert source.read_text() == "in"


def test_missing_files_are_compared_by_name(tmp_path: Path) -> None:
    refuse_inputs([tmp_path / "b"], [tmp_path / "a"])
    with pytest.raises(QdqcError, match="is also an input"):
        refuse_inputs([tmp_path / "a"], [f"{tmp_path}/./a"])


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match=r"there is no folder .*\nnote: make the folder first"):
        write_whole(tmp_path / "no" / "a", "x")
    with pytest.raises(QdqcError, match="it is a folder\nnote: give the name of a file in it"):
        write_whole(tmp_path, "x")


def test_what_can_be_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse_unwritable([tmp_path / "a", tmp_path / "file", "/dev/null"])
    for output, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "a", "there is no folder"),
        (tmp_path / "file" / "a", "is a file, not a folder"),
    ):
        with pytest.raises(QdqcError, match=reason):
            refuse_unwritable([tmp_path / "a", output])
    assert left(tmp_path) == ["file"]


def test_files_that_belong_together(tmp_path: Path) -> None:
    write_together([(tmp_path / "a", "one"), (tmp_path / "b", b"two")])
    assert left(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "onetwo"


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The disk lets ``room`` bytes through: not even the first file, or the first alone."""
    files = [(tmp_path / "a", "old a"), (tmp_path / "b", "old b")]
    write_together(files)
    taken = [0]

    def full(number: int) -> None:
        taken[0] += os.fstat(number).st_size
        if taken[0] > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QdqcError, match="can't write the file: No space left on device") as caught:
        write_together([(path, "new 1") for path, _ in files])
    assert caught.value.diagnostic.file == str(files[room // 5][0])
    assert [path.read_text() for path, _ in files] == ["old a", "old b"]
    assert left(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, what: str) -> None:
    place = tmp_path / "b"
    if what == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(QdqcError, match=f"it is a .*{what}"):
        write_together([(tmp_path / "a", "x"), (place, "x")])
    assert left(tmp_path) == ["b"]


def test_a_link_in_a_group_is_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep me")
    (tmp_path / "victim").chmod(0o600)
    (tmp_path / "a").symlink_to("victim")
    write_together([(tmp_path / "a", "x")])
    assert (tmp_path / "victim").read_text() == "keep me"
    assert not (tmp_path / "a").is_symlink()


def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    name = "ü" * 127
    write_whole(tmp_path / name, "x")
    assert left(tmp_path) == [name]


def test_texts_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "text").write_bytes("ü\r\n".encode())
    assert read_text(tmp_path / "text", "list", "") == "ü\r\n"
    for name, reason in (("binary", "it is not text"), ("none", "No such file"), ("", "directory")):
        with pytest.raises(QdqcError, match=f"can't read the list: .*{reason}.*\nnote: make one"):
            read_text(tmp_path / name, "list", "make one")


def pair(folder: Path, words: tuple[str, str]) -> list[tuple[Path, str]]:
    return [(folder / "a", words[0]), (folder / "b", words[1])]


@pytest.mark.parametrize("failing", range(8))
@pytest.mark.parametrize("present", [(), ("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_files_appear_together_or_not_at_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    present: tuple[str, ...],
    error: BaseException,
) -> None:
    """Whichever renaming fails, and whether before it happened or behind it."""
    if failing // 2 >= 2 + len(present):
        return  # there are no so many
    for name in present:
        (tmp_path / name).write_text(f"old {name}")
    calls = 0
    plain = os.rename

    def failed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > failing // 2:
            monkeypatch.setattr("os.rename", plain)
            monkeypatch.setattr("os.replace", plain)
            if failing % 2:
                plain(*arguments)  # type: ignore[arg-type]
            raise error
        plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("os.rename", failed)
    monkeypatch.setattr("os.replace", failed)
    with pytest.raises((QdqcError, KeyboardInterrupt)):
        write_together(pair(tmp_path, ("new a", "new b")))
    assert {n: (tmp_path / n).read_text() for n in left(tmp_path)} == {
        n: f"old {n}" for n in present
    }
    write_together(pair(tmp_path, ("new a", "new b")))
    assert [(tmp_path / n).read_text() for n in left(tmp_path)] == ["new a", "new b"]


def test_outputs_may_be_links_and_streams(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    (tmp_path / "a").symlink_to(tmp_path / "there")
    write_outputs([(tmp_path / "a", "new"), (Path("/dev/null"), "x"), (tmp_path / "b", "y")])
    assert (tmp_path / "there").read_text() == "new"
    assert left(tmp_path) == ["a", "b", "there"]
