"""Pages name files and rooms that are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|js|css|html|lark))`")
LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")
OURS = re.compile(r"\b(?:from|import) (qdqc(?:\.\w+)+)")
PLAYED = {"data.py", "top1.py", "mixed.py", "breaks.py", "user_pass.py", "my_pass.py", "metric.py"}
"""Files that the pages' reader writes."""


def title(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_files_and_links_of_a_page_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    folders = [ROOT, *(p for p in (ROOT / "compiler").rglob("*") if p.is_dir())]
    folders += [ROOT / "compiler", ROOT / "passes", ROOT / "tools"]
    gone = [
        name
        for name in FILE.findall(text)
        if name not in PLAYED and not any((folder / name).is_file() for folder in folders)
    ]
    gone += [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_modules_of_a_page_are_there(page: Path) -> None:
    names = OURS.findall(page.read_text("utf-8"))
    assert not [name for name in names if importlib.util.find_spec(name) is None]


def test_the_rooms_of_the_architecture_are_those_of_the_house() -> None:
    spec = importlib.util.spec_from_file_location("rules", ROOT / "tests" / "test_house_rules.py")
    assert spec is not None
    assert spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    wanted = {
        room: floor
        for floor, rooms in enumerate(rules.ORDER, 1)
        for room in rooms
        if room != "__init__"
    }
    stated: dict[str, int] = {}
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for floor, rooms in re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE):
        for room in re.findall(r"`(\w+)(?:\.py|/)`", rooms):
            stated[room] = int(floor)
    assert stated == wanted
