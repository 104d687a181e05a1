"""OpenVINO's CPU plugin.

It reads Q/DQ as fake-quantize where integers are used in their full range, moves scales through
the graph by its own low-precision transformations, and adds biases in float. Where integers are
placed is as on ``ort-cpu``, so that the file runs well there, too; weights keep room for the
biases that onnxruntime rounds to int32 unasked.
"""

from __future__ import annotations

from qdqc.ir.types import Elem
from qdqc.quant.targets.ort_cpu import OrtCpu

__all__ = ["Openvino"]

_INTEGER_BIAS = frozenset({"bias-overflow", "bias-scale", "bias-type", "matmul-bias"})


class Openvino(OrtCpu):
    """Biases stay float; all else is as ``ort-cpu``."""

    name = "openvino"
    costs = None
    runtime = "OpenVINO"
    bias = Elem.F32
    dynamic_lstm = False
    rules = OrtCpu.rules - _INTEGER_BIAS | {"bias-float"}
