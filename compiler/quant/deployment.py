"""The pipeline that deploys a module, as a string that headers keep."""

from __future__ import annotations

from compiler.ir.spelling import print_value

__all__ = ["deployment_pipeline"]


def deployment_pipeline(
    table: str | None,
    *,
    target: str = "ort-cpu",
    mode: str = "INT8",
    qtable: str | None = None,
    symmetric: bool = False,
    correct_bias: bool = True,
    quantized: bool = False,
    group_size: int = 32,
) -> str:
    """From a module and the file of its calibration table to a lowered module.

    ``qtable`` is a file, too; ``group_size`` weights of 4 bits share a scale. A ``quantized``
    module came in with scales of another tool, and is laid anew; it needs no table.
    """
    chosen = f" qtable={print_value(qtable)}" if qtable else ""
    scheme = " symmetric=true" if symmetric else ""
    held, runs = print_value(table or ""), print_value(target)
    steps = [f"import-calibration{{table={held}}}"] if table else []
    if quantized:
        steps += ["unquantize", "canonicalize", "raise-activation", "fuse-activation"]
    steps += ["propagate-ranges", f"assign-precision{{mode={mode}{chosen}}}"]
    if correct_bias and table:
        steps.append(f"correct-bias{{table={held} target={runs}}}")
    if mode != "INT8" or qtable:
        steps += [f"quantize-weights{{group-size={group_size}}}", "quantize-dynamic"]
    steps.append(f"quantize{{target={runs}{scheme}}}")
    return ",".join([*steps, "verify-target", "lower-to-qdq"])
