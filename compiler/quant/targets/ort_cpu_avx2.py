"""onnxruntime's CPU execution provider on x64 without VNNI.

Its kernels add pairs of u8 * s8 products in int16, which saturates silently at full range.
Weights of 7 bits cannot: ``2 * 255 * 63 = 32130`` is below ``2^15``. All else is as ``ort-cpu``.
"""

from __future__ import annotations

from qdqc.quant.targets.ort_cpu import OrtCpu

__all__ = ["OrtCpuAvx2"]


class OrtCpuAvx2(OrtCpu):
    """Weights of 7 bits; all else is as ``ort-cpu``."""

    name = "ort-cpu-avx2"
    weight_limit = 63
    costs = None
