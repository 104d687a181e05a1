"""The switches that every command with a pipeline shares, and what they do."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from qdqc.ir.spelling import print_value
from qdqc.pipeline.discovery import load_passes, pipelines
from qdqc.pipeline.explain import Explain
from qdqc.pipeline.instrument import Instrument
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import PASSES, Pass, describe
from qdqc.pipeline.pass_timing import PassStatistics, TimePasses
from qdqc.pipeline.printing import DumpIR, PrintIR
from qdqc.pipeline.reproducer import CrashReproducer
from qdqc.pipeline.spec import resolve
from qdqc.tools.arguments import names
from qdqc.tools.command import CommandParser, Invocation

if TYPE_CHECKING:
    from qdqc.flow.listener import Listener

__all__ = ["add_ir_options", "add_plugin_option", "listener_of", "make_passes", "pass_manager"]


def add_ir_options(parser: CommandParser) -> None:
    """Add the IR switches. They are read by ``pass_manager``."""
    group = parser.add_argument_group("IR switches (all write to stderr)")
    add = group.add_argument
    add("--print-ir-before", type=names, default=[], metavar="A,B", help="print before passes")
    add("--print-ir-after", type=names, default=[], metavar="A,B", help="print after passes")
    add("--print-ir-after-all", action="store_true", help="print after every pass")
    add("--print-ir-after-change", action="store_true", help="print after passes that changed it")
    add("--print-ir-diff", action="store_true", help="print what each pass changed, as a diff")
    add("--dump-ir", metavar="DIR", help="write 003_fuse-activation.qir and so on into DIR")
    add("--elide-weights", action="store_true", help="leave large contents out of what is printed")
    add("--time-passes", action="store_true", help="print seconds by pass, the slowest first")
    add("--pass-statistics", action="store_true", help="print what each pass did")
    add("--explain", type=names, default=[], metavar="PASS", help="print why rules did not match")
    add("--crash-reproducer", metavar="F.qir", help="when a pass fails, write the IR before it")
    add(
        "--verify-each",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="verify after each pass",
    )
    add_plugin_option(group)
    listing: dict[str, Any] = {"action": _List, "nargs": 0}
    add(
        "--list-passes",
        const=_pass_lines,
        help="print passes, after --plugin, and leave",
        **listing,
    )
    add("--list-ops", const=_op_lines, help="print ops, after --plugin, and leave", **listing)


def add_plugin_option(group: Any) -> None:
    """Add ``--plugin`` to a parser or group; the plugins are loaded before the command begins."""
    group.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="F.py",
        help="load passes and ops from a Python file; repeatable",
    )


def listener_of(invocation: Invocation) -> Listener:
    """What hears of a flow under the switches of a command; its plugins are loaded."""
    return invocation.listener(_instruments(invocation.args))


def pass_manager(passes: Sequence[Pass], invocation: Invocation) -> PassManager:
    """A manager with the instruments that the switches ask for."""
    args = invocation.args
    return PassManager(
        passes,
        instruments=_instruments(args),
        verify_each=args.verify_each,
        warn=invocation.warn,
    )


def make_passes(pipeline: str, plugins: Sequence[str] = (), file: str = "--passes") -> list[Pass]:
    """The passes of a pipeline string, plugins loaded. Raises QdqcError."""
    if not pipeline.strip() and not plugins:
        return []
    load_passes(plugins)
    return resolve(pipeline, pipelines(), file=file)


def _instruments(args: argparse.Namespace) -> list[Instrument]:
    write = sys.stderr.write
    out: list[Instrument] = []
    if args.crash_reproducer:
        out.append(CrashReproducer(args.crash_reproducer, args.plugin))
    wanted = (args.print_ir_after_all, args.print_ir_after_change, args.print_ir_diff)
    if args.print_ir_before or args.print_ir_after or any(wanted):
        out.append(
            PrintIR(
                write,
                before=args.print_ir_before,
                after=args.print_ir_after,
                every=args.print_ir_after_all,
                on_change=args.print_ir_after_change,
                diff=args.print_ir_diff,
                elide=args.elide_weights,
            )
        )
    if args.dump_ir:
        out.append(DumpIR(args.dump_ir, elide=args.elide_weights))
    if args.explain:
        out.append(Explain(write, args.explain))
    if args.pass_statistics:
        out.append(PassStatistics(write))
    if args.time_passes:
        out.append(TimePasses(write))
    return out


class _List(argparse.Action):
    """Prints the lines that its ``const`` gives, plugins loaded, and leaves."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        load_passes(namespace.plugin)
        lines: list[str] = self.const()
        sys.stdout.write("\n".join(lines) + "\n")
        parser.exit()


def _pass_lines() -> list[str]:
    """Passes with the first line of their docstring and their options; named pipelines."""
    width = max((len(name) for name in PASSES.names()), default=0) + 2
    lines: list[str] = []
    for cls in PASSES:
        lines.append(f"{cls.name:{width}}{describe(cls)}")
        options = [_option(f) for f in dataclasses.fields(cast(Any, cls))]
        if options:
            lines.append(" " * width + "{" + " ".join(options) + "}")
    lines += [f"{'@' + name:{width}}{text}" for name, text in sorted(pipelines().items())]
    return lines


def _option(field: dataclasses.Field[Any]) -> str:
    """``name=default``, or ``name=...`` where it must be given."""
    name = field.name.replace("_", "-")
    if field.default is dataclasses.MISSING:
        return f"{name}=..."
    return f"{name}={print_value(field.default, typed_floats=True)}"


def _op_lines() -> list[str]:
    from qdqc.ir.op import OPS

    lines: list[str] = []
    for cls in OPS:
        signature = f"{cls.name}({', '.join(cls.operands)}) -> ({', '.join(cls.results)})"
        about = (cls.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"{signature}  {about}")
    return lines
