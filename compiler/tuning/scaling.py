"""Channels of a value scaled in what makes it: exact changes of constants upstream.

``value * f`` for positive factors f by channel is made by other constants where everything from
there to the value is homogeneous: f goes through Relu, pools and moves of elements up to a
normalization, a product with a weight or a multiplication by a constant, and into that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.dims import Dim
from qdqc.ops import (
    AveragePool,
    Conv,
    Flatten,
    Gemm,
    GlobalAveragePool,
    GlobalMaxPool,
    Identity,
    LayerNormalization,
    LeakyRelu,
    MatMul,
    MaxPool,
    Mul,
    PRelu,
    Relu,
    Reshape,
    RMSNormalization,
    Transpose,
)

__all__ = ["Edit", "Factors", "Scaling", "apply", "scaled_name", "scaled_upstream"]

_SUFFIX = "_scaled"

Factors: TypeAlias = npt.NDArray[np.float64]
"""Positive, of the rank of the value, with 1 along axes where they do not vary."""


@dataclass(frozen=True)
class Edit:
    """An operand that becomes another constant, and what it is called."""

    node: Node[Any]
    index: int
    array: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """How a value is scaled: ``edits`` of constants, and ``values`` whose numbers change."""

    edits: tuple[Edit, ...]
    values: tuple[Value, ...] = ()


def scaled_upstream(
    value: Value, factors: Factors, readers: Collection[Node[Any]]
) -> Scaling | str:
    """What makes ``value * factors`` of a value that these nodes alone read.

    Where nothing does it says why.
    """
    producer = value.producer
    others = [u for u in value.users if u not in readers]
    if others:
        return f"{value} is read elsewhere too, by {others[0].op.name} %{others[0].name}"
    if value.is_output:
        return f"{value} is an output"
    if producer is None:
        return f"{value} is an input"
    if any(producer.results[1:]):
        return f"{producer.op.name} gives more than {value}"
    rule = _RULES.get(type(producer.op))
    if rule is None:
        return f"a factor does not go through {producer.op.name}"
    scaling = rule(producer, factors)
    return scaling if isinstance(scaling, str) else Scaling(scaling.edits, (*scaling.values, value))


def apply(scaling: Scaling) -> None:
    """Let the nodes read new constants; a value that has other numbers has another name."""
    for edit in scaling.edits:
        constant, module = edit.node.operands[edit.index], edit.node.graph.module
        assert constant is not None
        data = Data.of(np.asarray(edit.array, np.float32))
        edit.node.set_operand(edit.index, module.add_constant(scaled_name(constant), data))
    for value in scaling.values:
        if not value.name.endswith(_SUFFIX):
            value.rename(scaled_name(value))
        value.type = value.tensor.with_range(None)


def scaled_name(value: Value) -> str:
    """A free name for the value with other numbers."""
    return value.module.fresh_name(f"{value.name}{_SUFFIX}")


def _array(value: Value | None) -> npt.NDArray[np.float64] | None:
    """The numbers of a float constant whose data is not elided."""
    if not isinstance(value, Constant) or value.data.is_elided or value.tensor.quant is not None:
        return None
    array = value.data.array()
    return array.astype(np.float64) if array.dtype == np.float32 else None


def _through(node: Node[Any], factors: Factors) -> Scaling | str:
    """f(x) * s = f(x * s) for s > 0, channel by channel."""
    return scaled_upstream(node.need("x"), factors, [node])


def _through_pool(node: Node[Any], factors: Factors) -> Scaling | str:
    if any(size != 1 for i, size in enumerate(factors.shape) if i != 1):
        return f"the factors vary inside of the windows of {node.op.name}"
    return _through(node, factors)


def _through_slope(node: Node[Any], factors: Factors) -> Scaling | str:
    """prelu(x * s) = prelu(x) * s; the slopes stand."""
    return _through(node, factors)


def _through_transpose(node: Node[Transpose], factors: Factors) -> Scaling | str:
    perm = node.op.perm or tuple(reversed(range(factors.ndim)))
    return _through(node, factors.transpose(np.argsort(perm)))


def _through_reshape(node: Node[Any], factors: Factors) -> Scaling | str:
    """The axes along which factors vary must be the same elements behind the others."""
    before, after = node.need("x").tensor.shape, node.result.tensor.shape
    varying = [i for i, size in enumerate(factors.shape) if size != 1]
    if before is None or after is None or not varying:
        return f"the shapes around {node.op.name} are not known"
    inner = factors.shape[varying[0] :]
    if inner != after[varying[0] :]:
        return f"{node.op.name} mixes channels with other axes"
    shape = _grouped(before, math.prod(inner))
    if shape is None:
        return f"{node.op.name} mixes channels with other axes"
    return _through(node, factors.reshape(shape))


def _grouped(shape: tuple[Dim, ...], size: int) -> tuple[int, ...] | None:
    """The last axes, whose sizes multiply to that, behind ones; None where none do."""
    kept: list[int] = []
    for dim in reversed(shape):
        if math.prod(kept) == size:
            break
        if not isinstance(dim, int):
            return None
        kept.append(dim)
    if math.prod(kept) != size:
        return None
    return (1,) * (len(shape) - len(kept)) + tuple(reversed(kept))


def _into_normalization(node: Node[Any], factors: Factors) -> Scaling | str:
    """gain * f, bias * f: what is normalized does not see it."""
    return _into_constants(node, factors, (1, 2))


def _into_mul(node: Node[Mul], factors: Factors) -> Scaling | str:
    for index in (0, 1):
        if _array(node.operands[index]) is not None:
            return _into_constants(node, factors, (index,))
    return "a product of two values has no constant to scale"


def _into_constants(node: Node[Any], factors: Factors, places: tuple[int, ...]) -> Scaling | str:
    clamp = node.op.clamp
    if clamp is not None and not _is_homogeneous(clamp):
        return f"{node.op.name} has the bounds {list(clamp)}"
    rank = factors.ndim
    edits: list[Edit] = []
    for index in places:
        value = node.at(index)
        if value is None:
            continue
        array = _array(value)
        if array is None:
            return f"{value} is not a float constant with data"
        if array.ndim > rank:
            return f"{value} has more axes than what it scales"
        lead = (1,) * (rank - array.ndim)
        made = array.reshape(lead + array.shape) * factors
        while made.ndim > max(1, array.ndim) and made.shape[0] == 1:
            made = made[0]
        edits.append(Edit(node, index, made))
    return Scaling(tuple(edits))


def _into_product(node: Node[Any], factors: Factors) -> Scaling | str:
    """Rows of the weight, and the bias, times the factor of their output channel."""
    traits = node.traits
    if traits.weight is None:
        return _into_values(node, factors)
    clamp = node.op.clamp
    if clamp is not None and not _is_homogeneous(clamp):
        return f"{node.op.name} has the bounds {list(clamp)}"
    axis = 1 if isinstance(node.op, Conv) else factors.ndim - 1
    if any(size != 1 for i, size in enumerate(factors.shape) if i != axis):
        return f"the factors vary within a channel of {node.op.name}"
    weight = _array(node.at(traits.weight))
    if weight is None or traits.axis is None:
        return f"the weight of {node.op.name} is not a float constant with data"
    by_channel = np.broadcast_to(factors.reshape(-1), (weight.shape[traits.axis],))
    shape = [-1 if i == traits.axis else 1 for i in range(weight.ndim)]
    edits = [Edit(node, traits.weight, weight * by_channel.reshape(shape))]
    place = traits.bias if traits.bias is not None else traits.float_bias
    bias = node.at(place)
    if bias is not None and place is not None:
        bias_array = _array(bias)
        if bias_array is None:
            return f"the bias of {node.op.name} is not a float constant with data"
        edits.append(Edit(node, place, bias_array * by_channel))
    return Scaling(tuple(edits))


def _into_values(node: Node[MatMul], factors: Factors) -> Scaling | str:
    """(a @ b) * f = a @ (b * f) where f is the same for all rows: into the values of attention."""
    b = node.need("b")
    if node.operand("bias") is not None or node.op.clamp is not None:
        return "a product of two values has a bias or a bound"
    if factors.ndim < 2 or factors.shape[-2] != 1 or b.tensor.rank != factors.ndim:
        return "the factors vary from row to row of a product"
    return scaled_upstream(b, factors, [node])


def _is_homogeneous(clamp: tuple[float, float]) -> bool:
    return all(bound == 0 or math.isinf(bound) for bound in clamp)


_RULES: dict[type[Any], Callable[[Node[Any], Factors], Scaling | str]] = {
    **dict.fromkeys((Relu, LeakyRelu, Identity), _through),
    **dict.fromkeys((MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool), _through_pool),
    **dict.fromkeys((Reshape, Flatten), _through_reshape),
    PRelu: _through_slope,
    Transpose: _through_transpose,
    **dict.fromkeys((LayerNormalization, RMSNormalization), _into_normalization),
    Mul: _into_mul,
    **dict.fromkeys((Conv, Gemm, MatMul), _into_product),
}
