"""Names what made a quantized model wrong, the likeliest cause first.

What concerns the whole run (samples that do not belong to this model, ranges of other data) comes
before single nodes. Nodes are judged by noise that they need not have: that of their range beside
the range their values have, that of their weights beside scales computed anew, and what their own
error holds beyond both. So a guilty node comes before those that read what it spoilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qdqc.inspection.inputs import Summary, input_doubts
from qdqc.inspection.measure import Figures, Measured
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.runtime.comparison.compare import decibels

__all__ = ["Cause", "causes"]

_NOTABLE = 0.01
"""Avoidable noise over signal (20 dB) from which a node counts as a cause. Healthy nodes of
EfficientNet-Lite0, MiniLM and the digits network lie below 0.0015, planted faults above 0.03.
"""

_UNEXPLAINED = 0.03
"""Local noise over signal (15 dB) from which a node counts that nothing else explains."""

_WIDESPREAD = 0.5
"""The share of ranges that do not fit from which the fault is that of the calibration."""


@dataclass(frozen=True)
class Cause:
    """What is wrong, where (the name of a value; empty for the whole model), and what to do.

    ``weight`` orders causes: the noise over signal that it brings.
    """

    kind: str
    name: str
    text: str
    advice: str
    weight: float = 1.0


def causes(
    measured: Measured,
    quantized: Module,
    reference: Module,
    tested: Summary | None = None,
) -> list[Cause]:
    """Causes in the order in which to look at them; empty where nothing is notable.

    ``tested`` are values of a run that is known to be right, such as that of the original model.
    """
    figures = measured.figures
    doubts = [
        Cause("preprocessing", d.name, d.text, d.advice)
        for d in input_doubts(figures, quantized, reference, tested)
    ]
    ranges = [f for f in figures if f.covered is not None]
    wrong = [f for f in ranges if f.avoidable > _NOTABLE]
    calibration = _calibration(ranges, wrong)
    owners = [f for f in wrong if _owner(f, wrong) is None]
    single = [] if calibration else [_range_cause(f, wrong) for f in owners]
    single += [_weight_cause(f) for f in figures if f.weights and f.weights.avoidable > _NOTABLE]
    explained = {c.name for c in single}
    if not calibration:  # wrong ranges spoil biases and scales of weights too
        single += [
            _local_cause(f) for f in figures if _is_unexplained(f) and f.name not in explained
        ]
    return [*doubts, *calibration, *sorted(single, key=lambda c: -c.weight)]


def _calibration(ranges: Sequence[Figures], wrong: Sequence[Figures]) -> list[Cause]:
    """The wrong range of an input, or wrong ranges everywhere, come from other data.

    Clamps hold many ranges of a network in place whatever it is calibrated on: the input decides.
    """
    inputs = [f for f in wrong if f.pair.node is None]
    if not inputs and len(wrong) < max(2, _WIDESPREAD * len(ranges)):
        return []
    first = (inputs or wrong)[0]
    text = (
        f"the ranges do not fit these samples: {_range_text(first)}; "
        f"{len(wrong)} of {len(ranges)} ranges are wrong"
    )
    advice = (
        "calibration saw other data or another preprocessing (mean and scale swapped?): run "
        "run_calibration again on data like these samples"
    )
    return [Cause("calibration", first.name, text, advice)]


def _range_text(f: Figures) -> str:
    assert f.covered is not None
    low, high = f.covered
    beyond = f"{f.outside:.1%} of its values lie outside" if f.outside > 0 else "far too wide"
    return (
        f"{f.op} '{f.name}' covers {low:.4g} to {high:.4g}, its values reach {f.low:.4g} "
        f"to {f.high:.4g} ({beyond})"
    )


def _owner(f: Figures, among: Sequence[Figures]) -> Figures | None:
    """The value whose range this one shares, as a Reshape does with what it reads."""
    node = f.pair.node
    if node is None or node.traits.kind is not Kind.PRESERVING:
        return None
    source = node.at(0)
    return next((o for o in among if o.pair.value is source and o.covered == f.covered), None)


def _range_cause(f: Figures, among: Sequence[Figures]) -> Cause:
    sharing = [o.name for o in among if _owner(o, among) is f]
    shared_by = f" (shared by {', '.join(sharing)})" if sharing else ""
    text = (
        f"{_range_text(f)}: rounding leaves {decibels(f.rounding):.1f} dB, "
        f"{decibels(f.attainable):.1f} dB are possible{shared_by}"
    )
    advice = f"look at the row '{f.name}' of the calibration table, or calibrate again"
    kind = "saturation" if f.outside > 0 else "range"
    return Cause(kind, f.name, text, advice, f.avoidable)


def _weight_cause(f: Figures) -> Cause:
    assert f.weights is not None
    how = "the scales stand at other channels" if f.weights.permuted else "the scales do not fit"
    text = (
        f"the weight of {f.op} '{f.name}' is not that of the float model: {how} "
        f"({decibels(f.weights.noise):.1f} dB, {decibels(f.weights.attainable):.1f} dB are "
        "possible)"
    )
    return Cause("weight", f.name, text, "deploy the model again", f.weights.avoidable)


def _is_unexplained(f: Figures) -> bool:
    weights = f.weights.noise if f.weights is not None else 0.0
    return f.local > _UNEXPLAINED and f.local > 10 * (f.rounding + weights)


def _local_cause(f: Figures) -> Cause:
    text = (
        f"{f.op} '{f.name}' errs by itself ({decibels(f.local):.1f} dB on float inputs), and "
        "neither its range nor its weight says why"
    )
    advice = "look at its bias and attributes in both models, or keep it in float by a qtable"
    return Cause("node", f.name, text, advice, f.local)
