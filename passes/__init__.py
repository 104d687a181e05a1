"""The built-in passes, one a file, named as the file; and the pipelines made of them."""

from __future__ import annotations

__all__ = ["PIPELINES"]

_TRANSFORM = (
    "infer-shapes",
    "widen-halves",
    "fold-shapes",
    "fold-constants",
    "inline-control",
    "fold-shapes",  # a branch knows more where it stands now
    "fold-constants",
    "canonicalize",
    "spread-axes",
    "simplify-logic",
    "simplify-arithmetic",
    "simplify-slices",
    "decompose-einsum",
    "simplify-layout",
    "eliminate-common-subexpressions",
    "eliminate-dead-code",  # fusions want single readers: dead ones are in the way
    "raise-activation",
    "raise-normalization",
    "move-transposes",  # a normalization over the last axis is found in its own layout
    "simplify-reductions",  # a mean over pixels may belong to a normalization
    "fuse-pad",
    "fold-linear",  # a bias that is written as a sum would keep a normalization away
    "fuse-batchnorm",
    "fold-linear",
    "fuse-activation",
    "canonicalize",
    "move-casts",
    "simplify-layout",
    "import-qdq",
    "eliminate-dead-code",
    "infer-shapes",
)
_INT8 = ("propagate-ranges", "assign-precision", "quantize", "verify-target", "lower-to-qdq")

PIPELINES: dict[str, str] = {
    "transform": ",".join(_TRANSFORM),
    "int8": ",".join(_INT8),
}
"""What ``@name`` stands for in a pipeline string. ``@int8`` wants calibrated ranges."""
