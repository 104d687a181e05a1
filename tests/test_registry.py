"""Registries as a set of rules: random definitions against a dictionary."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.calibration.methods.method import METHODS
from qdqc.diagnostics import QdqcError
from qdqc.ir.op import OPS
from qdqc.pipeline.discovery import load_passes
from qdqc.pipeline.pass_ import PASSES, describe
from qdqc.quant.targets.target import TARGETS
from qdqc.registry import Registry
from qdqc.tuning.recipe import RECIPES

names = st.sampled_from(["conv", "convert", "relu", "clip"])
homes = st.sampled_from(["ours", "plugin"])


def make(name: str, home: str) -> type:
    return type(name, (), {"__module__": home})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(names, homes), max_size=8))
def test_the_first_home_of_a_name_keeps_it(steps: list[tuple[str, str]]):
    registry: Registry[type] = Registry("thing")
    expected: dict[str, type] = {}
    for name, home in steps:
        cls = make(name, home)
        held = expected.get(name)
        if held is not None and held.__module__ != home:
            with pytest.raises(ValueError, match=f"thing '{name}' is defined twice"):
                registry.add(name, cls)
        else:
            registry.add(name, cls)
            expected[name] = cls
        assert registry.names() == sorted(expected)
        assert [c.__name__ for c in registry] == sorted(expected)
        assert all(registry[n] is c and registry.get(n) is c for n, c in expected.items())


@given(st.lists(names, unique=True), st.lists(names, unique=True))
def test_scratches_nest(outer: list[str], inner: list[str]):
    registry: Registry[type] = Registry("thing")
    with registry.scratch():
        for name in outer:
            registry.add(name, make(name, "ours"))
        with registry.scratch():
            for name in inner:
                registry.add(name, make(name, "ours"))
            assert registry.names() == sorted({*outer, *inner})
        assert registry.names() == sorted(outer)
    assert registry.names() == []


def test_replacing_in_a_scratch_is_undone():
    registry: Registry[type] = Registry("thing")
    first, second = make("a", "ours"), make("a", "ours")
    registry.add("a", first)
    with registry.scratch():
        registry.add("a", second)
        assert registry["a"] is second
    assert registry["a"] is first


def test_an_unknown_name_that_is_like_nothing_is_named_alone():
    registry: Registry[type] = Registry("thing")
    registry.add("relu", make("relu", "ours"))
    with pytest.raises(QdqcError) as caught:
        registry["quantize"]
    assert str(caught.value) == "error: unknown thing 'quantize'\nnote: known: relu"


@pytest.mark.parametrize(
    ("registry", "least"), [(OPS, 100), (PASSES, 30), (TARGETS, 3), (METHODS, 9), (RECIPES, 3)]
)
def test_entries_bear_their_own_names(registry: Registry[Any], least: int):
    load_passes()
    assert [entry.name for entry in registry] == registry.names()
    assert len(registry.names()) >= least


def test_instances_are_known_by_their_classes():
    registry: Registry[object] = Registry("thing")
    registry.add("a", make("a", "ours")())
    again = make("a", "ours")()
    registry.add("a", again)
    assert registry["a"] is again
    with pytest.raises(ValueError, match=r"twice: by ours\.a and by theirs\.a"):
        registry.add("a", make("a", "theirs")())


HOME = """
from tests_home import THINGS
class Built:
    name = {name!r}
THINGS.add({name!r}, Built)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[type]]:
    """A registry whose package of built-in entries has two files, neither of them imported."""
    folder = tmp_path / "tests_home"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from qdqc.registry import Registry\nTHINGS = Registry('thing', home='tests_home')\n"
    )
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(HOME.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("tests_home").THINGS
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests_home"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "ask",
    [
        lambda things: things.names(),
        lambda things: [cls.name for cls in things],
        lambda things: [things[n].name for n in ("one", "two")],
        lambda things: [things.get(n).name for n in ("one", "two")],
    ],
)
def test_the_files_of_its_home_are_imported_before_anything_is_looked_up(
    home: Registry[type], ask: Callable[[Registry[type]], list[str]]
):
    assert "tests_home.one" not in sys.modules
    assert ask(home) == ["one", "two"]


def test_a_built_in_entry_keeps_its_name_before_it_is_imported(home: Registry[type]):
    with pytest.raises(ValueError, match=r"'two' is defined twice: by tests_home\.two\.Built and"):
        home.add("two", make("two", "plugin"))


def test_built_in_entries_outlive_a_scratch(home: Registry[type]):
    with home.scratch():
        home.add("three", make("three", "plugin"))
        assert home.names() == ["one", "three", "two"]
    assert home.names() == ["one", "two"]


def test_every_pass_describes_itself_in_one_line():
    load_passes()
    for cls in PASSES:
        line = describe(cls)
        assert line.endswith(".")
        assert "\n" not in line
        assert len(line) < 100


def test_a_name_is_taken_by_meaning_not_by_case():
    assert OPS.get("relu") is not None
    assert OPS.get("Relu") is None
