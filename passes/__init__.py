"""The passes of qdqc, one a file, and the named pipelines that are made of them."""

PIPELINES = {
    "transform": (
        "infer-shapes,fold-shapes,fold-constants,canonicalize,fold-shapes,"
        "eliminate-common-subexpressions,fuse-pad,fuse-batchnorm,fuse-activation,"
        "canonicalize,eliminate-dead-code"
    ),
    "int8": "assign-precision,quantize,lower-to-qdq",
}
"""Pipeline strings by name: ``@transform`` is what model_transform runs."""
