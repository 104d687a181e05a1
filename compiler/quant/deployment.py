"""The pipeline that deploys a module, as a string that headers keep."""

from __future__ import annotations

from qdqc.ir.spelling import print_value

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
    quant_input: bool = False,
    quant_output: bool = False,
    fuse_preprocess: bool = False,
) -> str:
    """From a module and the file of its calibration table to a lowered module.

    ``qtable`` is a file, too; ``group_size`` weights of 4 bits share a scale. A ``quantized``
    module came in with scales of another tool, and is laid anew; it needs no table.
    ``quant_input`` and ``quant_output`` leave out the casts at the border, ``fuse_preprocess``
    lets images come in as pixels. All float needs no step, but for a ``quantized`` module, which
    keeps what it came in with.
    """
    if mode == "F32" and not qtable and not fuse_preprocess:
        return "lower-to-qdq" if quantized else ""
    chosen = f" qtable={print_value(qtable)}" if qtable else ""
    scheme = " symmetric=true" if symmetric else ""
    held, runs = print_value(table or ""), print_value(target)
    steps = [f"import-calibration{{table={held}}}"] if table else []
    if quantized:
        steps += ["unquantize", "canonicalize", "raise-activation", "fuse-activation"]
    steps += ["propagate-ranges", f"assign-precision{{mode={mode}{chosen}}}"]
    if mode == "INT8" or qtable:
        steps.append(f"decompose-activations{{target={runs}}}")
    if correct_bias and table:
        steps.append(f"correct-bias{{table={held} target={runs}}}")
    if fuse_preprocess:
        steps.append(f"fuse-preprocess{{target={runs}}}")
    steps.append(f"quantize-weights{{group-size={group_size}}}")
    if mode != "INT8" or qtable:
        steps += ["quantize-dynamic", "convert-half"]
    steps.append(f"quantize{{target={runs}{scheme}}}")
    if quant_input or quant_output:
        borders = ("inputs=true" if quant_input else "", "outputs=true" if quant_output else "")
        chosen = " ".join(filter(None, (*borders, f"target={runs}", scheme.strip())))
        steps.append(f"strip-casts{{{chosen}}}")
    return ",".join([*steps, "verify-target", "lower-to-qdq"])
