"""A user's Python file: what it lacks and what fails in it is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.user_files import function_of


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_the_first_function_of_the_names_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "def b(x):\n    return x + 1\n")
    assert function_of(path, ("a", "b"), "it")(2) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "mine.py: error: it has no function 'metric'"),
        ("def metric(:\n", "mine.py:1: error: the metric fails: SyntaxError"),
        ("import nothing_at_all\n", "mine.py:1: error: the metric fails: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "mine.py:1: error: the metric fails: SystemExit: 3"),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(QdqcError) as found:
        function_of(write(tmp_path, text), ("metric",), "the metric")
    assert message in str(found.value)


def test_what_fails_when_it_is_called(tmp_path: Path) -> None:
    metric = function_of(
        write(tmp_path, "def metric(x):\n    y = 1\n    return x / 0\n"), ("metric",), "the metric"
    )
    with pytest.raises(QdqcError, match="the metric fails: ZeroDivisionError") as found:
        metric(1)
    assert "mine.py:3" in str(found.value)


@pytest.mark.parametrize("name", ["none.py", "data.npz", "."])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(QdqcError, match="there is no such Python file"):
        function_of(tmp_path / name, ("metric",), "the metric")
