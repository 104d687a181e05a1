"""Plugins and packages of users that can't be loaded: where, why, and nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.op import OPS
from qdqc.pipeline import discovery
from qdqc.pipeline.pass_ import PASSES
from qdqc.pipeline.spec import resolve

PASS = '''
from qdqc.pipeline.pass_ import Pass

class Mine(Pass):
    """Do mine."""
    name = "{name}"
    depth: int = 1

    def run(self, graph, ctx):
        return 0
'''


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    discovery.load_passes()  # outside the scratch registry: a second import enters nothing
    monkeypatch.setattr(discovery, "_loaded", dict(discovery._loaded))
    monkeypatch.setattr(discovery, "_pipelines", dict(discovery._pipelines))
    with PASSES.scratch(), OPS.scratch():
        yield


def load(folder: Path, text: str, name: str = "mine.py") -> ModuleType:
    path = folder / name
    path.write_text(text)
    return discovery.load_plugin(path)


def failure(folder: Path, text: str, name: str = "mine.py") -> str:
    known = set(sys.modules)
    with pytest.raises(QdqcError) as caught:
        load(folder, text, name)
    assert set(sys.modules) - known <= {"ast", "this"}
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("import nothing_of_this_name", 1, "No module named 'nothing_of_this_name'"),
        ("x = 1\n\nx.y", 3, "AttributeError: 'int' object has no attribute 'y'"),
        ("x = 1\ndef f(:\n", 2, "SyntaxError: "),
        ("\n\nraise RuntimeError('stop')", 3, "RuntimeError: stop"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError: division by zero"),
        (PASS.format(name="canonicalize"), 4, "pass 'canonicalize' is defined twice"),
        (PASS.format(name="m").replace("depth: int = 1", "depth: list[int] = []"), 4, "mutable"),
        (
            "from qdqc.diagnostics import QdqcError\nraise QdqcError('no licence', file='x')",
            2,
            "no licence",
        ),
    ],
)
def test_the_line_and_the_reason(tmp_path: Path, text: str, line: int, reason: str) -> None:
    told = failure(tmp_path, text)
    assert told.startswith(f"{tmp_path / 'mine.py'}:{line}: error: can't load ")
    assert reason in told
    assert "note: correct the file; docs/writing-a-pass.md shows a whole one" in told


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    told = failure(tmp_path, "", "mine.txt")
    assert "a plugin is a Python file; its name ends in .py" in told
    with pytest.raises(QdqcError, match="is not a file"):
        discovery.load_plugin(tmp_path)


def test_a_plugin_that_failed_defines_nothing_that_runs(tmp_path: Path) -> None:
    """What it defined before the failing line may be replaced by the corrected file."""
    failure(tmp_path, PASS.format(name="t-mine") + "\nraise ValueError\n")
    load(tmp_path, PASS.format(name="t-mine").replace("depth: int = 1", "depth: int = 7"))
    (found,) = resolve("t-mine")
    assert found == PASSES["t-mine"](depth=7)


def test_a_plugin_is_loaded_once_by_whatever_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(tmp_path, PASS.format(name="t-mine"))
    (tmp_path / "link.py").symlink_to(tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert discovery.load_plugin("mine.py") is module
    assert discovery.load_plugin(tmp_path / "link.py") is module


def test_a_plugins_pipelines_may_use_its_own_passes(tmp_path: Path) -> None:
    load(tmp_path, PASS.format(name="t-mine") + "\nPIPELINES = {'mine': 't-mine{depth=3}'}\n")
    (found,) = resolve("@mine", discovery.pipelines())
    assert found == PASSES["t-mine"](depth=3)


def test_a_plugins_op_is_an_op(tmp_path: Path) -> None:
    load(tmp_path, "from qdqc import Op\nclass Mine(Op):\n    name = 't.mine'\n    k: int = 2\n")
    assert OPS["t.mine"]().k == 2


def test_pipelines_that_are_handed_out_are_copies(tmp_path: Path) -> None:
    held = discovery.pipelines()
    held["transform"] = "broken"
    assert discovery.pipelines()["transform"] != "broken"


class Entry:
    """An entry point that leads to a package on the path."""

    group = discovery.GROUP
    name = "theirs"

    def __init__(self, value: str) -> None:
        self.value = value


def test_a_users_package_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_passes"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good.py").write_text(PASS.format(name="t-theirs"))
    (package / "wrong.py").write_text("\nraise OSError('no disk')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(discovery._loaded, discovery.GROUP, raising=False)
    entries = [Entry("qdqc.passes"), Entry("their_passes")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries)
    with pytest.raises(QdqcError) as caught:
        discovery.load_passes()
    told = str(caught.value).split("\n")
    assert told[0] == (
        f"{package / 'wrong.py'}:2: error: can't load passes of 'their_passes' "
        "(entry point 'theirs'): OSError: no disk"
    )


def test_a_users_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(discovery._loaded, discovery.GROUP, raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry("nowhere")])
    with pytest.raises(QdqcError, match=r"passes of 'nowhere' .*No module named 'nowhere'"):
        discovery.load_passes()
