"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compiler.diagnostics import QdqcError
from compiler.files import refuse_inputs, write_whole


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("content", ["text ü", "text ü".encode(), lambda p: p.write_text("text ü")])
def test_every_kind_of_content(tmp_path: Path, content: object) -> None:
    write_whole(tmp_path / "a", content)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_text() == "text ü"
    assert left(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def half(path: Path) -> None:
        path.write_text("half")
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
