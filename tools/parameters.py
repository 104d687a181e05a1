"""Parameters of the library as the options of the commands.

The library's messages name a parameter as ```table```; people at a terminal know it as an option.
"""

from __future__ import annotations

import re

__all__ = ["OPTIONS", "as_options"]

_SAME = (
    "batch_size",
    "bind",
    "cache",
    "channel_format",
    "data_list",
    "dataset",
    "expected_cos",
    "global_compare_layers",
    "inference_num",
    "input_shapes",
    "keep_samples",
    "labels",
    "mask",
    "max_bad",
    "mean",
    "memory_limit",
    "metric",
    "no_cache",
    "output_names",
    "percentile",
    "pixel_format",
    "plot",
    "post_process",
    "preprocess_list",
    "quantized",
    "recipe",
    "reference",
    "resize_dims",
    "samples",
    "scale",
    "skip_validation",
    "target",
    "test_input",
    "text",
    "tune_num",
    "workers",
)

OPTIONS: dict[str, str] = {name: f"--{name}" for name in _SAME} | {
    "histogram_bins": "--histogram_bin_num",
    "method": "--cali_method",
    "mode": "--quantize",
    "qtable": "--quantize_table",
    "table": "--calibration_table",
}
"""The option that stands for each parameter."""

_PARAMETER = re.compile(r"`([a-z_]+)`")


def as_options(text: str) -> str:
    """A message with its parameters spelled as options."""
    return _PARAMETER.sub(lambda match: OPTIONS.get(match[1], match[0]), text)
