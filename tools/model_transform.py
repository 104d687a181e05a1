"""model_transform: an ONNX model becomes IR text with its weights beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError
from qdqc.tools.arguments import (
    binding,
    floats,
    indices,
    memory,
    names,
    pair,
    shapes,
    tolerance,
)
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_ir_options, listener_of

if TYPE_CHECKING:
    from qdqc.data.preprocess import Preprocess
    from qdqc.flow.transform import TransformCheck, Transformed

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _transform, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_transform",
        "Import an ONNX model, simplify and fuse it, and check the result against the source.",
        "model_transform --model_def net.onnx --input_shapes '[[1,3,224,224]]' "
        "--pixel_format rgb --mean 127,127,127 --scale 0.0078125,0.0078125,0.0078125 -o net.qir",
    )
    add = parser.add_argument
    add("--model_def", required=True, metavar="F", help="the .onnx file, or an earlier .qir")
    add("--model_name", metavar="NAME", help="name of the module (default: the file's stem)")
    add("--mlir", "-o", dest="output", metavar="F.qir", help="output (default: NAME.qir)")
    add(
        "--input_shapes",
        type=shapes,
        metavar="[[..],..]",
        help="shapes of the inputs, in order: sizes, also where the model fixes others, names or ?",
    )
    add("--output_names", type=names, metavar="A,B", help="cut the graph at these values")
    add(
        "--bind",
        type=binding,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input that is the same in every run becomes a constant, such as use_cache=true "
        "or sizes=[1,2], and an If that hangs on it the branch that runs; may be repeated",
    )
    add(
        "--memory_limit",
        type=memory,
        metavar="SIZE",
        help="refuse a model whose weights, or one of whose values, take more, such as 8GB "
        "(default: the machine's memory)",
    )
    _add_preprocessing(parser)
    check = parser.add_argument_group("check against the source")
    add = check.add_argument
    add("--test_input", metavar="F", help="image, npz, npy or folder (default: random inputs)")
    add("--test_result", metavar="F.npz", help="write the values of all nodes")
    add(
        "--tolerance",
        type=tolerance,
        default=(0.99, 0.99),
        metavar="COS,EUCLID",
        help="least similarity of every value (default: 0.99,0.99)",
    )
    add("--excepts", type=names, default=[], metavar="A,B", help="values that are not compared")
    add("--skip_validation", action="store_true", help="no check against the source")
    add_ir_options(parser)
    return parser


def _add_preprocessing(parser: CommandParser) -> None:
    add = parser.add_argument_group("preprocessing: y = (x - mean) * scale on 0..255").add_argument
    add("--resize_dims", type=pair, metavar="H,W", help="size before the centre crop")
    add("--keep_aspect_ratio", action="store_true", help="do not distort images")
    add(
        "--keep_ratio_mode",
        default="letterbox",
        choices=("letterbox", "short_side_scale"),
        help="pad the longer side, or crop it",
    )
    add("--interpolation", default="bilinear", choices=("bilinear", "bicubic"), help="of resizing")
    add("--pad_value", type=float, default=0.0, metavar="X", help="of a letterbox")
    add("--pad_type", default="center", choices=("normal", "center"), help="of a letterbox")
    add(
        "--mean",
        type=floats,
        metavar="A,B,C",
        help="by channel, or one number for all (default: 0)",
    )
    add(
        "--scale",
        type=floats,
        metavar="A,B,C",
        help="by channel, or one number for all: 1 over the standard deviation (default: 1)",
    )
    add("--pixel_format", default="bgr", choices=("rgb", "bgr", "gray"), help="order of channels")
    add(
        "--channel_format",
        default="nchw",
        choices=("nchw", "nhwc", "none"),
        help="none: the input is not an image",
    )
    add(
        "--preprocess_list",
        type=indices,
        metavar="1,3",
        help="which inputs are images, counted from 1 (default: all that look like one)",
    )


def _transform(invocation: Invocation) -> int:
    from qdqc.data.archive import arrays_content
    from qdqc.files import refuse_inputs, refuse_unwritable, write_outputs
    from qdqc.flow.transform import transform
    from qdqc.text.qir_files import qir_files

    args = invocation.args
    source = Path(args.model_def)
    name = args.model_name or source.stem
    output = Path(args.output or f"{name}.qir")
    if output.suffix != ".qir":
        raise QdqcError(f"the output '{output}' must end in .qir", notes=["give -o NAME.qir"])
    outputs = [output, output.with_suffix(".safetensors")]
    outputs += [Path(args.test_result)] if args.test_result else []
    refuse_inputs(outputs, [source, *([args.test_input] if args.test_input else [])])
    refuse_unwritable(outputs)
    result = transform(
        source,
        name=name,
        input_shapes=args.input_shapes,
        output_names=args.output_names,
        bind=dict(args.bind),
        preprocess=_preprocess(args),
        preprocess_list=args.preprocess_list,
        memory_limit=args.memory_limit,
        listener=listener_of(invocation),
    )
    before, after = result.imported_nodes, result.nodes
    invocation.report["nodes"] = {"imported": before, "transformed": after}
    invocation.tell(f"{name}: {before} nodes imported, {after} after @transform")
    values: dict[str, Any] = {}
    passed = args.skip_validation or _check(result, values, invocation)
    files = qir_files(result.module, output)
    if args.test_result and values:
        files.insert(0, (Path(args.test_result), arrays_content(values)))
    write_outputs(files)
    invocation.tell(f"wrote {output}")
    return EXIT_OK if passed else EXIT_INPUT


def _preprocess(args: Any) -> Preprocess:
    """The preprocessing that the options state."""
    from qdqc.data.preprocess import Preprocess

    return Preprocess(
        resize_dims=args.resize_dims,
        keep_aspect_ratio=args.keep_aspect_ratio,
        keep_ratio_mode=args.keep_ratio_mode,
        interpolation=args.interpolation,
        pad_value=args.pad_value,
        pad_type=args.pad_type,
        mean=args.mean,
        scale=args.scale,
        pixel_format=args.pixel_format,
        channel_format=args.channel_format,
    )


def _check(result: Transformed, values: dict[str, Any], invocation: Invocation) -> bool:
    """Show how the transformed module compares with the model that it comes from.

    ``values`` gets those of the module.
    """
    from qdqc.report.comparison_text import render_comparison

    args = invocation.args
    check = result.check(args.test_input, args.tolerance, args.excepts)
    rows, against = check.comparison.rows, check.against
    entry = {"source": check.source, "compared": len(rows), "passed": check.comparison.passed}
    invocation.report["check"] = entry | _entry(check)
    kinds = {r.name: n.op.name for n in result.module.walk() for r in n.present_results}
    what = "imported module" if against is None else "source"
    say = invocation.conclude if check.comparison.passed else invocation.answer
    say(f"check against the {what} on {check.source} inputs:")
    every = invocation.verbosity > 0
    say(render_comparison(check.comparison, kinds=kinds, every=every))
    _tell_sureness(check, invocation)
    values.update(check.values)
    return check.comparison.passed


def _entry(check: TransformCheck) -> dict[str, Any]:
    """What the report says of the check beside its figures."""
    from qdqc.report.against_text import steadiness_entry

    if check.against is None:
        return {"against": "imported module", "not_checked_because": check.unchecked}
    return {"against": "source", **steadiness_entry(check.against)}


def _tell_sureness(check: TransformCheck, invocation: Invocation) -> None:
    from qdqc.report.against_text import doubts, render_steadiness, unchecked_warning

    if check.unchecked:
        invocation.warn(unchecked_warning(check.unchecked))
    if check.against is None:
        return
    invocation.tell(render_steadiness(check.against))
    for warning in doubts(check.against, are_random=check.is_random):
        invocation.warn(warning)
    if not check.comparison.passed:
        culprit = "before any pass" if check.importer_differs else "only after the passes"
        invocation.tell(f"the module differs from the source {culprit}")


if __name__ == "__main__":
    raise SystemExit(main())
