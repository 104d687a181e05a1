"""model_runner: run a module or an ONNX file on given inputs, and keep what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.diagnostics import EXIT_OK, QdqcError
from compiler.files import refuse_inputs, refuse_unwritable
from tools.command import CommandParser, Invocation, execute
from tools.ir_options import add_plugin_option

if TYPE_CHECKING:
    import numpy.typing as npt

    from compiler.ir.graph import Graph
    from compiler.runtime.onnx_file import OnnxRunner
    from compiler.runtime.session import Runner

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
    from compiler.data.archive import write_arrays
    from compiler.data.dataset import open_dataset

    args = invocation.args
    output, source = Path(args.output), Path(args.model)
    inputs = [source, source.with_suffix(".safetensors"), args.input]
    refuse_inputs([output], inputs)
    refuse_unwritable([output])
    runner, graph = _open(source, args)
    rounds = [runner.run(feeds) for feeds in open_dataset(args.input, graph)]
    values = joined(rounds)
    write_arrays(output, values)
    invocation.report |= {
        "model": str(source),
        "samples": len(rounds),
        "values": {n: {"shape": a.shape, "type": str(a.dtype)} for n, a in values.items()},
    }
    count = f"{len(rounds)} samples" if len(rounds) > 1 else "1 sample"
    invocation.tell(f"wrote {output}: {len(values)} values of {count}")
    return EXIT_OK


def _open(source: Path, args: Any) -> tuple[Runner | OnnxRunner, Graph]:
    """What runs the model, and a graph with its inputs. Raises QdqcError."""
    every, fixed = args.dump_all_tensors, args.out_fixed
    if source.suffix == ".onnx":
        from compiler.runtime.onnx_file import OnnxRunner

        whole = OnnxRunner(source, every=every, fixed=fixed)
        return whole, whole.graph
    if source.suffix != ".qir":
        raise QdqcError(
            "the model is neither a .qir nor an .onnx file",
            file=str(source),
            notes=["model_transform makes a .qir, model_deploy an .onnx"],
        )
    from compiler.runtime.session import Runner
    from compiler.text.files import load

    module = load(source, verify=True)
    return Runner(module, None if every else (), fixed=fixed), module.graph


def joined(
    rounds: Sequence[Mapping[str, npt.NDArray[Any]]],
) -> dict[str, npt.NDArray[Any]]:
    """The values of several samples, one behind the other along axis 0, scalars as a vector.

    Raises QdqcError where the shapes of two samples do not fit.
    """
    import numpy as np

    if len(rounds) == 1:
        return dict(rounds[0])
    out: dict[str, npt.NDArray[Any]] = {}
    for name in rounds[0] if rounds else ():
        parts = [np.atleast_1d(r[name]) for r in rounds]
        if len({p.shape[1:] for p in parts}) > 1:
            raise QdqcError(
                f"'%{name}' has shape {list(parts[0].shape)} for one sample and another shape "
                "for others, so they can't stand in one array",
                notes=["give the samples one at a time"],
            )
        out[name] = np.concatenate(parts)
    return out


if __name__ == "__main__":
    raise SystemExit(main())
