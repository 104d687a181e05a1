"""What detectors do with their boxes."""

from __future__ import annotations

from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import need_rank

__all__ = ["NonMaxSuppression"]


class NonMaxSuppression(Op):
    """Boxes of high score that overlap no better one: rows of image, class and box.

    boxes are [N, count, 4], scores [N, classes, count]. ``center_point_box`` is 0 for corners
    [y1, x1, y2, x2] and 1 for [x, y, width, height].
    """

    name = "non_max_suppression"
    operands = ("boxes", "scores", "most_per_class?", "iou_threshold?", "score_threshold?")
    onnx = Onnx("NonMaxSuppression", since=10)

    center_point_box: int = 0

    def infer(
        self,
        boxes: TensorType,
        scores: TensorType,
        most_per_class: TensorType | None = None,
        iou_threshold: TensorType | None = None,
        score_threshold: TensorType | None = None,
    ) -> tuple[TensorType]:
        need_rank(boxes, "boxes", 3)
        need_rank(scores, "scores", 3)
        return (TensorType(Elem.I64, (None, 3)),)
