"""The casts by which float nodes read integers."""

from __future__ import annotations

from qdqc.ir.core import Node, Value
from qdqc.ops import Conv, ConvTranspose, Gemm

__all__ = ["scale_axis"]


def scale_axis(user: object, value: Value) -> int | None:
    """The axis along which a float product's cast writes its scale once per channel.

    onnxruntime quantizes the weights of a float Conv or Gemm that stands between casts, without
    a word; it does so only where the cast before it has one single scale.
    """
    shape = value.tensor.shape
    is_product = isinstance(user, Node) and isinstance(user.op, Conv | ConvTranspose | Gemm)
    if is_product and shape is not None and len(shape) > 1 and isinstance(shape[1], int):
        return 1
    return None
