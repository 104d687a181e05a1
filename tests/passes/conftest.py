"""Runs a module before and after a pipeline, and holds every name to its numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.dims import Expr
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.verify import verify
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

SIZE = 3
"""What each symbol of an input's shape stands for."""

_RANDOM = re.compile(r"f32\[([\d,]*)\] = random")
_TOLERANCE = 1e-5


@dataclass
class Outcome:
    """The module before and after. ``gone`` and ``kept`` are names of values."""

    before: Module
    after: Module

    @property
    def ops(self) -> list[str]:
        return [n.op.name for n in self.after.graph.nodes()]

    @property
    def names(self) -> list[str]:
        return [n.name for n in self.after.graph.nodes()]

    def node(self, name: str) -> Node[Any]:
        value = self.after.value(name)
        assert value is not None, f"no %{name} in {self.names}"
        assert value.producer is not None
        return value.producer

    def constant(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self.after.constants[name].data.array())


def read(text: str) -> Module:
    """A module from its text, in which ``= random`` stands for random contents."""
    rng = np.random.default_rng(1)

    def fill(match: re.Match[str]) -> str:
        shape = [int(d) for d in match[1].split(",") if d]
        numbers = rng.normal(0, 0.5, shape).astype(np.float32).reshape(-1)
        return f"f32[{match[1]}] = dense[{', '.join(str(x) for x in numbers)}]"

    return parse_module(_RANDOM.sub(fill, text), verify=True)


def make_feeds(module: Module, seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    found: dict[str, npt.NDArray[Any]] = {}
    for value in module.graph.inputs:
        held = value.tensor
        assert held.shape is not None
        shape = [SIZE if isinstance(d, Expr) else d for d in held.shape]
        if held.elem is Elem.BOOL:
            found[value.name] = rng.integers(0, 2, shape).astype(np.bool_)  # type: ignore[arg-type]
        elif held.elem.is_integer:
            found[value.name] = rng.integers(0, 3, shape).astype(held.elem.dtype)
        else:
            found[value.name] = rng.normal(0, 1.5, shape).astype(held.elem.dtype)
    return found


def values_of(module: Module, names: list[str], seed: int) -> Mapping[str, npt.NDArray[Any]]:
    """Outputs and named values of the top graph, constants among them."""
    held = {n: v for n in names if isinstance(v := module.value(n), Constant)}
    taps = [n for n in names if n not in held]
    found = Runner(module, taps, optimise="off", threads=1).run(make_feeds(module, seed))
    return found | {n: np.asarray(c.data.array()) for n, c in held.items()}


def shared_names(before: Module, after: Module) -> list[str]:
    """Names of top-level tensors that both modules have."""

    def is_top(value: Value | None) -> bool:
        if value is None or not isinstance(value.type, TensorType):
            return False
        return isinstance(value, Constant) or value.graph is value.module.graph

    return [n for n in before.value_names() if is_top(before.value(n)) and is_top(after.value(n))]


def check_same(before: Module, after: Module, seeds: int = 2) -> None:
    """Outputs keep names and numbers, and so does every other name that is still there."""
    assert not [d.render() for d in verify(after)]
    assert [v.name for v in after.graph.inputs] == [v.name for v in before.graph.inputs]
    assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
    names = shared_names(before, after)
    for seed in range(seeds):
        expected = values_of(before, names, seed)
        found = values_of(after, names, seed)
        assert expected.keys() == found.keys()
        for name, wanted in expected.items():
            got = found[name]
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
            limit = _TOLERANCE * float(np.abs(wanted.astype(np.float64)).max(initial=0))
            np.testing.assert_allclose(got, wanted, rtol=0, atol=limit, err_msg=name)


def locations(module: Module) -> set[str]:
    return {name for node in module.walk() for name in node.loc.names}


@pytest.fixture
def rewritten() -> Any:
    """Run a pipeline on IR text (or a module), with all numbers compared before and after."""

    def apply(source: str | Module, pipeline: str) -> Outcome:
        before = read(source) if isinstance(source, str) else source
        after = run(before, pipeline)
        check_same(before, after)
        return Outcome(before, after)

    return apply


@pytest.fixture
def same() -> Any:
    return check_same


@pytest.fixture
def all_locations() -> Any:
    return locations
