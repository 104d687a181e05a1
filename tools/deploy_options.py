"""The options of model_deploy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from qdqc.tools.arguments import names, tolerance
from qdqc.tools.auto_options import AUTO, add_auto_options
from qdqc.tools.command import CommandParser
from qdqc.tools.ir_options import add_ir_options

if TYPE_CHECKING:
    from qdqc.quant.deployment import Deployment

__all__ = ["add_scheme", "deploy_parser", "deployment_of"]

_MODES = (AUTO, "INT8", "DYN8", "W8", "W4", "F16", "F32")


def deploy_parser() -> CommandParser:
    """The parser of the command."""
    parser = CommandParser(
        "model_deploy",
        "Quantize a module for a target, write it as QDQ ONNX, and prove what runs in integers.",
        "model_deploy --mlir net.qir --calibration_table net.cali_table --model net_int8.onnx",
    )
    add = parser.add_argument
    add("--mlir", required=True, metavar="F.qir", help="the module that model_transform wrote")
    add("--model", metavar="F.onnx", help="output (default: {name}_int8.onnx beside the module)")
    _add_precision(parser)
    add_auto_options(parser)
    _add_borders(parser)
    _add_check(parser)
    proof = parser.add_argument_group("look at what came out").add_argument
    proof("--why", metavar="NODE", help="report how one node runs, and which rules it keeps")
    proof("--benchmark", action="store_true", help="time it beside the float model, on one thread")
    add_ir_options(parser)
    return parser


def deployment_of(args: Any) -> Deployment:
    """How the options want a module deployed."""
    from qdqc.quant.deployment import Deployment

    return Deployment(
        target=args.target,
        mode="INT8" if args.quantize == AUTO else args.quantize,
        symmetric=args.symmetric,
        correct_bias=args.correct_bias,
        leave_float=args.leave_float,
        group_size=args.q_group_size,
        quant_input=args.quant_input,
        quant_output=args.quant_output,
        fuse_preprocess=args.fuse_preprocess,
    )


def add_scheme(parser: CommandParser) -> None:
    """``--asymmetric`` and ``--symmetric``, one of which holds."""
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


def _add_precision(parser: CommandParser) -> None:
    add = parser.add_argument
    add(
        "--quantize",
        default="INT8",
        type=str.upper,
        choices=_MODES,
        help="precision of all nodes that the qtable does not name; AUTO finds it for each",
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
    add_scheme(parser)
    add(
        "--correct-bias",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let biases take up the mean error of the rounded weights",
    )
    add(
        "--leave-float",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let nodes stay float that integers would slow down",
    )


def _add_borders(parser: CommandParser) -> None:
    add = parser.add_argument_group("inputs and outputs").add_argument
    add("--quant_input", action="store_true", help="inputs are the quantized integers")
    add("--quant_output", action="store_true", help="outputs are the quantized integers")
    add(
        "--fuse_preprocess",
        action="store_true",
        help="images come in as u8 pixels of the net's size; mean and scale are part of the net",
    )


def _add_check(parser: CommandParser) -> None:
    add = parser.add_argument_group("check against the float module").add_argument
    add(
        "--test_input",
        metavar="F",
        help="image, npz, npy or folder (default: the table's own samples, else random)",
    )
    add(
        "--tolerance",
        type=tolerance,
        metavar="COS,EUCLID",
        help="least similarity of outputs (default: by mode, such as 0.90,0.80 for INT8)",
    )
    add("--excepts", type=names, default=[], metavar="A,B", help="outputs that are not compared")
    add("--compare_all", action="store_true", help="compare every value, not only outputs")
