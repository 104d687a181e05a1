"""fuse-batchnorm: a BatchNormalization disappears in the convolution before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Node, Value
from qdqc.ir.op import Kind
from qdqc.ir.types import Array
from qdqc.ops import BatchNormalization, Conv, ConvTranspose
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites

__all__ = ["FuseBatchnorm"]


class FuseBatchnorm(PatternPass):
    """Fold BatchNormalization into the weight and bias of the convolution before it.

    With s = gamma / sqrt(var + epsilon): W' = W * s per output channel and
    b' = (b - mean) * s + beta.
    """

    name = "fuse-batchnorm"

    @rewrites(BatchNormalization)
    def into_conv(self, node: Node[BatchNormalization], rw: Rewriter) -> Value | None:
        """batch_normalization(conv(x, W, b)) = conv(x, W', b')."""
        x = node.need("x")
        conv = x.producer
        if conv is None or not isinstance(conv.op, Conv | ConvTranspose):
            return rw.no("its operand is not a convolution", x)
        if not rw.only_use(x):
            return rw.no("the convolution is read elsewhere too", x)
        if conv.op.clamp is not None:
            return rw.no("an activation stands between", x)
        if isinstance(conv.op, ConvTranspose) and conv.op.group != 1:
            return rw.no("a grouped transposed convolution", x)
        weight = rw.array(conv.need("weight"))
        if weight is None:
            return rw.no("the weight is not a known constant", conv.need("weight"))
        bias = conv.operand("bias")
        offsets = None if bias is None else rw.array(bias)
        if bias is not None and offsets is None:
            return rw.no("the bias is not a known constant", bias)
        numbers = [rw.array(node.need(n)) for n in ("scale", "bias", "mean", "var")]
        if any(a is None for a in numbers):
            return rw.no("its parameters are not known constants")
        gamma, beta, mean, var = (a.astype(np.float64) for a in numbers if a is not None)
        start = np.zeros_like(mean) if offsets is None else offsets.astype(np.float64)
        with np.errstate(all="ignore"):
            factor = gamma / np.sqrt(var + node.op.epsilon)
            shift = (start - mean) * factor + beta
            scaled = _scaled(weight, factor, conv)
        if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
            return rw.no("its parameters are no finite numbers, or its variance is negative")
        name = conv.need("weight").name
        made = rw.constant(scaled, f"{name}_bn")
        made_bias = rw.constant(shift.astype(weight.dtype), f"{node.name}_bias")
        return rw.op(conv.op, conv.need("x"), made, made_bias)


def _scaled(weight: Array, factor: npt.NDArray[np.float64], conv: Node[Any]) -> Array:
    """The weight times one factor per output channel."""
    traits = conv.traits
    assert traits.kind is Kind.WEIGHTED
    shape = [1] * weight.ndim
    shape[traits.axis or 0] = -1
    return (weight.astype(np.float64) * factor.reshape(shape)).astype(weight.dtype)
