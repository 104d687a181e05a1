"""model_runner: run a module or an ONNX file on given inputs, and keep what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_OK
from qdqc.files import refuse_inputs, refuse_unwritable
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_plugin_option

if TYPE_CHECKING:
    from qdqc.ir.graph import Graph
    from qdqc.runtime.sessions.onnx_file import OnnxRunner
    from qdqc.runtime.sessions.session import Runner

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "model_runner",
        "Run a .qir of any stage or an .onnx file, and write its outputs as npz.",
        "model_runner --input cat.jpg --model net.qir --output out.npz --dump_all_tensors",
    )
    add = parser.add_argument
    add("--input", required=True, metavar="F", help="npz, npy, image, or a folder of them")
    add("--model", required=True, metavar="F", help="a .qir of any stage, or an .onnx file")
    add("--output", "-o", default="_output.npz", metavar="F.npz", help="what is written")
    add("--dump_all_tensors", action="store_true", help="all values, not only the outputs")
    add("--out_fixed", action="store_true", help="quantized values as integers, as stored")
    add_plugin_option(parser)
    return parser


def _run(invocation: Invocation) -> int:
    from qdqc.data.dataset import open_dataset
    from qdqc.data.spool import Spool

    args = invocation.args
    output, source = Path(args.output), Path(args.model)
    inputs = [source, source.with_suffix(".safetensors"), args.input]
    refuse_inputs([output], inputs)
    refuse_unwritable([output])
    runner, graph = _open(source, args)
    dataset = open_dataset(args.input, graph)
    listener = invocation.listener()
    with Spool(output) as spool:
        for feeds in listener.track("run", dataset, len(dataset)):
            spool.add(runner.run(feeds))
        headers = spool.write()
        samples = spool.rounds
    invocation.report |= {
        "model": str(source),
        "samples": samples,
        "values": {n: {"shape": h.shape, "type": str(h.dtype)} for n, h in headers.items()},
    }
    count = f"{samples} samples" if samples > 1 else "1 sample"
    invocation.tell(f"wrote {output}: {len(headers)} values of {count}")
    return EXIT_OK


def _open(source: Path, args: Any) -> tuple[Runner | OnnxRunner, Graph]:
    """What runs the model, and a graph with its inputs. Raises QdqcError."""
    every, fixed = args.dump_all_tensors, args.out_fixed
    if source.suffix == ".onnx":
        from qdqc.runtime.sessions.onnx_file import OnnxRunner

        whole = OnnxRunner(source, every=every, fixed=fixed)
        return whole, whole.graph
    from qdqc.inspection.stages import load_stage
    from qdqc.runtime.sessions.session import Runner

    module = load_stage(source)
    return Runner(module, None if every else (), fixed=fixed), module.graph


if __name__ == "__main__":
    raise SystemExit(main())
