"""Loading passes: ours, users' packages, plugin files, and foreign packages in the way."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.pipeline import discovery
from qdqc.pipeline.discovery import load_passes, load_plugin, pipelines
from qdqc.pipeline.pass_ import PASSES
from qdqc.pipeline.spec import resolve

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
from qdqc.pipeline.pass_ import Pass

PIPELINES = {{"{name}-twice": "{name},{name}"}}

class Mine(Pass):
    "Do nothing."
    name = "{name}"
    level: int = 1

    def run(self, graph, ctx):
        return 0
"""


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """What a test loads is forgotten after it."""
    load_passes()
    monkeypatch.setattr(discovery, "_pipelines", dict(discovery._pipelines))
    monkeypatch.setattr(discovery, "_loaded", dict(discovery._loaded))
    held = set(sys.modules)
    with PASSES.scratch():
        yield
    for name in set(sys.modules) - held:
        del sys.modules[name]


def plugin(tmp_path: Path, text: str, name: str = "user.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_built_in_pass_is_found() -> None:
    files = {p.stem.replace("_", "-") for p in (ROOT / "passes").glob("[!_]*.py")}
    assert files
    assert files <= set(PASSES.names())


def test_the_named_pipelines_name_passes_that_exist() -> None:
    assert {"transform", "int8"} <= set(pipelines())
    for name in pipelines():
        assert resolve(f"@{name}", pipelines())


def test_loading_again_changes_nothing() -> None:
    before = {name: PASSES[name] for name in PASSES.names()}
    load_passes()
    assert before == {name: PASSES[name] for name in PASSES.names()}


def test_a_plugin_brings_passes_and_pipelines(tmp_path: Path) -> None:
    path = plugin(tmp_path, GOOD.format(name="my-pass"))
    module = load_plugin(path)
    assert load_plugin(str(path)) is module
    found = resolve("@my-pass-twice,my-pass{level=3}", pipelines())
    assert [p.name for p in found] == ["my-pass"] * 3
    assert found[2] == PASSES["my-pass"](level=3)  # type: ignore[call-arg]


def test_two_plugins_of_one_file_name_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load_plugin(plugin(tmp_path / "a", GOOD.format(name="pass-a")))
    load_plugin(plugin(tmp_path / "b", GOOD.format(name="pass-b")))
    assert {"pass-a", "pass-b"} <= set(PASSES.names())


def failure(path: Path) -> str:
    with pytest.raises(QdqcError) as caught:
        load_plugin(path)
    return str(caught.value)


def test_a_missing_plugin_suggests_a_near_file(tmp_path: Path) -> None:
    plugin(tmp_path, "", "my_pass.py")
    assert "is not a file; did you mean 'my_pass.py'?" in failure(tmp_path / "my_pas.py")


def test_errors_in_a_plugin_have_its_file_and_line(tmp_path: Path) -> None:
    path = plugin(tmp_path, "import math\n\n\ndef f():\n    return math.nothing\n\n\nf()\n")
    found = failure(path)
    assert found.startswith(f"{path}:5: error: can't load {path}: AttributeError: ")
    assert "docs/writing-a-pass.md" in found


def test_syntax_errors_too(tmp_path: Path) -> None:
    path = plugin(tmp_path, "x = 1\nclass :\n")
    assert failure(path).startswith(f"{path}:2: error: can't load {path}: SyntaxError: ")


def test_a_taken_name_is_an_error_in_the_plugin(tmp_path: Path) -> None:
    path = plugin(tmp_path, GOOD.format(name="canonicalize"))
    found = failure(path)
    assert found.startswith(f"{path}:5: error: ")
    assert "pass 'canonicalize' is defined twice" in found


def test_a_failed_plugin_can_be_corrected_and_loaded(tmp_path: Path) -> None:
    path = plugin(tmp_path, "import no_such_module_anywhere\n")
    assert "ModuleNotFoundError" in failure(path)
    plugin(tmp_path, GOOD.format(name="my-pass"))
    load_plugin(path)
    assert "my-pass" in PASSES.names()


def test_a_pipeline_may_not_be_redefined(tmp_path: Path) -> None:
    path = plugin(tmp_path, 'PIPELINES = {"transform": "canonicalize"}\n')
    assert "the pipeline '@transform'" in failure(path)


def test_a_users_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_passes"
    package.mkdir()
    plugin(package, 'PIPELINES = {"theirs": "pass-of-theirs"}\n', "__init__.py")
    plugin(package, GOOD.format(name="pass-of-theirs"), "pass_of_theirs.py")
    plugin(package, "raise RuntimeError('private files stay unread')\n", "_private.py")
    monkeypatch.syspath_prepend(tmp_path)
    entry = importlib.metadata.EntryPoint("theirs", "their_passes", discovery.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    discovery._loaded.pop(discovery.GROUP)
    load_passes()
    assert [p.name for p in resolve("@theirs", pipelines())] == ["pass-of-theirs"]

    plugin(package, "\n1 / 0\n", "broken.py")
    discovery._loaded.pop(discovery.GROUP)
    with pytest.raises(QdqcError) as caught:
        load_passes()
    assert f"{package}/broken.py:2: error: can't load passes of 'their_passes'" in str(caught.value)
