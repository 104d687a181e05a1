"""The data of the page, against the modules and runs that they stand for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from qdqc.inspection.measure import Figures
from qdqc.ir.graph import Module
from qdqc.report.page.payload import COLUMNS, Inspection, payload
from qdqc.runtime.sessions.session import Runner


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

    from qdqc.inspection.sketch import Sketches

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


def test_every_number_of_a_row_is_that_of_plain_numpy(
    data: dict[str, Any], modules: tuple[Module, Module], hostile: str, samples: Any
) -> None:
    """From the runs of both modules alone, without the code that measures."""
    reference, quantized = modules
    names = [n.name for n in reference.graph.nodes()]
    runs = [Runner(m, names) for m in modules]
    both = [tuple(r.run(s) for r in runs) for s in samples]
    for name in names:
        found = row(data, name)
        exact = np.stack([e[name] for e, _ in both]).astype(np.float64)
        held = np.stack([q[name] for _, q in both]).astype(np.float64)
        assert found["from"] == pytest.approx(exact.min(), rel=1e-3, abs=1e-6)
        assert found["to"] == pytest.approx(exact.max(), rel=1e-3)
        share = np.sum((exact - held) ** 2) / np.sum(exact**2)
        assert found["sqnr"] == pytest.approx(-10 * np.log10(share), rel=2e-3)
        if exact[0].size > 8:
            pairs = zip(exact, held, strict=True)
            near = [np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
            assert found["cos"] == pytest.approx(np.mean(near), abs=2e-6)
        quant = quantized.value(name)
        assert quant is not None
        stored = quant.tensor.quant
        if stored is None:
            assert (found["precision"], found["scale"]) == ("f32", None)
            continue
        scale, zero = float(stored.scale), int(stored.zero_point)
        assert found["scale"] == pytest.approx(scale, rel=1e-3)
        ends = (-zero * scale, (255 - zero) * scale)
        assert (found["low"], found["high"]) == pytest.approx(ends, rel=1e-3, abs=1e-6)
        half = scale / 2
        outside = np.mean((exact < ends[0] - half) | (exact > ends[1] + half))
        assert found["outside"] == pytest.approx(outside, abs=1e-6)


def test_the_outputs_of_the_summary(
    data: dict[str, Any], modules: tuple[Module, Module], samples: Any
) -> None:
    exact, held = ([Runner(m).run(s)["y"] for s in samples] for m in modules)
    ((name, cos, sqnr, agreement),) = data["outputs"]
    assert name == "y"
    pairs = list(zip(exact, held, strict=True))
    a, b = (np.stack(x).astype(np.float64) for x in (exact, held))
    assert sqnr == pytest.approx(-10 * np.log10(np.sum((a - b) ** 2) / np.sum(a**2)), rel=2e-3)
    noise, power = np.sum((a - b) ** 2), np.sum(a**2)
    assert cos == pytest.approx(1 / np.sqrt(1 + noise / power), abs=2e-6)
    same = [np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in pairs]
    assert agreement == pytest.approx(np.mean(same))


def test_the_quantized_histogram_lies_on_codes(
    data: dict[str, Any], modules: tuple[Module, Module], hostile: str, samples: Any
) -> None:
    value = modules[1].value(hostile)
    assert value is not None
    quant = value.tensor.quant
    assert quant is not None
    drawn = np.array(data["detail"][1]["scatter"][1])
    codes = drawn / float(quant.scale) + int(quant.zero_point)
    np.testing.assert_allclose(codes, np.round(codes), atol=0.05)
    assert codes.min() >= -0.05
    assert codes.max() <= 255.05


def test_the_difference_is_that_of_the_modules(data: dict[str, Any], hostile: str) -> None:
    found = data["difference"]
    assert found["before"] == hostile
    assert found["nodes"][0] == 3
    aspects = {c[2]: {a: (b, n) for a, b, n in c[4]} for c in found["changes"]}
    assert aspects[hostile]["precision"] == ("f32", "u8")
    assert aspects[hostile]["weight"][0] == "f32"
    assert aspects[hostile]["weight"][1].startswith("i8, 4 scales ")
    assert all(len(c) == 5 for c in found["changes"])


def test_without_a_difference_or_a_search(inspection: Inspection) -> None:
    from dataclasses import replace

    found = payload(replace(inspection, difference=None, searched={}))
    assert found["difference"] is None
    assert found["searched"] == {}


def test_the_tree_holds_every_row_once(data: dict[str, Any]) -> None:
    def rows(tree: dict[str, Any]) -> list[int]:
        parts = [[m] if isinstance(m, int) else rows(m) for m in tree["members"]]
        return [row for part in parts for row in part]

    assert sorted(rows(data["tree"])) == list(range(len(data["rows"])))
    assert data["columns"] == list(COLUMNS)
    assert all(len(r) == len(COLUMNS) for r in data["rows"])
