"""model_deploy: a calibrated module becomes a deployed ONNX model, proven to run in integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError
from qdqc.tools.auto_options import AUTO, auto_files, check_auto, planned, write_plan
from qdqc.tools.command import Invocation, execute
from qdqc.tools.deploy_options import deploy_parser, deployment_of
from qdqc.tools.ir_options import listener_of

if TYPE_CHECKING:
    from qdqc.flow.deploy import Deployed
    from qdqc.flow.samples import CheckSamples

__all__ = ["main"]

_SLOWER, _NOTICED = 1.2, 5e-5
"""How much slower than float a model is reported as such: its share, and seconds a run."""

_WEAK = (
    "note: a check on random inputs is weak: it would pass with the wrong preprocessing too; "
    "--test_input F judges by real data"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(deploy_parser(), _deploy, argv)


def _deploy(invocation: Invocation) -> int:
    from qdqc.calibration.table import load_table
    from qdqc.flow.deploy import check_deployment, deploy
    from qdqc.flow.samples import held_back
    from qdqc.quant.lowering import has_quantized_activations
    from qdqc.quant.qtable import load_qtable
    from qdqc.report.why import node_named
    from qdqc.text.qir_files import load

    args = invocation.args
    check_auto(args)
    source, deployment = Path(args.mlir), deployment_of(args)
    module, auto = load(source), args.quantize == AUTO
    check_deployment(
        deployment,
        calibrated=bool(args.calibration_table) or auto,
        mixed=bool(args.quantize_table),
        quantized=has_quantized_activations(module),
    )
    output = _output(args, source)
    table = load_table(args.calibration_table) if args.calibration_table else None
    qtable = load_qtable(args.quantize_table) if args.quantize_table else None
    plan = planned(module, deployment, table, invocation) if auto else None
    if plan is not None:
        module, deployment, table, qtable = plan.module, plan.deployment, plan.table, plan.qtable
    deployed = deploy(
        module,
        deployment,
        table=table,
        qtable=qtable,
        reasons=plan.reasons if plan is not None else {},
        listener=listener_of(invocation),
    )
    if deployed.unquantized is not None:
        invocation.report["unquantized"] = deployed.unquantized.entries()
    if args.why:
        node_named(deployed.typed, args.why)  # a wrong name is reported before anything is written
    samples = deployed.samples(args.test_input, invocation.listener())
    if plan is not None and not args.test_input:
        samples = held_back(plan)
    passed = _check(deployed, samples, invocation)
    output, text = deployed.write(output, rejected=not passed)
    if not passed:
        invocation.answer(f"the check failed: the model is kept as {output}")
    _prove(deployed, samples, output, text, invocation)
    if plan is not None and passed:
        for path in write_plan(plan, output):
            invocation.tell(f"wrote {path}")
    if passed and deployment.mode != "F32" and not args.benchmark:
        _tell_slower(deployed, samples, output, invocation)
    if args.benchmark:
        _benchmark(deployed, samples, output, invocation)
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
    outputs += auto_files(output) if args.quantize == AUTO else []
    inputs = [source, source.with_suffix(".safetensors")]
    refuse_inputs(outputs, [*inputs, *filter(None, (args.calibration_table, args.quantize_table))])
    refuse_unwritable(outputs)
    return output


def _check(deployed: Deployed, samples: CheckSamples, invocation: Invocation) -> bool:
    """Show how near the model is to float. Returns whether it may be deployed.

    Random inputs are not data of the user's: on them a failed comparison is only a warning.
    """
    from qdqc.report.comparison_text import render_comparison, similarity_entries

    args = invocation.args
    comparison = deployed.check(
        samples,
        args.tolerance,
        args.excepts,
        every_value=args.compare_all,
        listener=invocation.listener(),
    )
    outputs = {v.name for v in deployed.module.graph.outputs}
    source = f"{samples.source} (weak)" if samples.are_random else samples.source
    invocation.report["source"] = source
    invocation.report["outputs"] = similarity_entries(
        r for r in comparison.rows if r.name in outputs
    )
    say = invocation.conclude if comparison.passed else invocation.answer
    say(f"deployed against float on {source} inputs:")
    say(render_comparison(comparison, every=True))
    if not samples.are_random:
        return comparison.passed
    if comparison.passed:
        invocation.tell(_WEAK)
        return True
    invocation.warn(
        "the outputs differ from float beyond the tolerance on random inputs, which says little: "
        "--test_input F judges by real data"
    )
    return True


def _prove(
    deployed: Deployed, samples: CheckSamples, output: Path, text: Path, invocation: Invocation
) -> None:
    """Show what a runtime makes of the file: which nodes run in integers, and whether rightly."""
    from qdqc.report.audit_text import render_audit, render_bad_fusions
    from qdqc.report.why import node_named, render_why

    proof, target = deployed.prove(output, samples.first), deployed.target
    name = invocation.args.why
    invocation.report |= proof.entries()
    invocation.conclude(render_audit(proof.audit))
    sizes = f"{proof.bytes['deployed']:,} bytes, float {proof.bytes['float']:,}"
    invocation.tell(f"wrote {output}: {sizes}; IR in {text}")
    if target.runtime == proof.audit.runtime:
        for row in proof.audit.findings:
            invocation.warn(f"'{row.name}' ({row.op}) runs in {row.runs}: {row.reason}")
    else:
        extra = f"pip install 'qdqc[{target.name}]' lets the audit ask {target.runtime}"
        invocation.tell(f"that is what {proof.audit.runtime} makes of it; {extra}")
    if proof.bad_fusions:
        invocation.warn(render_bad_fusions(proof.bad_fusions))
    if name:
        invocation.answer(render_why(node_named(deployed.typed, name), proof.audit, target))


def _tell_slower(
    deployed: Deployed, samples: CheckSamples, output: Path, invocation: Invocation
) -> None:
    """Say so where the model is clearly slower than float here, and what to do."""
    if deployed.target.runtime != "onnxruntime":
        return
    exact, seconds = deployed.pace(output, samples.first)
    if seconds > _SLOWER * exact and seconds - exact > _NOTICED:
        invocation.warn(
            f"it takes {seconds / exact:.1f} times as long as the float model on this machine: "
            "--quantize AUTO finds the modes that pay, --benchmark shows the times by op"
        )


def _benchmark(
    deployed: Deployed, samples: CheckSamples, output: Path, invocation: Invocation
) -> None:
    """Show the file's times beside those of the float model."""
    from qdqc.report.benchmark_text import benchmark_entries, render_benchmark

    measured = deployed.benchmark(output, samples.first)
    invocation.report["benchmark"] = benchmark_entries(measured.times, measured.ops)
    sizes = invocation.report["bytes"]
    invocation.answer(render_benchmark(measured.times, measured.ops, sizes))


if __name__ == "__main__":
    raise SystemExit(main())
