"""What quantization did to weights: stored weights compared with the float ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.inspection.pairs import Pair
from qdqc.ir.core import Constant, Node
from qdqc.ir.types import TensorType
from qdqc.quant.arithmetic import dequantize, numbers, quantize, weight_quant

__all__ = ["WeightFigures", "weight_figures"]

Floats = npt.NDArray[np.float64]

_ORDER_TOLERANCE = 0.05
"""How far, relatively, sorted scales may lie from the sorted ones that the weights ask for."""


@dataclass(frozen=True)
class WeightFigures:
    """A weight's error, and its channels.

    ``noise`` is ``sum (w - w_stored)^2 / sum w^2``; ``attainable`` is the same for symmetric
    scales from each channel's largest magnitude in the weight's own type. ``low``, ``high``
    are the float weights' extremes per channel, ``reach`` the largest magnitude that the stored
    type can say there. ``permuted`` says that the scales are right, but stand at other channels.
    """

    noise: float
    attainable: float
    low: Floats
    high: Floats
    reach: Floats
    permuted: bool

    @property
    def avoidable(self) -> float:
        """Noise over signal that better scales would not have."""
        return max(0.0, self.noise - self.attainable)


def weight_figures(pair: Pair) -> WeightFigures | None:
    """Figures of the weight that makes a value; None where it has none that is quantized.

    The float node must be of the same op, with a weight of the same shape.
    """
    stored, exact = _weight(pair.node), _weight(pair.reference.producer)
    if stored is None or exact is None or stored.tensor.quant is None:
        return None
    if stored.data.is_elided or exact.data.is_elided or stored.data.shape != exact.data.shape:
        return None
    w = numbers(exact).astype(np.float64)
    axis = _axis(pair.node)
    signal = float(np.sum(w**2)) or 1.0
    rounded, ideal = numbers(stored).astype(np.float64), _attainable(w, stored.tensor, axis)
    low, high = _extremes(w, axis)
    reach = _reach(stored.tensor, low.size)
    return WeightFigures(
        noise=float(np.sum((w - rounded) ** 2)) / signal,
        attainable=float(np.sum((w - ideal) ** 2)) / signal,
        low=low,
        high=high,
        reach=reach,
        permuted=_is_permuted(reach, np.maximum(-low, high)),
    )


def _weight(node: Node[Any] | None) -> Constant | None:
    """The constant weight of a product."""
    if node is None:
        return None
    weight = node.at(node.traits.weight)
    return weight if isinstance(weight, Constant) else None


def _axis(node: Node[Any] | None) -> int | None:
    return None if node is None else node.traits.axis


def _attainable(w: Floats, stored: TensorType, axis: int | None) -> npt.NDArray[Any]:
    quant = stored.quant
    if quant is None or quant.block is not None or stored.elem.bits < 8:
        return w
    chosen = axis if quant.axis is not None else None
    best = weight_quant(w, chosen, stored.elem.limits[1])
    return dequantize(quantize(w, best, stored.elem, narrow=True), best)


def _extremes(w: Floats, axis: int | None) -> tuple[Floats, Floats]:
    channels = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1) if axis is not None else w[None]
    flat = channels.reshape(channels.shape[0], -1)
    return flat.min(axis=1, initial=0.0), flat.max(axis=1, initial=0.0)


def _reach(stored: TensorType, channels: int) -> Floats:
    """The largest stored magnitude per channel; empty where scales are not by channels."""
    quant = stored.quant
    if quant is None or quant.block is not None or quant.scale.size not in (1, channels):
        return np.zeros(0)
    scale = np.broadcast_to(quant.scale.reshape(-1), (channels,))
    return scale.astype(np.float64) * stored.elem.limits[1]


def _is_permuted(reach: Floats, wanted: Floats) -> bool:
    """Whether reaches fit the channels' magnitudes once both are sorted, but not as they stand."""
    if reach.size < 2 or reach.size != wanted.size:
        return False

    def near(a: Floats, b: Floats) -> bool:
        return bool(np.mean(np.abs(a - b) <= _ORDER_TOLERANCE * b) > 0.9)

    return near(np.sort(reach), np.sort(wanted)) and not near(reach, wanted)
