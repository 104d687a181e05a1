"""model_deploy: a calibrated module becomes a deployed ONNX model, proven to run in integers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError
from compiler.pipeline.instrument import Instrument
from tools.arguments import check_samples, names, tolerance
from tools.command import CommandParser, Invocation, execute
from tools.ir_options import add_ir_options, make_passes, pass_manager
from tools.progress import Progress

if TYPE_CHECKING:
    from compiler.ir.graph import Module
    from compiler.pipeline.instrument import Where
    from compiler.pipeline.pass_ import PassContext
    from compiler.quant.placement import Decision

__all__ = ["main"]

_CHECKED_SAMPLES = 4
_TOLERANCES = {
    "INT8": (0.90, 0.80),
    "DYN8": (0.90, 0.80),
    "W8": (0.99, 0.90),
    "W4": (0.90, 0.70),
    "F32": (0.99, 0.99),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _deploy, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_deploy",
        "Quantize a module for a target, write it as QDQ ONNX, and prove what runs in integers.",
        "model_deploy --mlir net.qir --calibration_table net.cali_table --model net_int8.onnx",
    )
    add = parser.add_argument
    add("--mlir", required=True, metavar="F.qir", help="the module that model_transform wrote")
    add(
        "--quantize",
        default="INT8",
        type=str.upper,
        choices=tuple(_TOLERANCES),
        help="precision of all nodes that the qtable does not name",
    )
    add(
        "--target",
        "--chip",
        "--processor",
        default="ort-cpu",
        metavar="NAME",
        help="what the model runs on",
    )
    add("--calibration_table", metavar="F", help="ranges; needed for INT8")
    add("--quantize_table", metavar="F", help="a qtable: precision of single nodes")
    add(
        "--q_group_size", type=int, default=32, metavar="N", help="weights that share a scale in W4"
    )
    scheme = parser.add_mutually_exclusive_group()
    scheme.add_argument(
        "--asymmetric",
        dest="symmetric",
        action="store_false",
        default=False,
        help="free zero points, min and max as ranges (the default)",
    )
    scheme.add_argument(
        "--symmetric", action="store_true", help="fixed zero points, thresholds as ranges"
    )
    add(
        "--correct-bias",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let biases take up the mean error of the rounded weights",
    )
    add("--model", metavar="F.onnx", help="output (default: {name}_int8.onnx beside the module)")
    check = parser.add_argument_group("check against the float module").add_argument
    check("--test_input", metavar="F", help="image, npz, npy or folder (default: random inputs)")
    check(
        "--tolerance",
        type=tolerance,
        metavar="COS,EUCLID",
        help="least similarity of outputs (default: by mode, such as 0.90,0.80 for INT8)",
    )
    check("--excepts", type=names, default=[], metavar="A,B", help="outputs that are not compared")
    check("--compare_all", action="store_true", help="compare every value, not only outputs")
    add_ir_options(parser)
    return parser


class _PlacementLog(Instrument):
    """Notes what the placement says of every node, just before the module is quantized."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        from compiler.quant.placement import decide
        from compiler.quant.targets.known import target_named

        target = getattr(where.pass_, "target", None)
        if where.pass_.name == "quantize" and isinstance(target, str):
            found = decide(module.graph, target_named(target))
            self.decisions = {node.name: decision for node, decision in found.items()}


def _deploy(invocation: Invocation) -> int:
    from compiler.files import refuse_inputs, refuse_unwritable
    from compiler.ir.clone import clone
    from compiler.quant.lowering import has_quantized_activations, lower
    from compiler.text.files import load

    args = invocation.args
    _refuse_arguments(args)
    source = Path(args.mlir)
    module = load(source)
    quantized = has_quantized_activations(module)
    if args.quantize == "INT8" and not args.calibration_table and not quantized:
        raise QdqcError(
            "INT8 needs --calibration_table, as the module has no ranges of its own",
            notes=["run_calibration makes one: run_calibration net.qir --dataset DIR -o TABLE"],
        )
    default = source.with_name(f"{source.stem}_{args.quantize.lower()}.onnx")
    output = Path(args.model) if args.model else default
    if output.suffix != ".onnx":
        raise QdqcError(f"the output '{output}' must end in .onnx", notes=["give --model F.onnx"])
    lowered = output.with_suffix(".qir")
    outputs = [output, lowered, lowered.with_suffix(".safetensors")]
    inputs = [source, source.with_suffix(".safetensors")]
    refuse_inputs(outputs, [*inputs, *filter(None, (args.calibration_table, args.quantize_table))])
    refuse_unwritable(outputs)
    reference = clone(module)
    lower(reference)  # where the module is quantized already
    log = _PlacementLog()
    manager = pass_manager(make_passes(_pipeline(args, quantized), args.plugin), invocation)
    manager.instruments.append(log)
    manager.run(module)
    passed = _check(module, reference, invocation)
    if not passed:
        lowered = output.with_suffix(".rejected.qir")
        output = output.with_name(output.name + ".rejected")
        invocation.tell(f"the check failed: the model is kept as {output}")
    _write(module, reference, log, output, lowered, invocation)
    return EXIT_OK if passed else EXIT_INPUT


def _refuse_arguments(args: Any) -> None:
    """What can be told before anything is read."""
    from compiler.quant.targets.known import target_named

    target_named(args.target)
    if args.quantize == "F32" and args.quantize_table:
        raise QdqcError(
            "--quantize F32 leaves nothing for a qtable to decide",
            notes=["leave out --quantize_table, or deploy with --quantize INT8"],
        )


def _pipeline(args: Any, quantized: bool) -> str:
    """The pipeline string of the deployment, as the module's header keeps it.

    A module that is ``quantized`` already has its ranges in its types; a table adds those of
    values that are float in it.
    """
    from compiler.quant.deployment import deployment_pipeline

    if args.quantize == "F32":
        return "lower-to-qdq" if quantized else ""
    return deployment_pipeline(
        args.calibration_table,
        target=args.target,
        mode=args.quantize,
        qtable=args.quantize_table,
        group_size=args.q_group_size,
        symmetric=args.symmetric,
        correct_bias=args.correct_bias,
        quantized=quantized,
    )


def _check(module: Module, reference: Module, invocation: Invocation) -> bool:
    """Run the lowered module against the float one; figures go into the report.

    Returns whether the model may be deployed. Random inputs are no data of the user's: on them a
    failed comparison is only a warning.
    """
    from compiler.report.comparison import render_comparison
    from compiler.runtime.check import check_against

    args = invocation.args
    observed = _observed(args.calibration_table)
    samples, source = check_samples(reference, args.test_input, _CHECKED_SAMPLES, observed)
    limits = args.tolerance or _TOLERANCES[args.quantize]
    progress = Progress("check", shown=invocation.verbosity >= 0)
    comparison, _ = check_against(
        module,
        reference,
        progress.track(samples, len(samples)),
        limits,
        args.excepts,
        every_value=args.compare_all,
    )
    outputs = {v.name for v in module.graph.outputs}
    invocation.report["source"] = source
    invocation.report["outputs"] = {
        r.name: {"cos": r.cos, "euclid": r.euclid, "sqnr": _json_number(r.sqnr)}
        for r in comparison.rows
        if r.name in outputs
    }
    text = render_comparison(comparison, every=True)
    invocation.tell(f"deployed against float on {source} inputs:\n{text}")
    if comparison.passed or source != "random":
        return comparison.passed
    invocation.warn(
        "the outputs differ from float beyond the tolerance on random inputs, which says little: "
        "--test_input F judges by real data"
    )
    return True


def _observed(table: str | None) -> dict[str, tuple[float, float]]:
    """Extremes of the inputs that calibration saw."""
    from compiler.calibration.table import load_table

    return load_table(table).observed if table else {}


def _json_number(value: float) -> float | None:
    """JSON has no infinity: an exact result has no SQNR."""
    return value if math.isfinite(value) else None


def _write(
    module: Module,
    reference: Module,
    log: _PlacementLog,
    output: Path,
    lowered: Path,
    invocation: Invocation,
) -> None:
    from compiler.onnx_io.exporter import export_onnx
    from compiler.onnx_io.saver import save_onnx
    from compiler.report.audit import audit_entries, render_audit
    from compiler.runtime.audit import audit
    from compiler.text.files import save

    save(module, lowered)
    try:
        save_onnx(module, output)  # last: where it stands, all of it is there
    except QdqcError:
        for path in (lowered, lowered.with_suffix(".safetensors")):
            path.unlink(missing_ok=True)
        raise
    found = audit(module, log.decisions, output)
    invocation.report["audit"] = audit_entries(found)
    sizes = {"float": export_onnx(reference).ByteSize(), "deployed": output.stat().st_size}
    invocation.report["bytes"] = sizes
    invocation.tell(render_audit(found))
    invocation.tell(
        f"wrote {output}: {sizes['deployed']:,} bytes, float {sizes['float']:,}; IR in {lowered}"
    )
    for row in found.findings:
        invocation.warn(f"'{row.name}' ({row.op}) runs in {row.runs}: {row.reason}")


if __name__ == "__main__":
    raise SystemExit(main())
