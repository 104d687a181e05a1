"""What releases of onnxruntime make of a node that breaks a rule of ``ort-cpu``.

Measured on 1.20.1, 1.21.1, 1.22.1, 1.23.2, 1.31.1 and 1.32.0 (x64) by building the graph and
reading the optimised model back; releases between 1.23 and 1.31 are taken to do as 1.31.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from qdqc.ir.core import Constant
from qdqc.ops import Conv, MatMul
from qdqc.quant.arithmetic import BIAS_LIMIT
from qdqc.quant.targets.rules import Broken

__all__ = ["Outcome", "Release", "outcome"]

Release: TypeAlias = tuple[int, int]
Outcome: TypeAlias = Literal["integer", "float", "wrong", "fails"]
"""``wrong``: it runs in integers and gives other numbers, silently. ``fails``: it does not run."""

_History: TypeAlias = tuple[tuple[Release, Outcome], ...]

_ALWAYS_FLOAT: _History = (((1, 0), "float"),)
_FAILS: _History = (((1, 0), "fails"),)
_SQUARE: _History = (((1, 0), "wrong"),)


def outcome(broken: Broken, release: Release) -> Outcome:
    """How the node runs under a release such as (1, 23)."""
    latest: Outcome = "float"
    for since, then in _history(broken):
        if since <= release:
            latest = then
    return latest


def _history(broken: Broken) -> _History:
    """What it did from which release on, oldest first."""
    if broken.rule == "bias-type":
        return _float_bias(broken)
    if broken.rule == "weight-axis":
        return _SQUARE if _is_square(broken) else _FAILS
    if broken.rule == "gemm-form" and broken.node.at(2) is not None:
        return (((1, 0), "wrong"), ((1, 24), "float"))  # alpha scales the bias as well
    return _HISTORIES.get(broken.rule, _ALWAYS_FLOAT)


_HISTORIES: dict[str, _History] = {
    "bias-scale": (((1, 0), "wrong"), ((1, 24), "float")),
    "gemm-form": (((1, 0), "integer"), ((1, 24), "float")),
    "matmul-bias": (((1, 0), "integer"), ((1, 22), "float")),
    "weight-range": (((1, 0), "integer"),),
    "weight-symmetric": (((1, 0), "fails"), ((1, 24), "integer")),
    "weight-type": (((1, 0), "integer"),),
}


def _float_bias(broken: Broken) -> _History:
    """onnxruntime rounds it to int32 unasked, between casts; one without room is lost."""
    node = broken.node
    fused: Outcome = "wrong" if _overflows(broken) else "integer"
    if node.result.tensor.quant is None and not isinstance(node.op, Conv):
        return (((1, 0), "float"), ((1, 21), fused), ((1, 22), "float"))
    return (((1, 0), "float"), ((1, 21), fused))


def _is_square(broken: Broken) -> bool:
    """Whether scales of the wrong axis are as many as the right ones: nothing tells them apart."""
    node = broken.node
    weight = node.at(1)
    traits = node.traits
    if isinstance(node.op, MatMul) or weight is None or weight.tensor.quant is None:
        return False
    shape = weight.tensor.static_shape
    return shape is not None and shape[traits.axis or 0] == weight.tensor.quant.scale.size


def _overflows(broken: Broken) -> bool:
    """Whether a float bias, divided by s_x * s_w, is beyond int32."""
    node = broken.node
    bias, x, weight = node.at(2), node.need(node.op.operands[0]), node.at(1)
    if not isinstance(bias, Constant) or weight is None or weight.tensor.quant is None:
        return False
    if x.tensor.quant is None or bias.data.is_elided:
        return False
    scale = np.asarray(x.tensor.quant.scale, np.float64) * weight.tensor.quant.scale
    return bool((np.abs(bias.data.array()) / scale >= 2 * BIAS_LIMIT).any())
