"""model_inspect: from a wrong answer to the guilty layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_OK, QdqcError
from qdqc.files import Content, write_outputs
from qdqc.tools.arguments import count, tolerance
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.parameters import as_options

if TYPE_CHECKING:
    from qdqc.flow.inspect import Inspected
    from qdqc.inspection.difference import Difference
    from qdqc.inspection.inputs import Summary
    from qdqc.inspection.measure import Measured
    from qdqc.ir.graph import Module

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _inspect, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_inspect",
        "Compare a quantized model with the float one, and name what makes it wrong.",
        "model_inspect --reference net.qir --quantized net_int8.onnx --input photos --text\n"
        "  model_inspect --diff net.qir net_int8.qir\n"
        "  model_inspect --quantized net_int8.qir --dot net.dot --onnx net_looked_at.onnx",
    )
    add = parser.add_argument
    add("--reference", metavar="F", help="the float model: .qir or .onnx")
    add("--quantized", metavar="F", help="the quantized one: .onnx, or a .qir of any stage")
    add("--input", metavar="F", help="samples: npz, npy, image, or a folder of them")
    add("--input_num", type=count, default=16, metavar="N", help="samples used, 0 for all")
    add("--text", action="store_true", help="print causes, first divergence, worst (the default)")
    add("--output", "-o", metavar="F.html", help="write all of it as one page for a browser")
    add(
        "--tolerance",
        type=tolerance,
        default=(0.99, 0.9),
        metavar="COS,EUCLID",
        help="where the runs part (default: 0.99,0.9)",
    )
    add("--diff", nargs=2, metavar=("A", "B"), help="what differs from A to B, by name (-v: all)")
    add(
        "--search",
        nargs="+",
        default=[],
        metavar="F.json",
        help="for the page: --report of run_sensitive_layer or run_qtable",
    )
    made = parser.add_argument_group(
        "for the page: what the model was deployed by (default: found beside it)"
    ).add_argument
    made("--calibration_table", metavar="F", help="its calibration table")
    made("--quantize_table", metavar="F", help="its qtable")
    known = parser.add_argument_group("a run that is known to be right").add_argument
    known("--test_input", metavar="F.npz", help="inputs on which the original model is right")
    known("--test_result", metavar="F.npz", help="values that model_transform wrote of that run")
    other = parser.add_argument_group(
        "other viewers, for the model of --quantized or else of --reference"
    ).add_argument
    other("--dot", metavar="F.dot", help="write its graph for Graphviz")
    other("--onnx", metavar="F.onnx", help="write it with ranges and precision as metadata")
    add_plugin_option(parser)
    return parser


def _inspect(invocation: Invocation) -> int:
    args = invocation.args
    exported = args.quantized or args.reference
    _check(args, exported)
    shown = _difference(invocation) if args.diff else None
    outputs = _Outputs()
    measured = _measured(invocation, shown, outputs) if _is_run(args) else None
    if args.dot or args.onnx:
        _export(exported, measured, invocation, outputs)
    outputs.write(invocation)
    return EXIT_OK


@dataclass
class _Outputs:
    """The files to be written together, and what is said of each."""

    files: list[tuple[Path, Content]] = field(default_factory=list[tuple[Path, Content]])
    notes: list[str] = field(default_factory=list[str])

    def write(self, invocation: Invocation) -> None:
        write_outputs(self.files)
        for note in self.notes:
            invocation.tell(note)


def _is_run(args: Any) -> bool:
    """Whether the models are to be run: whatever else is asked for needs no samples."""
    return bool(args.input or args.output or not (args.diff or args.dot or args.onnx))


def _check(args: Any, exported: str | None) -> None:
    """What can be checked before any model is read. Raises QdqcError."""
    from qdqc.files import refuse_inputs, refuse_unwritable

    if _is_run(args):
        _need(args, "reference", "quantized", "input")
    elif (args.dot or args.onnx) and not exported:
        raise QdqcError(
            "no model is given to write as another format",
            notes=["give it by --quantized, or by --reference"],
        )
    outputs = [path for path in (args.output, args.dot, args.onnx) if path]
    known = (args.reference, args.quantized, args.input, args.test_input, args.test_result)
    refuse_inputs(outputs, [i for i in (*known, *(args.diff or ()), *args.search) if i])
    refuse_unwritable(outputs)
    if args.output:
        from qdqc.report.page.render import need_libraries

        need_libraries()


def _need(args: Any, *wanted: str) -> None:
    missing = [f"--{name}" for name in wanted if getattr(args, name) is None]
    if missing:
        raise QdqcError(
            f"{' and '.join(missing)} must be given to look into a quantized model",
            notes=["model_inspect --help shows examples"],
        )


def _difference(invocation: Invocation) -> Difference:
    """Print what differs from the first model to the second."""
    from qdqc.inspection.difference import difference
    from qdqc.inspection.stages import quantized_stage
    from qdqc.report.difference_text import difference_entries, render_difference

    before, after = invocation.args.diff
    changes = difference(quantized_stage(before), quantized_stage(after))
    invocation.report["difference"] = difference_entries(changes)
    invocation.answer(render_difference(changes, every=invocation.verbosity > 0))
    return changes


def _measured(invocation: Invocation, shown: Difference | None, outputs: _Outputs) -> Measured:
    """Run both models over the samples, and show what was seen."""
    from qdqc.data.dataset import open_dataset
    from qdqc.flow.inspect import inspect
    from qdqc.inspection.stages import quantized_stage, reference_stage
    from qdqc.report.inspection_text import inspection_entries, render_inspection
    from qdqc.report.page.searched import read_searches

    args = invocation.args
    searched = read_searches(args.search)
    reference, quantized = reference_stage(args.reference), quantized_stage(args.quantized)
    inspected = inspect(
        reference,
        quantized,
        open_dataset(args.input, reference.graph, input_num=args.input_num),
        input_num=args.input_num,
        tolerance=args.tolerance,
        known=_known(args, reference),
        sketched=bool(args.output),
        listener=invocation.listener(),
    )
    causes = [replace(c, advice=as_options(c.advice)) for c in inspected.causes]
    inspected, measured = replace(inspected, causes=causes), inspected.measured
    invocation.report |= inspection_entries(measured, causes)
    if args.output:
        _add_page(inspected, shown, searched, invocation, outputs)
    if args.text or not args.output:
        invocation.answer(render_inspection(measured, causes))
    return measured


def _add_page(
    inspected: Inspected,
    shown: Difference | None,
    searched: Mapping[str, Any],
    invocation: Invocation,
    outputs: _Outputs,
) -> None:
    from qdqc.calibration.table import load_table
    from qdqc.flow.inspect import making_of
    from qdqc.quant.qtable import load_qtable
    from qdqc.report.page.render import render_page

    args = invocation.args
    table = load_table(args.calibration_table) if args.calibration_table else None
    qtable = load_qtable(args.quantize_table) if args.quantize_table else None
    making = making_of(args.quantized, inspected.quantized, table, qtable)
    apart = None if shown is None else (shown, (args.diff[0], args.diff[1]))
    title = f"{Path(args.quantized).name} against {Path(args.reference).name}"
    text = render_page(inspected.page(making, searched, apart), title)
    outputs.files.append((Path(args.output), text))
    outputs.notes.append(f"wrote {args.output}: {len(text.encode()):,} bytes")


def _export(
    source: str, measured: Measured | None, invocation: Invocation, outputs: _Outputs
) -> None:
    """The model as other viewers take it, with measured errors where it was run."""
    from qdqc.inspection.stages import quantized_stage
    from qdqc.report.stage import stage_dot, stage_onnx

    args = invocation.args
    module = quantized_stage(source)
    if args.dot:
        outputs.files.append((Path(args.dot), stage_dot(module, measured)))
        outputs.notes.append(f"wrote {args.dot}: {len(module.graph)} nodes")
    if args.onnx:
        from qdqc.onnx_io.saver import onnx_files

        outputs.files += onnx_files(stage_onnx(module, measured), Path(args.onnx))
        outputs.notes.append(f"wrote {args.onnx}: it runs as the model does")


def _known(args: Any, reference: Module) -> Summary | None:
    """Spreads of the values of a run that is known to be right."""
    from qdqc.data.archive import Archive
    from qdqc.data.dataset import open_dataset
    from qdqc.inspection.inputs import spread_of

    arrays: dict[str, Any] = {}
    if args.test_result:
        arrays |= Archive(args.test_result)
    if args.test_input:
        arrays |= next(iter(open_dataset(args.test_input, reference.graph)))
    spreads = {name: spread_of(array) for name, array in arrays.items()}
    return {name: s for name, s in spreads.items() if s is not None}


if __name__ == "__main__":
    raise SystemExit(main())
