"""model_transform: an ONNX model becomes IR text with its weights beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError
from qdqc.tools.arguments import (
    check_samples,
    floats,
    indices,
    machine_memory,
    memory,
    names,
    pair,
    shapes,
    tolerance,
)
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_ir_options, run_pipeline

if TYPE_CHECKING:
    from qdqc.ir.graph import Module
    from qdqc.runtime.comparison.compare import Comparison

__all__ = ["main"]

_CHECKED_SAMPLES = 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _transform, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_transform",
        "Import an ONNX model, simplify and fuse it, and check the result against the original.",
        "model_transform --model_def net.onnx --input_shapes '[[1,3,224,224]]' "
        "--pixel_format rgb --mean 127,127,127 --scale 0.0078125,0.0078125,0.0078125 -o net.qir",
    )
    add = parser.add_argument
    add("--model_def", required=True, metavar="F", help="the .onnx file, or an earlier .qir")
    add("--model_name", metavar="NAME", help="name of the module (default: the file's stem)")
    add("--mlir", "-o", dest="output", metavar="F.qir", help="output (default: NAME.qir)")
    add("--input_shapes", type=shapes, metavar="[[..],..]", help="shapes of the inputs, in order")
    add("--output_names", type=names, metavar="A,B", help="cut the graph at these values")
    add(
        "--memory_limit",
        type=memory,
        metavar="SIZE",
        help="refuse a model whose weights, or one of whose values, take more, such as 8GB "
        "(default: the machine's memory)",
    )
    _add_preprocessing(parser)
    check = parser.add_argument_group("check against the original")
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
    add("--skip_validation", action="store_true", help="no check against the original")
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
        default=(0.0, 0.0, 0.0),
        metavar="A,B,C",
        help="by channel (default: 0,0,0)",
    )
    add(
        "--scale",
        type=floats,
        default=(1.0, 1.0, 1.0),
        metavar="A,B,C",
        help="by channel (default: 1,1,1)",
    )
    add("--pixel_format", default="bgr", choices=("rgb", "bgr", "gray"), help="order of channels")
    add(
        "--channel_format",
        default="nchw",
        choices=("nchw", "nhwc", "none"),
        help="none: the input is no image",
    )
    add(
        "--preprocess_list",
        type=indices,
        metavar="1,3",
        help="which inputs are images, counted from 1 (default: all that look like one)",
    )


def _transform(invocation: Invocation) -> int:
    from qdqc.files import refuse_inputs, refuse_unwritable
    from qdqc.text.qir_files import save

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
    module, original = _import(source, args)
    module.name = name
    _state_preprocessing(module, args)
    before = sum(1 for _ in module.walk())
    run_pipeline(module, "@transform", invocation)
    after = sum(1 for _ in module.walk())
    invocation.report["nodes"] = {"imported": before, "transformed": after}
    invocation.tell(f"{name}: {before} nodes imported, {after} after @transform")
    comparison = None
    if not args.skip_validation:
        comparison = _check(module, original, invocation)
    save(module, output)
    invocation.tell(f"wrote {output}")
    return EXIT_OK if comparison is None or comparison.passed else EXIT_INPUT


def _import(source: Path, args: Any) -> tuple[Module, Module | None]:
    """The module, and a second one as it was imported, to check against."""
    from qdqc.ir.clone import clone
    from qdqc.text.qir_files import load

    if source.suffix == ".qir":
        module = load(source)
        if args.input_shapes or args.output_names:
            raise QdqcError(
                "--input_shapes and --output_names are for .onnx files",
                file=str(source),
                notes=["transform the .onnx file again with them"],
            )
        return module, clone(module)
    from qdqc.onnx_io.importer import import_onnx

    module = import_onnx(
        source,
        input_shapes=args.input_shapes,
        output_names=args.output_names,
        memory_limit=args.memory_limit or machine_memory(),
    )
    return module, clone(module)


def _state_preprocessing(module: Module, args: Any) -> None:
    """Keep the preprocessing on the graph's image inputs."""
    from qdqc.data.preprocess import Preprocess

    stated = Preprocess(
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
    graph = module.graph
    chosen = args.preprocess_list
    if chosen is not None and any(not 1 <= i <= len(graph.inputs) for i in chosen):
        raise QdqcError(
            f"--preprocess_list names input {max(chosen)}, but there are {len(graph.inputs)}",
            notes=["inputs are counted from 1"],
        )
    if not stated.is_image:
        return
    given = stated != Preprocess()
    for index, value in enumerate(graph.inputs, 1):
        wanted = chosen is not None and index in chosen
        looks = value.tensor.elem.is_float and value.tensor.rank == 4
        if wanted or (chosen is None and looks and (given or not graph.input_attrs)):
            try:
                stated.check(value.tensor)
            except QdqcError:
                if wanted or given:
                    raise
                continue
            graph.input_attrs[value.name] = stated.to_attrs()


def _check(module: Module, original: Module | None, invocation: Invocation) -> Comparison | None:
    """Run both and compare every value that both have."""
    from qdqc.data.archive import write_arrays
    from qdqc.report.comparison_text import render_comparison
    from qdqc.runtime.comparison.check import check_against

    args = invocation.args
    if original is None:
        return None
    if args.test_input:  # the original's own file can't say how images become its inputs
        original.graph.input_attrs = dict(module.graph.input_attrs)
    samples, source = check_samples(original, args.test_input, _CHECKED_SAMPLES)
    comparison, values = check_against(module, original, samples, args.tolerance, args.excepts)
    invocation.report["check"] = {
        "source": source,
        "compared": len(comparison.rows),
        "passed": comparison.passed,
    }
    kinds = {r.name: n.op.name for n in module.walk() for r in n.present_results}
    text = render_comparison(comparison, kinds=kinds, every=invocation.verbosity > 0)
    invocation.tell(f"check against the original on {source} inputs: {text}")
    if args.test_result:
        write_arrays(args.test_result, values)
    return comparison


if __name__ == "__main__":
    raise SystemExit(main())
