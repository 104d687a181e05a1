"""Registries as a set of rules: random definitions against a dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.op import OPS
from qdqc.pipeline.discovery import load_passes
from qdqc.pipeline.pass_ import PASSES, describe
from qdqc.registry import Registry

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
    with pytest.raises(KeyError) as caught:
        registry["quantize"]
    assert caught.value.args == ("unknown thing 'quantize'",)


def test_entries_bear_their_own_names():
    load_passes()
    for registry in (OPS, PASSES):
        assert [cls.name for cls in registry] == registry.names()
        assert len(registry.names()) > 10


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
