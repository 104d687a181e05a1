"""What a run is reckoned to take, and how taps are shared out under a limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.calibration.demand import Demand, largest, parts_within, sizes_of
from qdqc.calibration.observed import Plan
from qdqc.calibration.statistics import Detail
from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType

MB = 10**6


class Opaque(Op):
    """Stands for any op; it is not registered."""


def demand(*, own: bool = False) -> Demand:
    return Demand(50 * MB, 80 * MB, Detail.EXTREMES, own_processes=own)


def plan_of(names: tuple[str, ...]) -> Plan:
    return Plan(names, {}, ("ids",), names[:1])


def test_what_is_reckoned() -> None:
    # 5 percent and 16 MiB of slack; 8 bytes an element and holder, 4096 bytes of statistics.
    statistics = 5 * 4096
    expected = (80 * MB + 8 * MB + statistics) / 0.95 + (16 << 20)
    assert demand().total([MB], 1) == pytest.approx(expected, abs=1)
    expected = (50 * MB + 2 * 80 * MB + 2 * 8 * MB + 6 * 4096) / 0.95 + (16 << 20)
    assert demand(own=True).total([MB], 2) == pytest.approx(expected, abs=1)


@given(st.lists(st.integers(0, 20 * MB), min_size=1, max_size=12), st.integers(120, 600))
def test_parts_hold_each_tap_once_in_order_within_the_limit(sizes: list[int], limit: int) -> None:
    names = tuple(f"v{i}" for i in range(len(sizes)))
    held = dict(zip(names, sizes, strict=True))
    needed = max(demand().total([s], 1) for s in sizes)
    if needed > limit * MB:
        with pytest.raises(QdqcError, match=f"takes {-(-needed // MB)}MB"):
            parts_within(limit * MB, plan_of(names), held, demand(), 1)
        return
    parts = parts_within(limit * MB, plan_of(names), held, demand(), 1)
    assert tuple(n for p in parts for n in p.names) == names
    assert [p.integers for p in parts] == [("ids",), *[()] * (len(parts) - 1)]
    assert [p.channels for p in parts] == [names[:1], *[()] * (len(parts) - 1)]
    for part in parts:
        assert demand().total([held[n] for n in part.names], 1) <= limit * MB


def test_sizes_follow_from_a_sample() -> None:
    module = Module()
    n = symbol("n")
    x = module.graph.add_input("x", TensorType(Elem.F32, (n, 3)))
    types = [TensorType(Elem.F32, s) for s in ((n * n, 2), (None, 5), ())]
    node = module.graph.insert(Opaque(), [x], types, ["a", "b", "c"])
    unknown = module.graph.insert(Opaque(), [x], [TensorType(Elem.F32, None)], ["d"])
    module.graph.set_outputs([node.present_results[0], unknown.result])
    sample = {"x": np.zeros((4, 3), np.float32)}
    found = sizes_of(module.graph, ["x", "a", "b", "c", "d"], sample)
    assert found == {"x": 12, "a": 32, "b": 32, "c": 1, "d": 32}


def test_the_largest_sample() -> None:
    samples = [{"x": np.zeros(n)} for n in (3, 9, 2)]
    assert largest(samples) is samples[1]
    assert largest([]) == {}
