"""The search on small networks, with times that a table gives: no clock decides a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from search_nets import Net, samples_of, table_of

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.ops import Add
from qdqc.quant.deployment import INT8
from qdqc.search.auto import mode_search
from qdqc.search.auto.candidate import Candidate, Weights
from qdqc.search.auto.goal import BALANCED, Goal, Latency, Near
from qdqc.search.auto.judge import Judge
from qdqc.search.auto.mode_search import ModeSearch
from qdqc.search.costs.mode_times import ModeTimes
from qdqc.search.trials.mixed_models import MixedModels

DEPLOYMENT = replace(INT8, leave_float=False)
Times = Mapping[str, tuple[float, float]]
"""Seconds of nodes in float and in integers."""


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Times], None]:
    """Lets a table say what nodes take: a model takes the sum of its nodes."""

    def use(times: Times) -> None:
        def measured(*_: Any) -> ModeTimes:
            nodes = {"F32": {n: t[0] for n, t in times.items()}}
            nodes["INT8"] = {n: t[1] for n, t in times.items()}
            return ModeTimes(nodes, {}, {}, 3)

        def whole(module: Module) -> float:
            """A lowered module tells which nodes are integer by the weights that it stores."""
            stored = [c.name for c in module.constants.values() if c.elem is Elem.I8]
            integer = {n for n in times if any(c.startswith(f"{n}.w") for c in stored)}
            return sum(t[n in integer] for n, t in times.items())

        def seconds(modules: Mapping[str, Module], *rest: Any) -> dict[str, float]:
            return {name: whole(module) for name, module in modules.items()}

        def same(modules: Mapping[str, Module], *rest: Any) -> dict[str, dict[str, float]]:
            return {name: {} for name in modules}

        run = Judge._run

        def judged(self: Judge, module: Module) -> tuple[Any, float]:
            return run(self, module)[0], whole(module)

        monkeypatch.setattr(mode_search, "measure_times", measured)
        monkeypatch.setattr(mode_search, "seconds_of", seconds)
        monkeypatch.setattr(mode_search, "layer_times", same)
        monkeypatch.setattr(Judge, "_run", judged)

    return use


def search_of(module: Module, goal: Goal = BALANCED, **more: Any) -> ModeSearch:
    samples = samples_of(module, 8)
    tables = {"max": table_of(module, samples), "half": table_of(module, samples, 0.5)}
    weights = Weights(MixedModels(module, DEPLOYMENT), tables)
    judge = Judge(module, [v.name for v in module.graph.outputs], samples_of(module, 4, seed=11))
    given: dict[str, Any] = {"recipes": (), "goal": goal, "budget": 1e6, **more}
    return ModeSearch(weights, judge, samples, lambda recipe, method: weights, **given)


def plain() -> Module:
    """Convolutions a, b, c and y, with a sum of two of them."""
    net = Net(1, 4, 8, 8)
    a = net.conv("a", net.x, 8)
    c = net.conv("c", net.conv("b", a, 8, 1), 8)
    return net.returns(net.conv("y", net.op("s", Add(), c, a), 4))


FAST = dict.fromkeys("abcy", (3.0, 1.0))
"""All products are three times as fast in integers."""


def test_all_is_integer_where_integers_are_fast_and_near(timed: Callable[[Times], None]) -> None:
    timed(FAST)
    best = search_of(plain()).run()
    assert best.modes == {}
    assert best.method == "max"  # half of each range is lost with the other


def test_a_node_that_integers_slow_down_leaves_them(timed: Callable[[Times], None]) -> None:
    timed({**FAST, "a": (1.0, 5.0)})
    search = search_of(plain())
    best = search.run()
    assert best.modes == {"a": "F32"}
    assert "1000000 us in F32, and 5000000 us in INT8" in search.reasons(best)["a"]


def test_nothing_is_quantized_where_integers_never_pay(timed: Callable[[Times], None]) -> None:
    timed(dict.fromkeys("abcy", (1.0, 2.0)))
    assert search_of(plain()).run().is_float


def wide() -> Module:
    """A first product whose values span decades: most are nothing at the step of its largest."""
    net = Net(1, 4, 8, 8, seed=4)
    a = net.conv("a", net.x, 8, 1)
    weight = net.module.value("a.w")
    assert weight is not None
    array = weight.data.array().copy()
    array[0] *= 3000.0
    weight.data = Data.of(array)
    b = net.conv("b", a, 8, 1)
    other = net.module.value("b.w")
    assert other is not None
    array = other.data.array().copy()
    array[:, 0] /= 3000.0 * 50
    other.data = Data.of(array)
    return net.returns(net.conv("y", net.conv("c", b, 8), 4))


def test_a_node_whose_rounding_is_the_noise_stays_float_and_the_reason_says_so(
    timed: Callable[[Times], None],
) -> None:
    timed(dict.fromkeys("abcy", (3.0, 1.0)))
    module = wide()
    search = search_of(module)
    best = search.run()
    int8 = next(c for c in search.tried if not c.modes and c.method == best.method)
    assert best.modes.get("a") == "F32" or best.modes.get("b") == "F32"
    assert "c" not in best.modes
    assert best.quality.sqnr > int8.quality.sqnr + 10
    told = " ".join(search.reasons(best).values())
    assert "% of the noise of INT8" in told
    assert "% of its values lie below one step" in told


def test_a_stated_goal_decides(timed: Callable[[Times], None]) -> None:
    timed(dict.fromkeys("abcy", (3.0, 1.0)))
    module = wide()
    near = search_of(module, Near(60.0)).run()
    assert near.is_float or near.quality.sure >= 60.0
    quick = search_of(module, Latency(4.0)).run()
    assert quick.seconds <= 4.0
    assert quick.modes == {}


def test_predicted_noise_is_near_to_what_models_have(timed: Callable[[Times], None]) -> None:
    timed(dict.fromkeys("abcy", (3.0, 1.0)))
    search = search_of(wide(), Latency(100.0))
    search.run()
    assert search.costs is not None
    for candidate in search.tried:
        if candidate.method == "max" and not candidate.is_float:
            said = -10 * np.log10(search.costs.noise(candidate.modes))
            assert abs(said - candidate.quality.sqnr) < 6.0, candidate.modes


def test_an_interrupt_leaves_the_best_model_so_far(timed: Callable[[Times], None]) -> None:
    timed(FAST)

    def stage(name: str, unit: str) -> Callable[[int, int, str], object]:
        def report(done: int, total: int, note: str) -> None:
            if done >= 2:
                raise KeyboardInterrupt

        return report

    search = search_of(plain(), stage=stage)
    best = search.run()
    assert search.stopped
    assert isinstance(best, Candidate)
    assert best in search.tried


def test_without_any_model_an_interrupt_is_one(timed: Callable[[Times], None]) -> None:
    timed(FAST)
    search = search_of(plain())

    def stop(module: Module) -> Any:
        raise KeyboardInterrupt

    search.judge.judged = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        search.run()


def test_modes_that_cannot_be_timed_leave_the_whole_models(
    timed: Callable[[Times], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(FAST)

    def refuse(*given: Any) -> ModeTimes:
        raise QdqcError("no profile")

    monkeypatch.setattr(mode_search, "measure_times", refuse)
    notes: list[str] = []
    best = search_of(plain(), note=notes.append).run()
    assert best.modes == {}
    assert "no profile" in notes[0]
