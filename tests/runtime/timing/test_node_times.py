"""Times by value; how long they are is nobody's business here."""

from __future__ import annotations

from typing import Any

from qdqc.ir.graph import Module
from qdqc.runtime.timing.node_times import node_times


def test_kernels_are_found_by_the_values_that_they_make(
    tiny: Module, quantized: Module, lowered: Module, samples: list[dict[str, Any]]
) -> None:
    exact = node_times(tiny, samples[0])
    assert set(exact) - {"c2"} == {"r1", "r2", "c3", "p", "f", "y"}
    for module in (quantized, lowered):
        found = node_times(module, samples[0])
        assert {"r1", "r2", "y"} <= set(found)
        assert all(seconds >= 0 for seconds in found.values())
        assert all(module.value(name) is not None for name in found)
