"""The data of the page, against the modules and runs that they stand for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from compiler.inspection.measure import Figures
from compiler.ir.graph import Module
from compiler.report.page.payload import COLUMNS, Inspection, payload
from compiler.runtime.session import Runner


@pytest.fixture(scope="module")
def data(inspection: Inspection) -> dict[str, Any]:
    return json.loads(json.dumps(payload(inspection), allow_nan=False))


def row(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = next(r for r in data["rows"] if r[0] == name)
    return dict(zip(COLUMNS, found, strict=True))


def test_rows_are_inputs_and_nodes_in_order(
    data: dict[str, Any], modules: tuple[Module, Module], hostile: str
) -> None:
    names = [r[0] for r in data["rows"]]
    assert names == ["x", *(n.name for n in modules[0].graph.nodes())]
    found = row(data, hostile)
    assert (found["op"], found["precision"], found["runs"]) == ("conv", "u8", "integer")
    assert found["sqnr"] > 30
    assert found["float_us"] > 0
    assert row(data, "x")["op"] == "input"


def test_edges_join_what_is_read_to_its_reader(data: dict[str, Any], hostile: str) -> None:
    names = [r[0] for r in data["rows"]]
    found = {(names[a], names[b]) for a, b in data["edges"]}
    sigmoid = names[2]
    assert found == {("x", hostile), (hostile, sigmoid), (sigmoid, "y"), (hostile, "y")}


def test_pictures_are_of_the_runs(
    data: dict[str, Any], modules: tuple[Module, Module], hostile: str, samples: Any
) -> None:
    runs = [Runner(m, [hostile]) for m in modules]
    exact, found = (np.ravel([r.run(s)[hostile] for s in samples]) for r in runs)
    detail = data["detail"][1]
    low, high, floats, held = detail["histogram"]
    assert low == pytest.approx(exact.min(), abs=1e-3)
    assert high == pytest.approx(exact.max(), rel=1e-2)
    assert sum(floats) == sum(held) == exact.size, "all elements of so small an array are kept"
    assert floats == np.histogram(exact, bins=48, range=(low, high))[0].tolist()
    chosen = np.linspace(0, exact.size - 1, 300).astype(int)
    for drawn, wanted in zip(detail["scatter"], (exact, found), strict=True):
        np.testing.assert_allclose(drawn, wanted[chosen], rtol=1e-3)
    assert detail["thresholds"]["max"] == pytest.approx([exact.min(), exact.max()], rel=1e-3)
    least, most, reach = detail["weights"]
    assert (least, most) == ([0] * 4, [3, 6, 9, 12])
    assert reach == pytest.approx(most, rel=1e-3)
    assert [s[0] for s in detail["steps"]] == ["import-calibration", "assign-precision", "quantize"]


def test_facts_and_passes(data: dict[str, Any]) -> None:
    facts = dict(data["facts"])
    assert facts["products in integers"] == "1 of 1"
    assert facts["samples"] == "3"
    assert "ms float" in facts["latency"]
    assert data["pipeline"][-1] == "quantize"


def test_numbers_that_are_none_and_values_without_extent(
    inspection: Inspection, hostile: str
) -> None:
    from dataclasses import replace

    from compiler.inspection.sketch import Sketches

    sketches = Sketches(1, 1)
    for name, value in ((hostile, 3.0), ("y", 0.0), ("x", 1e-40)):
        sketches.see(name, np.full(9, value), np.full(9, value))
    found = payload(replace(inspection, sketches=sketches))
    json.dumps(found, allow_nan=False)
    for place in (0, 1, 3):
        low, high, floats, _ = found["detail"][place]["histogram"]
        assert low < high
        assert sum(floats) == 9


def test_an_exact_value_sorts_last(inspection: Inspection) -> None:
    pair = inspection.measured.figures[0].pair
    inspection.measured.figures[0] = Figures(pair)
    assert row(payload(inspection), "x")["sqnr"] == 200
