"""The options of ``--quantize AUTO``, and the plan that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError
from qdqc.tools.arguments import finite
from qdqc.tools.command import CommandParser, Invocation
from qdqc.tools.data_options import add_data_options, add_effort_options, effort_of, source_of
from qdqc.tools.metric_options import add_metric_options, labels_of, metric_of

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.ir.graph import Module
    from qdqc.quant.deployment import Deployment
    from qdqc.search.auto.plan import AutoPlan

__all__ = ["AUTO", "add_auto_options", "auto_files", "check_auto", "planned", "write_plan"]

AUTO = "AUTO"


def add_auto_options(parser: CommandParser) -> None:
    """What AUTO judges by, and how long it may take."""
    add = parser.add_argument_group("AUTO: the best mode of every layer").add_argument
    add_data_options(parser, required=False)
    add(
        "--goal",
        default="",
        metavar="G",
        help="25dB, 5ms, or what a metric may lose, 0.01 (default: fast and near 30 dB)",
    )
    add("--budget", type=finite, default=0.0, metavar="S", help="seconds (default: by layers)")
    add("--mask", default="", metavar="INPUT", help="an input that is 0 for padding")
    add_metric_options(add)
    add_effort_options(parser)


def check_auto(args: Any) -> None:
    """What belongs to AUTO comes with it alone, and it has data. Raises QdqcError."""
    has_data = bool(args.dataset or args.data_list)
    if args.quantize != AUTO:
        for name in ("dataset", "data_list", "goal", "budget", "mask", "metric", "labels"):
            if getattr(args, name):
                note = f"leave --{name} out, or give --quantize {AUTO}"
                raise QdqcError(f"--{name} is for --quantize {AUTO}", notes=[note])
        return
    if not has_data:
        note = "give --dataset, or a mode that needs none: W8, DYN8"
        raise QdqcError(f"{AUTO} tries models on data, and none are given", notes=[note])
    if args.quantize_table:
        note = "leave --quantize_table out, or give --quantize INT8"
        raise QdqcError(f"{AUTO} finds the modes that a qtable would give", notes=[note])
    if args.quant_input or args.quant_output or args.fuse_preprocess:
        note = f"deploy with the qtable that {AUTO} writes, and with these options"
        raise QdqcError(f"{AUTO} leaves inputs and outputs as they are", notes=[note])


def planned(
    module: Module, deployment: Deployment, table: Table | None, invocation: Invocation
) -> AutoPlan:
    """Search as the options say, and show what was tried. Raises QdqcError."""
    from qdqc.flow.auto import AutoRequest, plan_auto
    from qdqc.report.auto_text import render_plan

    args = invocation.args
    request = AutoRequest(
        source=source_of(args),
        deployment=deployment,
        goal=args.goal,
        metric=metric_of(args),
        labels=labels_of(args.labels),
        budget=args.budget,
        table=table,
        mask=args.mask,
        fingerprint=[Path(f).read_bytes().hex() for f in filter(None, (args.metric, args.labels))],
        effort=effort_of(args),
    )
    plan = plan_auto(module, request, listener=invocation.listener())
    invocation.report["auto"] = plan.entries()
    invocation.conclude(render_plan(plan))
    return plan


def auto_files(output: Path) -> list[Path]:
    """The files beside the model that repeat it: qtable, calibration table and its samples."""
    from qdqc.calibration.kept_samples import samples_path

    table = output.with_suffix(".cali_table")
    return [output.with_suffix(".qtable"), table, samples_path(table)]


def write_plan(plan: AutoPlan, output: Path) -> list[Path]:
    """Write what repeats the plan by ``model_deploy``, all or none; the files."""
    from qdqc.calibration.table import table_files
    from qdqc.files import write_together
    from qdqc.quant.qtable import print_qtable

    qtable, table, _ = auto_files(output)
    files = table_files(plan.table, table) if plan.table is not None else []
    if plan.modes is not None:
        text = print_qtable(plan.modes, {"goal": plan.goal})
        files.append((qtable, text.encode()))
    write_together(files)
    return [path for path, _ in files]
