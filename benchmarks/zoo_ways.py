"""Quantizes one network of the zoo in one way, as a process of its own; prints seconds as JSON.

python benchmarks/zoo_ways.py NETWORK WAY FOLDER
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from ort_quantizer import quantized
from zoo_cases import Case, cases

__all__ = ["WAYS", "main"]

_OPSET = 13
"""From it on onnxruntime's quantizer writes a scale per channel."""


def _own(case: Case, model: Path, out: Path, mode: str) -> dict[str, Any]:
    import qdqc

    bind = dict(case.bind) or None
    made = qdqc.quantize(model, case.calibration(), mode=mode, bind=bind)
    onnx.save(made.model, str(out))
    plan = made.report.plan
    if plan is None:
        return {}
    chosen = plan.chosen
    ways = [chosen.label, chosen.method, chosen.weights.recipe]
    modes = [f"{count} {mode}" for mode, count in chosen.counts().items()]
    return {"chosen": ", ".join(filter(None, [*ways, *modes]))}


def _static(case: Case, model: Path, out: Path) -> dict[str, Any]:
    ready = _prepared(model, out.with_suffix(".prepared.onnx"))
    quantized(ready, out, ({**sample, **case.bind} for sample in case.calibration()))
    return {}


def _dynamic(_case: Case, model: Path, out: Path) -> dict[str, Any]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ready = _prepared(model, out.with_suffix(".prepared.onnx"))
    quantize_dynamic(ready, out, weight_type=QuantType.QUInt8, per_channel=False)
    return {}


def _prepared(model: Path, out: Path) -> Path:
    """Raised to an opset that holds scales per channel, and pre-processed, as far as these go."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = onnx.load(str(model))
    version = next(o.version for o in proto.opset_import if not o.domain)
    if version < _OPSET:
        proto = onnx.version_converter.convert_version(proto, _OPSET)
    onnx.save(proto, str(out))
    try:
        quant_pre_process(out, out, skip_symbolic_shape=True)
    except Exception as error:  # it is the peer's: what it can't prepare it may yet quantize
        print(f"not prepared: {type(error).__name__}", file=sys.stderr)
    return out


WAYS: dict[str, Callable[[Case, Path, Path], dict[str, Any]]] = {
    "AUTO": lambda case, model, out: _own(case, model, out, "auto"),
    "INT8": lambda case, model, out: _own(case, model, out, "int8"),
    "DYN8": lambda case, model, out: _own(case, model, out, "dyn8"),
    "ort static": _static,
    "ort dynamic": _dynamic,
}


def main(argv: list[str]) -> int:
    """Write ``FOLDER/WAY.onnx`` from ``FOLDER/float.onnx``."""
    logging.disable(logging.WARNING)
    name, way, folder = argv[0], argv[1], Path(argv[2])
    case = cases()[name]
    start = time.process_time()
    told = WAYS[way](case, folder / "float.onnx", folder / f"{way}.onnx")
    print(json.dumps({"seconds": time.process_time() - start, **told}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
