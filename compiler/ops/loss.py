"""Losses of classifiers: a training graph may end in one."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import need_elem, need_rank, same_elem

__all__ = ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]


class _Loss(Op):
    """A loss of scores [N, C, d...] at labels [N, d...], with a weight for each class.

    ``reduction`` gives one number, or with ``none`` one for each label; labels that are
    ``ignore_index`` count as nothing.
    """

    ignore_index: int | None = None
    reduction: Literal["none", "sum", "mean"] = "mean"

    def _loss(
        self, scores: TensorType, labels: TensorType, weight: TensorType | None
    ) -> TensorType:
        same_elem(scores=scores, weight=weight)
        need_elem(labels, "labels", Elem.I32, Elem.I64)
        if scores.shape is not None:
            if len(scores.shape) < 2:
                raise ValueError("scores need rank 2 or more: batch and classes")
            need_rank(labels, "labels", len(scores.shape) - 1)
        if weight is not None:
            need_rank(weight, "weight", 1)
        if self.reduction != "none":
            return TensorType(scores.elem, ())
        dims: tuple[Dim, ...] | None = labels.shape
        if dims is None and scores.shape is not None:
            dims = (scores.shape[0], *scores.shape[2:])
        return TensorType(scores.elem, dims)


class NegativeLogLikelihoodLoss(_Loss):
    """-x at each label, where x are logarithms of probabilities."""

    name = "negative_log_likelihood_loss"
    operands = ("x", "labels", "weight?")
    onnx = Onnx("NegativeLogLikelihoodLoss", since=12)

    def infer(
        self, x: TensorType, labels: TensorType, weight: TensorType | None = None
    ) -> tuple[TensorType]:
        return (self._loss(x, labels, weight),)


class SoftmaxCrossEntropyLoss(_Loss):
    """-log(softmax(x)) at each label; the logarithms are a second result."""

    name = "softmax_cross_entropy_loss"
    operands = ("x", "labels", "weight?")
    results = ("y", "log_prob?")
    onnx = Onnx("SoftmaxCrossEntropyLoss", since=12)

    def infer(
        self, x: TensorType, labels: TensorType, weight: TensorType | None = None
    ) -> tuple[TensorType, TensorType]:
        return (self._loss(x, labels, weight), TensorType(x.elem, x.shape))
