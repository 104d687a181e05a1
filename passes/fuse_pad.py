"""fuse-pad: zero padding moves into the window that reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ops import AveragePool, Conv, Pad
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites

__all__ = ["FusePad"]


class FusePad(PatternPass):
    """Fuse a Pad with zeros into the pads of the Conv or AveragePool behind it."""

    name = "fuse-pad"

    @rewrites(Conv)
    def into_conv(self, node: Node[Conv], rw: Rewriter) -> Value | None:
        """conv(pad(x, p), pads = q) = conv(x, pads = p + q)."""
        padded = _pads(node, rw)
        if padded is None:
            return None
        x, pads = padded
        return rw.op(replace(node.op, pads=pads), x, *node.operands[1:])

    @rewrites(AveragePool)
    def into_pool(self, node: Node[AveragePool], rw: Rewriter) -> Value | None:
        """average_pool(pad(x, p)) = average_pool(x, pads = p, padded zeros counted)."""
        op = node.op
        if op.ceil_mode:
            return rw.no("windows past the end count differently with ceil_mode")
        if any(op.pads) and not op.count_include_pad:
            return rw.no("its own padding is not counted, the Pad's is")
        padded = _pads(node, rw)
        if padded is None:
            return None
        x, pads = padded
        if any(p >= k for p, k in zip(pads, op.kernel_shape * 2, strict=True)):
            return rw.no("the padding is as wide as the window, which onnxruntime refuses", x)
        return rw.op(replace(op, pads=pads, count_include_pad=True), x)


def _pads(node: Node[Any], rw: Rewriter) -> tuple[Value, tuple[int, ...]] | None:
    """The value before the Pad and both paddings added up, or None with the reason."""
    padded = node.need("x")
    pad = padded.producer
    if pad is None or not isinstance(pad.op, Pad):
        return rw.no("no Pad before it", padded)
    if not rw.only_use(padded):
        return rw.no("the padded value is read elsewhere too", padded)
    if pad.op.mode != "constant":
        return rw.no(f"the Pad's mode is '{pad.op.mode}'", padded)
    if node.op.auto_pad != "NOTSET":
        return rw.no(f"auto_pad is {node.op.auto_pad}")
    fill = pad.operand("value")
    zero = fill is None or ((filled := rw.array(fill)) is not None and not filled.any())
    if not zero:
        return rw.no("the Pad's value is not zero", fill)
    if pad.operand("axes") is not None:
        return rw.no("the Pad names its axes", padded)
    amounts = rw.array(pad.need("pads"))
    if amounts is None:
        return rw.no("the Pad's amounts are not a known constant", pad.need("pads"))
    numbers = [int(n) for n in amounts]
    rank = len(numbers) // 2
    begin, end = numbers[:rank], numbers[rank:]
    if any((*begin[:2], *end[:2])):
        return rw.no("the Pad reaches batch or channels", padded)
    if min(numbers) < 0:
        return rw.no("the Pad crops", padded)
    own = node.op.pads or (0,) * (2 * (rank - 2))
    added = (a + b for a, b in zip((*begin[2:], *end[2:]), own, strict=True))
    return pad.need("x"), tuple(added)
