"""What people read of a search: its log, the worst layers with the likely cause, the front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qdqc.calibration.table import Table
from qdqc.diagnostics import joined
from qdqc.ir.core import Constant, Node
from qdqc.search.strategies.sensitivity import Judged, Sensitivity
from qdqc.search.strategies.strategy import Search
from qdqc.search.trials.layers import Layer

__all__ = [
    "cause_of",
    "ranking_entries",
    "ranking_lines",
    "render_front",
    "render_worst",
    "search_entries",
    "search_log",
]

_OUTLIERS = 4.0
"""Largest magnitude over the threshold of 99.99 percent from which outliers make a range."""
_SPREAD = 30.0
"""Largest channel mean over the median one from which one scale serves channels badly."""
_COARSE = 64.0
"""Steps of the result below which a weight channel of a product is all rounding."""
_SHOWN = 10


def ranking_lines(ranking: Sequence[Judged]) -> list[str]:
    """The ranking as TPU-MLIR's log has it, the worst layer first."""
    return [
        f"the layer {j.layer.name} is {place} sensitive layer, loss is {j.loss!r}, "
        f"type is top.{j.layer.op}"
        for place, j in enumerate(ranking)
    ]


def ranking_entries(search: Sensitivity, table: Table) -> list[dict[str, Any]]:
    """The ranking as ``--report`` has it: name, op, loss, method, threshold, samples."""
    return [
        {
            "name": j.layer.name,
            "op": j.layer.op,
            "loss": j.loss,
            "method": j.method,
            "threshold": row.threshold if (row := table.rows.get(j.layer.name)) else None,
            "samples": j.samples,
        }
        for j in search.ranking()
    ]


def search_log(search: Search, model: str, qtable: str, seconds: float) -> list[str]:
    """The lines of TPU-MLIR's log; none for a search that ranked no layers."""
    if search.sensitivity is None:
        return []
    return [
        f"quantize_method_list ={list(search.sensitivity.tables)}",
        f"run float mode: {model}",
        f"run int8 mode: {model}",
        f"all_int8_cos={search.int8!r}",
        f"all search layer number: {len(search.trials.layers.integer)}",
        *ranking_lines(search.sensitivity.ranking()),
        f"set_fp_layer_list = {search.floats}",
        ">>>run result:",
        f"int8 outputs_cos:{search.int8:.6f} old",
        f"mix model outputs_cos:{search.result.score:.6f}",
        f"Output mix quantization table to {qtable}",
        f"total time:{seconds:.3f}",
    ]


def search_entries(search: Search) -> dict[str, Any]:
    """A search as ``--report`` has it: scores, float layers, ranking and front."""
    entries: dict[str, Any] = {
        "int8_cos": search.int8,
        "mix_cos": search.result.score,
        "float_layers": search.floats,
    }
    if search.sensitivity is not None:
        entries["ranking"] = ranking_entries(search.sensitivity, search.table)
    else:
        entries["ranking"] = _loss_entries(search)
    if search.points:
        entries["front"] = [
            {
                "float_layers": sorted(p.floats),
                "score": p.score,
                "predicted_ms": 1000 * p.predicted,
                "measured_ms": 1000 * p.seconds,
            }
            for p in search.points
        ]
    return entries


def _loss_entries(search: Search) -> list[dict[str, Any]]:
    """Layers by the strategy's own measure, with what the given table says of them."""
    ops = {layer.name: layer.op for layer in search.trials.layers.integer}
    rows, method = search.table.rows, search.table.header.get("method", "given")
    return [
        {
            "name": name,
            "op": ops.get(name, ""),
            "loss": loss,
            "method": method,
            "threshold": rows[name].threshold if name in rows else None,
        }
        for name, loss in sorted(search.losses.items(), key=lambda row: -row[1])
    ]


def render_front(search: Search) -> str:
    """The models of a front, the fastest first, and which of them is taken."""
    lines = ["predicted  measured     score  float layers"]
    for point in search.points:
        mark = "  chosen" if point.floats == search.result.floats else ""
        lines.append(
            f"{1000 * point.predicted:6.2f} ms {1000 * point.seconds:6.2f} ms  "
            f"{point.score:.6f}  {len(point.floats)}{mark}"
        )
    return joined(lines)


def render_worst(search: Sensitivity, table: Table, floats: Iterable[str] = ()) -> str:
    """The ten worst layers: loss, op, range, whether they stay float, cause and remedy."""
    chosen = set(floats)
    rows = [("loss", "op", "range", "", "name", "why, and what helps")]
    for ranked in search.ranking()[:_SHOWN]:
        row = table.rows.get(ranked.layer.name)
        ends = f"{row.min:.4g} .. {row.max:.4g}" if row else ""
        mark = "float" if ranked.layer.name in chosen else ""
        loss, why = f"{ranked.loss:.2e}", cause_of(ranked.layer, table, search)
        rows.append((loss, ranked.layer.op, ends, mark, ranked.layer.name, why))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=False)) for r in rows]
    return joined(f"{line}  {r[5]}".rstrip() for line, r in zip(lines, rows, strict=True))


def cause_of(layer: Layer, table: Table, search: Sensitivity) -> str:
    """The likely cause of a layer's loss, and a remedy; empty where nothing stands out."""
    if layer.node is None:
        return ""
    values = [v for v in layer.node.present_operands if not isinstance(v, Constant)]
    for value in (*values, *layer.ranged):
        ratio = _outliers(value.name, search)
        if ratio >= _OUTLIERS:
            return f"outliers: {value.name} reaches {ratio:.0f} times its 99.99 percent; clip it"
    for value in (*values, *layer.values):
        spread = _spread(table.channel_means.get(value.name, ()))
        if spread >= _SPREAD:
            return (
                f"channels of {value.name} differ {spread:.0f} times under one scale; equalize them"
            )
    if _bias_rules(layer.node, table):
        return "its bias is large beside s_x * s_w and coarsens the weights; keep it float"
    return ""


def _outliers(name: str, search: Sensitivity) -> float:
    """Observed magnitude over the narrowest threshold that a method gave."""
    thresholds = [t.rows[name].threshold for t in search.tables.values() if name in t.rows]
    seen = [t.observed[name] for t in search.tables.values() if name in t.observed]
    if not thresholds or not seen or min(thresholds) <= 0:
        return 0.0
    low, high = seen[0]
    return max(-low, high) / min(thresholds)


def _spread(means: Sequence[float]) -> float:
    sizes = np.abs(np.asarray(means, np.float64))
    middle = float(np.median(sizes)) if sizes.size else 0.0
    return float(sizes.max()) / middle if middle > 0 else 0.0


def _bias_rules(node: Node[Any], table: Table) -> bool:
    """Whether the bias lifts the scale of a weight channel, so that it has few steps left."""
    from qdqc.quant.arithmetic import bias_floor, numbers

    traits = node.traits
    weight, bias, x = node.at(traits.weight), node.at(traits.bias), node.at(0)
    row = table.rows.get(x.name) if x is not None else None
    if not isinstance(weight, Constant) or not isinstance(bias, Constant) or row is None:
        return False
    array = np.abs(numbers(weight))
    others = tuple(i for i in range(array.ndim) if i != traits.axis)
    floor = bias_floor(numbers(bias), max(row.threshold / 127, 1e-30))
    largest = array.max(axis=others, initial=0.0)
    return bool((floor[largest > 0] * _COARSE > largest[largest > 0]).any())
