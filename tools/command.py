"""The frame of all commands: common options, exit codes, the report file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, EXIT_USAGE, Stopped, joined, suggestion
from qdqc.files import refuse_unwritable, write_whole
from qdqc.scratch import prune_scratch
from qdqc.tools.failures import failure_of, write_line
from qdqc.tools.progress import StagedProgress
from qdqc.tools.resources import PeakMemory, process_seconds
from qdqc.tools.signals import stopped_by_signals
from qdqc.user_files import fault_in_user_file
from qdqc.versions import own_version

if TYPE_CHECKING:
    from qdqc.flow.listener import Listener
    from qdqc.pipeline.instrument import Instrument

__all__ = ["CommandParser", "Invocation", "execute"]


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that states every default and keeps the lines of the example."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or action.default is argparse.SUPPRESS:
            return text
        if "%(default)" in text or "(default" in text:
            return text
        if action.nargs == 0 and not action.default:
            return f"{text} (default: off)"
        if action.default is None or action.default == []:
            return f"{text} (default: none)"
        return f"{text} (default: %(default)s)"


class CommandParser(argparse.ArgumentParser):
    """An argument parser with what all commands share.

    Options are not abbreviated. Dashes and underscores in option names are taken for each
    other, and an unknown option suggests the nearest.
    """

    def __init__(self, name: str, summary: str, example: str) -> None:
        super().__init__(
            prog=name,
            description=summary,
            epilog=f"example:\n  {example}",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        group = self.add_argument_group("common options")
        group.add_argument("--version", action="version", version=f"{name} {own_version()}")
        group.add_argument(
            "-q", "--quiet", action="count", default=0, help="no progress; -qq: no warnings"
        )
        group.add_argument(
            "-v", "--verbose", action="count", default=0, help="report more; -vv: everything"
        )
        group.add_argument("--report", metavar="FILE.json", help="write what was found as JSON")

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - one overload of two
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([self._spelling(a) for a in given], namespace)

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride] - one overload of two
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            hint = suggestion(name, self._option_string_actions)
            kind = "option" if name.startswith("-") else "argument"
            self.error(f"unknown {kind} '{name}'{hint}")
        return parsed

    def _spelling(self, word: str) -> str:
        """The option as it is declared, when it was written with dashes for underscores."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in self._option_string_actions:
            return word
        plain = name[2:].replace("_", "-")
        for known in self._option_string_actions:
            if known[:2] == "--" and known[2:].replace("_", "-") == plain:
                return known + equals + value
        return word

    def error(self, message: str) -> NoReturn:
        note = f"note: '{self.prog} --help' shows all options"
        self.exit(EXIT_USAGE, joined([f"{self.prog}: error: {message}", note]) + "\n")


@dataclass
class Invocation:
    """One run of a command: its arguments, and what goes into ``--report``."""

    args: Any
    report: dict[str, Any] = field(default_factory=dict)
    progress: StagedProgress = field(default_factory=StagedProgress)

    @property
    def verbosity(self) -> int:
        """0 as a rule, below with ``-q``, above with ``-v``."""
        return self.args.verbose - self.args.quiet

    def answer(self, text: str) -> None:
        """What was asked for, on stdout: a line, or Lines."""
        self.progress.close()
        write_line(sys.stdout, text)

    def conclude(self, text: str) -> None:
        """A verdict, or what it rests on, on stdout: a line, or Lines. Not with ``-q``."""
        if self.verbosity >= 0:
            self.answer(text)

    def tell(self, text: str) -> None:
        """A note for people, on stderr: a line, or Lines. Not with ``-q``."""
        self.progress.close()
        if self.verbosity >= 0:
            write_line(sys.stderr, text)

    def warn(self, warning: object) -> None:
        """A warning, on stderr: a Diagnostic or a text. Not with ``-qq``."""
        self.progress.close()
        if self.verbosity > -2:
            render = getattr(warning, "render", None)
            write_line(sys.stderr, render() if render else f"warning: {warning}")

    def tell_detail(self, text: str) -> None:
        """A line for people who want to know more: with ``-v``."""
        if self.verbosity > 0:
            self.tell(text)

    def listener(self, instruments: Sequence[Instrument] = ()) -> Listener:
        """What hears of a flow for this command."""
        from qdqc.flow.listener import Listener

        self.progress.shown = self.verbosity >= 0
        return Listener(
            progress=self.progress,
            warn=self.warn,
            note=self.tell,
            detail=self.tell_detail,
            instruments=instruments,
            verify_each=getattr(self.args, "verify_each", True),
        )


def execute(
    parser: CommandParser,
    action: Callable[[Invocation], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the arguments, run the action and turn whatever happens into an exit code.

    0: done. 1: the user's input, or a failed comparison. 2: usage. 3: a defect of qdqc, with
    a traceback. 130: interrupted, 143: terminated; either leaves nothing half done behind. A
    reader that closes stdout early is not a failure.
    """
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")  # a terminal without these letters
    try:
        with stopped_by_signals():
            return _execute(parser, action, argv)
    except Stopped as stop:  # between two steps
        write_line(sys.stderr, str(stop))
        return stop.code


def _execute(
    parser: CommandParser,
    action: Callable[[Invocation], int | None],
    argv: Sequence[str] | None,
) -> int:
    parsed: list[Invocation] = []
    try:
        code = _guard(parser.prog, lambda: parsed.append(Invocation(parser.parse_args(argv))))
    except SystemExit as leave:
        left = leave.code if isinstance(leave.code, int) else EXIT_INPUT
        return left or _guard(parser.prog, lambda: None)
    if not parsed:
        return code
    invocation = parsed[0]
    memory = PeakMemory()
    report_path = invocation.args.report
    if report_path:
        if refused := _guard(parser.prog, lambda: refuse_unwritable([report_path])):
            return refused
        memory.start()
    code = _guard(parser.prog, lambda: _act(action, invocation), invocation)
    if report_path:
        measured = {"seconds": process_seconds(), "peak_memory_bytes": memory.stop()}
        report = {"command": parser.prog, "exit_code": code, **measured, **invocation.report}
        written = _guard(parser.prog, lambda: _write_report(report_path, report))
        code = code or written
    return code


def _act(action: Callable[[Invocation], int | None], invocation: Invocation) -> int | None:
    """Load the plugins, whose ops a module may be made of, and run the action."""
    prune_scratch()
    plugins = getattr(invocation.args, "plugin", None)
    if plugins:
        from qdqc.pipeline.discovery import load_passes

        load_passes(plugins)
    return action(invocation)


def _write_report(path: str, report: dict[str, Any]) -> None:
    write_whole(path, json.dumps(report, indent=2, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Numpy numbers and arrays, and paths, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _guard(
    name: str, action: Callable[[], int | None], invocation: Invocation | None = None
) -> int:
    try:
        code = action() or EXIT_OK
        sys.stdout.flush()
        return code
    except BrokenPipeError as error:
        if fault_in_user_file(error) is None:
            # The reader has what it wanted. Python flushes stdout once more at exit: to nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return EXIT_OK
        failure = failure_of(name, error)
    except BaseException as error:
        known = isinstance(error, Exception | KeyboardInterrupt)
        if not known and fault_in_user_file(error) is None:
            raise  # help was asked for, or the words make no sense
        traced = invocation is not None and invocation.verbosity > 0
        failure = failure_of(name, error, traced=traced)
    if invocation is not None:
        invocation.progress.close()
        invocation.report.setdefault("error", failure.text)
    write_line(sys.stderr, failure.text)
    return failure.code
