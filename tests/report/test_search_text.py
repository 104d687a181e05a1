"""What people read of a search, and the cause that it names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from qdqc.calibration.table import Table
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Conv
from qdqc.report.search_text import cause_of, ranking_entries, ranking_lines, render_worst
from qdqc.search.strategies.sensitivity import Judged
from qdqc.search.trials.layers import Layer
from qdqc.search.trials.trials import Loss


def layer(bias: float = 0.0) -> Layer:
    module = Module("m", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (1, 3, 4, 4)))
    weight = module.add_constant("w", Data.of(np.full((2, 3, 1, 1), 1e-9, np.float32)))
    held = module.add_constant("b", Data.of(np.full(2, bias, np.float32)))
    node = module.graph.insert(Conv(), [x, weight, held], None, ["y"])
    return Layer("y", "conv", node, True, (node.result,), (node.result,))


def search(judged: list[Judged], *tables: Table) -> Any:
    by = {f"method{i}": t for i, t in enumerate(tables)}
    return SimpleNamespace(ranking=lambda: judged, tables=by)


def table(threshold: float = 1.0, seen: float = 1.0, means: tuple[float, ...] = ()) -> Table:
    rows = {n: Range(-threshold, threshold, threshold) for n in ("x", "y")}
    observed = dict.fromkeys(("x", "y"), (-seen, seen))
    return Table(rows, observed, channel_means={"x": means} if means else {})


def test_the_ranking_in_words_and_in_json() -> None:
    judged = [Judged(layer(), {"kl": Loss(0.25, 30), "max": Loss(0.5, 4)})]
    assert ranking_lines(judged) == [
        "the layer y is 0 sensitive layer, loss is 0.25, type is top.conv"
    ]
    (entry,) = ranking_entries(search(judged), table(2.0))
    assert entry == {
        "name": "y",
        "op": "conv",
        "loss": 0.25,
        "method": "kl",
        "threshold": 2.0,
        "samples": 30,
    }


def test_a_layer_without_a_row_has_no_threshold() -> None:
    judged = [Judged(layer(), {"kl": Loss(0.25, 30)})]
    (entry,) = ranking_entries(search(judged), Table())
    assert entry["threshold"] is None
    assert "y" in render_worst(search(judged), Table())


def test_outliers_are_named_with_the_value_that_has_them() -> None:
    found = cause_of(layer(), table(), search([], table(1.0, 9.0), table(3.0, 9.0)))
    assert found == "outliers: x reaches 9 times its 99.99 percent; clip it"
    assert cause_of(layer(), table(), search([], table(3.0, 9.0))) == ""


def test_channels_under_one_scale() -> None:
    means = (0.1, 0.1, -5.0)
    held = table(means=means)
    assert "channels of x differ 50 times" in cause_of(layer(), held, search([], held))
    held = table(means=(0.1, 0.1, 0.2))
    assert cause_of(layer(), held, search([], held)) == ""


def test_a_bias_that_coarsens_the_weights() -> None:
    held = table()
    assert "its bias is large" in cause_of(layer(1e4), held, search([], held))
    assert cause_of(layer(1e-6), held, search([], held)) == ""


def test_the_closing_table_lines_up_and_marks_what_stays_float() -> None:
    judged = [Judged(layer(), {"kl": Loss(0.25, 30)}), Judged(layer(1e4), {"kl": Loss(1e-7, 30)})]
    lines = render_worst(search(judged, table()), table(), ["y"]).splitlines()
    assert lines[0].split() == ["loss", "op", "range", "name", "why,", "and", "what", "helps"]
    assert lines[1].split()[:6] == ["2.50e-01", "conv", "-1", "..", "1", "float"]
    assert lines[2].endswith("keep it float")
    assert lines[1].index("y") == lines[2].index("y")


def test_ten_layers_are_enough() -> None:
    judged = [Judged(layer(), {"kl": Loss(0.25, 30)})] * 30
    assert len(render_worst(search(judged), table()).splitlines()) == 11
