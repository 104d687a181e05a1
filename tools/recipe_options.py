"""run_calibration's options that tune the model: --recipe and --tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError
from qdqc.tools.command import CommandParser, Invocation

if TYPE_CHECKING:
    from qdqc.tuning.recipe import Step, Tuned

__all__ = ["add_recipe_options", "check_recipe", "render_recipe", "tuned_files"]


def add_recipe_options(parser: CommandParser) -> None:
    """The options, as a group of their own."""
    add = parser.add_argument_group("tuning of the weights").add_argument
    add("--recipe", metavar="R", help="fast, balanced or best: tune the model for INT8")
    add("--tuned", metavar="OUT.qir", help="the tuned model, to which the table then belongs")
    add("--target", default="ort-cpu", metavar="NAME", help="what the tuned model will run on")


def check_recipe(args: Any) -> None:
    """What can be checked before anything is read. Raises QdqcError."""
    if bool(args.recipe) is not bool(args.tuned):
        raise QdqcError(
            "--recipe makes a tuned model, which --tuned names: one does not go without the other",
            notes=["such as --recipe balanced --tuned model_tuned.qir"],
        )
    if args.recipe and Path(args.tuned).suffix != ".qir":
        raise QdqcError(f"--tuned {args.tuned} must end in .qir")


def tuned_files(args: Any) -> list[Path]:
    """The files that the tuned model takes."""
    out = Path(args.tuned) if args.tuned else None
    return [out, out.with_suffix(".safetensors")] if out else []


def render_recipe(tuned: Tuned, invocation: Invocation) -> None:
    """What each step of the recipe gained."""
    args = invocation.args
    invocation.conclude(f"recipe {args.recipe}, judged by the SQNR of the deployed outputs in dB:")
    for step in tuned.steps:
        invocation.conclude(f"  {step.pipeline}: {_outcome(step)}, {step.seconds:.1f} s")
    invocation.report["recipe"] = {
        "name": args.recipe,
        "tuned": args.tuned,
        "steps": tuned.entries(),
    }


def _outcome(step: Step) -> str:
    if step.after is None:
        return "nothing to change"
    left = "" if step.kept else ", left out"
    return f"{step.before.sqnr:.2f} to {step.after.sqnr:.2f}{left}"
