"""Messages of the library name parameters, and commands show them as options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qdqc.tools.parameters import OPTIONS, as_options

ROOT = Path(__file__).parents[2]
MARKDOWN = {"compiler/report/reference.py"}
"""Files whose texts are Markdown, where backticks mark code."""


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """String literals of a file with their lines; docstrings are left out."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def messages() -> Iterator[tuple[str, str]]:
    """Where each literal of the library stands, and its text."""
    for folder in ("compiler", "passes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in MARKDOWN:
                yield from ((f"{name}:{line}", text) for line, text in literals(path))


def test_every_parameter_in_a_message_has_an_option() -> None:
    unknown = {
        where: word
        for where, text in messages()
        for word in re.findall(r"`([^`]+)`", text)
        if word not in OPTIONS
    }
    assert unknown == {}


def test_no_message_of_the_library_spells_an_option() -> None:
    options = set(OPTIONS.values())
    spelled = {
        where: option
        for where, text in messages()
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
        if option in options
    }
    assert spelled == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("give fewer `workers`", "give fewer --workers"),
        ("mode INT8 needs `table`", "mode INT8 needs --calibration_table"),
        ("`mean` and `scale`", "--mean and --scale"),
        ("an input `mystery`, mean", "an input `mystery`, mean"),
    ],
)
def test_parameters_become_options(text: str, shown: str) -> None:
    assert as_options(text) == shown
