"""model_deploy: a calibrated module becomes a deployed ONNX model, proven to run in integers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError
from qdqc.tools.arguments import check_samples
from qdqc.tools.command import Invocation, execute
from qdqc.tools.deploy_options import deploy_parser, refuse_options
from qdqc.tools.ir_options import make_passes, pass_manager
from qdqc.tools.progress import Progress

if TYPE_CHECKING:
    from qdqc.ir.graph import Module
    from qdqc.quant.record import Record

__all__ = ["main"]

_CHECKED_SAMPLES = 4


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(deploy_parser(), _deploy, argv)


@dataclass
class _Deployment:
    """A run of the command: the module on its way out, and the float one it is held against."""

    invocation: Invocation
    target: str
    module: Module
    reference: Module
    record: Record
    samples: Any
    source: str

    def typed(self) -> Module:
        """The module before its casts were spelt out."""
        return self.record.typed or self.module


def _deploy(invocation: Invocation) -> int:
    from qdqc.flow.deploy import fitting_target
    from qdqc.ir.clone import clone
    from qdqc.quant.lowering import has_quantized_activations, lower
    from qdqc.quant.record import Record
    from qdqc.report.why import node_named
    from qdqc.text.qir_files import load

    args = invocation.args
    refuse_options(args)
    source = Path(args.mlir)
    module = load(source)
    quantized = has_quantized_activations(module)
    if args.quantize == "INT8" and not args.calibration_table and not quantized:
        raise QdqcError(
            "INT8 needs --calibration_table, as the module has no ranges of its own",
            notes=["run_calibration makes one: run_calibration net.qir --dataset DIR -o TABLE"],
        )
    output = _output(args, source)
    target = fitting_target(args.target, invocation.warn)
    reference, record = clone(module), Record()
    lower(reference)  # where the module is quantized already
    observed = _observed(args.calibration_table)
    samples, origin = check_samples(reference, args.test_input, _CHECKED_SAMPLES, observed)
    passes = make_passes(_pipeline(args, target, quantized), args.plugin)
    manager = pass_manager(passes, invocation)
    manager.instruments.append(record)
    manager.run(module)
    run = _Deployment(invocation, target, module, reference, record, samples, origin)
    if args.why:
        node_named(run.typed(), args.why)  # a wrong name is told before anything is written
    passed = _check(run)
    lowered = output.with_suffix(".qir")
    if not passed:
        lowered = output.with_suffix(".rejected.qir")
        output = output.with_name(output.name + ".rejected")
        invocation.tell(f"the check failed: the model is kept as {output}")
    _write(module, output, lowered)
    _prove(run, output, lowered)
    if args.benchmark:
        _benchmark(run, output)
    return EXIT_OK if passed else EXIT_INPUT


def _output(args: Any, source: Path) -> Path:
    """The file to write. Raises QdqcError where it can't be, or would be one of the inputs."""
    from qdqc.files import refuse_inputs, refuse_unwritable

    default = source.with_name(f"{source.stem}_{args.quantize.lower()}.onnx")
    output = Path(args.model) if args.model else default
    if output.suffix != ".onnx":
        raise QdqcError(f"the output '{output}' must end in .onnx", notes=["give --model F.onnx"])
    lowered = output.with_suffix(".qir")
    outputs = [output, lowered, lowered.with_suffix(".safetensors")]
    inputs = [source, source.with_suffix(".safetensors")]
    refuse_inputs(outputs, [*inputs, *filter(None, (args.calibration_table, args.quantize_table))])
    refuse_unwritable(outputs)
    return output


def _pipeline(args: Any, target: str, quantized: bool) -> str:
    """The pipeline string of the deployment, as the module's header keeps it.

    A module that is ``quantized`` already has its ranges in its types; a table adds those of
    values that are float in it.
    """
    from qdqc.quant.deployment import deployment_pipeline

    return deployment_pipeline(
        args.calibration_table,
        target=target,
        mode=args.quantize,
        qtable=args.quantize_table,
        group_size=args.q_group_size,
        symmetric=args.symmetric,
        correct_bias=args.correct_bias,
        quantized=quantized,
        quant_input=args.quant_input,
        quant_output=args.quant_output,
        fuse_preprocess=args.fuse_preprocess,
    )


def _check(run: _Deployment) -> bool:
    """Run the lowered module against the float one; figures go into the report.

    Returns whether the model may be deployed. Random inputs are no data of the user's: on them a
    failed comparison is only a warning.
    """
    from qdqc.quant.qtable import TOLERANCES
    from qdqc.report.comparison_text import render_comparison, similarity_entries
    from qdqc.runtime.comparison.check import check_against

    invocation, args = run.invocation, run.invocation.args
    progress = Progress("check", shown=invocation.verbosity >= 0)
    comparison, _ = check_against(
        run.module,
        run.reference,
        progress.track(run.samples, len(run.samples)),
        args.tolerance or TOLERANCES[args.quantize],
        args.excepts,
        every_value=args.compare_all,
    )
    outputs = {v.name for v in run.module.graph.outputs}
    invocation.report["source"] = run.source
    invocation.report["outputs"] = similarity_entries(
        r for r in comparison.rows if r.name in outputs
    )
    text = render_comparison(comparison, every=True)
    invocation.tell(f"deployed against float on {run.source} inputs:\n{text}")
    if comparison.passed or run.source != "random":
        return comparison.passed
    invocation.warn(
        "the outputs differ from float beyond the tolerance on random inputs, which says little: "
        "--test_input F judges by real data"
    )
    return True


def _observed(table: str | None) -> dict[str, tuple[float, float]]:
    """Extremes of the inputs that calibration saw."""
    from qdqc.calibration.table import load_table

    return load_table(table).observed if table else {}


def _write(module: Module, output: Path, lowered: Path) -> None:
    from qdqc.onnx_io.saver import save_onnx
    from qdqc.text.qir_files import save

    save(module, lowered)
    try:
        save_onnx(module, output)  # last: where it stands, all of it is there
    except QdqcError:
        for path in (lowered, lowered.with_suffix(".safetensors")):
            path.unlink(missing_ok=True)
        raise


def _prove(run: _Deployment, output: Path, lowered: Path) -> None:
    """Tell what a runtime makes of the file: which nodes run in integers, and whether rightly."""
    from qdqc.flow.prove import proof_of
    from qdqc.quant.targets.target import target_named
    from qdqc.report.audit_text import render_audit, render_bad_fusions
    from qdqc.report.why import node_named, render_why

    invocation, name = run.invocation, run.invocation.args.why
    sample, target = next(iter(run.samples)), target_named(run.target)
    proof = proof_of(
        run.module, run.reference, run.record.decisions, output, sample, target.runtime
    )
    invocation.report |= proof.entries()
    invocation.tell(render_audit(proof.audit))
    sizes = f"{proof.bytes['deployed']:,} bytes, float {proof.bytes['float']:,}"
    invocation.tell(f"wrote {output}: {sizes}; IR in {lowered}")
    if target.runtime == proof.audit.runtime:
        for row in proof.audit.findings:
            invocation.warn(f"'{row.name}' ({row.op}) runs in {row.runs}: {row.reason}")
    else:
        extra = f"pip install 'qdqc[{target.name}]' lets the audit ask {target.runtime}"
        invocation.tell(f"that is what {proof.audit.runtime} makes of it; {extra}")
    if proof.bad_fusions:
        invocation.warn(render_bad_fusions(proof.bad_fusions))
    if name:
        sys.stdout.write(render_why(node_named(run.typed(), name), proof.audit, target) + "\n")


def _benchmark(run: _Deployment, output: Path) -> None:
    """Time the file beside the float model, interleaved."""
    from qdqc.onnx_io.exporter import export_onnx
    from qdqc.report.benchmark_text import benchmark_entries, render_benchmark
    from qdqc.runtime.comparison.check import taken
    from qdqc.runtime.timing.latency import op_times, time_models

    models = {"float": export_onnx(run.reference), "deployed": str(output)}
    sample = next(iter(run.samples))
    feeds = {"float": sample, "deployed": taken(run.module, run.reference, sample)}
    times = time_models(models, feeds)
    ops = {name: op_times(model, feeds[name]) for name, model in models.items()}
    run.invocation.report["benchmark"] = benchmark_entries(times, ops)
    sys.stdout.write(render_benchmark(times, ops, run.invocation.report["bytes"]) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
