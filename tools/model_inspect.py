"""model_inspect: from a wrong answer to the guilty layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.diagnostics import EXIT_OK, QdqcError
from tools.arguments import tolerance
from tools.command import CommandParser, Invocation, execute
from tools.data_options import count
from tools.ir_options import add_plugin_option
from tools.progress import Progress

if TYPE_CHECKING:
    from compiler.inspection.inputs import Summary
    from compiler.ir.graph import Module

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _inspect, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_inspect",
        "Hold a quantized model against the float one, and name what makes it wrong.",
        "model_inspect --reference net.qir --quantized net_int8.onnx --input photos --text",
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
    known = parser.add_argument_group("a run that is known to be right").add_argument
    known("--test_input", metavar="F.npz", help="inputs on which the original model is right")
    known("--test_result", metavar="F.npz", help="values that model_transform wrote of that run")
    add_plugin_option(parser)
    return parser


def _inspect(invocation: Invocation) -> int:
    from compiler.data.dataset import open_dataset
    from compiler.inspection.causes import causes
    from compiler.inspection.measure import measure
    from compiler.inspection.sketch import Sketches
    from compiler.inspection.stages import pipeline_of, quantized_stage, reference_stage
    from compiler.report.inspection import inspection_entries, render_inspection

    args = invocation.args
    _need(args, "reference", "quantized", "input")
    if args.output:
        _check_output(args)
    reference, quantized = reference_stage(args.reference), quantized_stage(args.quantized)
    tested = _tested(args, reference)
    dataset = open_dataset(args.input, reference.graph, input_num=args.input_num)
    progress = Progress("inspect", shown=invocation.verbosity >= 0)
    samples = islice(dataset, args.input_num or None)
    number = min(len(dataset), args.input_num or len(dataset))
    sketches = Sketches(sum(1 for _ in reference.walk()), number) if args.output else None
    tracked = progress.track(samples, number)
    measured = measure(quantized, reference, tracked, args.tolerance, sketches)
    if not measured.figures:
        raise QdqcError(
            "the models share no value, so there is nothing to compare",
            notes=["give a --quantized that was made from --reference"],
        )
    found = causes(measured, quantized, reference, tested)
    invocation.report |= inspection_entries(measured, found)
    if sketches is not None:
        from compiler.report.page.gather import Sources, gather

        made_by = pipeline_of(args.quantized, quantized)
        page = Sources(reference, quantized, next(iter(dataset)), made_by)
        _write_page(gather(page, measured, found, sketches), invocation)
    if args.text or sketches is None:
        sys.stdout.write(render_inspection(measured, found) + "\n")
    return EXIT_OK


def _check_output(args: Any) -> None:
    """What can be told of the page before the models run."""
    from compiler.files import refuse_inputs, refuse_unwritable
    from compiler.report.page.render import need_libraries

    inputs = [args.reference, args.quantized, args.input, args.test_input, args.test_result]
    refuse_inputs([args.output], [i for i in inputs if i])
    refuse_unwritable([args.output])
    need_libraries()


def _write_page(page: Any, invocation: Invocation) -> None:
    from compiler.files import write_whole
    from compiler.report.page.render import render_page

    args = invocation.args
    title = f"{Path(args.quantized).name} against {Path(args.reference).name}"
    text = render_page(page, title)
    write_whole(args.output, text)
    invocation.tell(f"wrote {args.output}: {len(text.encode()):,} bytes")


def _need(args: Any, *wanted: str) -> None:
    missing = [f"--{name}" for name in wanted if getattr(args, name) is None]
    if missing:
        raise QdqcError(
            f"{' and '.join(missing)} must be given to look into a quantized model",
            notes=["model_inspect --help shows an example"],
        )


def _tested(args: Any, reference: Module) -> Summary | None:
    """Spreads of the values of a run that is known to be right."""
    from compiler.data.archive import Archive
    from compiler.data.dataset import open_dataset
    from compiler.inspection.inputs import spread_of

    found: dict[str, Any] = {}
    if args.test_result:
        found |= Archive(args.test_result)
    if args.test_input:
        found |= next(iter(open_dataset(args.test_input, reference.graph)))
    spreads = {name: spread_of(array) for name, array in found.items()}
    return {name: s for name, s in spreads.items() if s is not None}


if __name__ == "__main__":
    raise SystemExit(main())
