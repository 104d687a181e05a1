"""qir_opt: read IR text, run passes on it, write IR text."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, Diagnostic, Lines, QdqcError, Severity, visible
from qdqc.files import refuse_inputs
from qdqc.ir.graph import Module
from qdqc.pipeline.pass_ import Pass
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.expectations import find_expectations, mismatches
from qdqc.tools.failures import write_line
from qdqc.tools.ir_options import add_ir_options, make_passes, pass_manager

if TYPE_CHECKING:
    from qdqc.text.values import Resolve

__all__ = ["main"]

_SPLIT = re.compile(r"^// -----[^\S\n]*\n", re.MULTILINE)
_RESOURCE = re.compile(r'resource\("sha256:([0-9a-f]{64})"\)')


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _optimize, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "qir_opt",
        "Run passes on IR text. The result goes to stdout, or to a file with its sidecar.",
        "qir_opt model.qir --passes 'canonicalize,fuse-activation' -o smaller.qir",
    )
    parser.add_argument("input", nargs="?", default="-", help="a .qir file, or - for stdin")
    add = parser.add_argument
    add("--passes", default="", metavar="PIPELINE", help="such as 'a,b{x=1 y=word},@transform'")
    add("-o", "--output", metavar="F.qir", help="write there, with a sidecar, instead of stdout")
    add(
        "--split-input-file",
        action="store_true",
        help="take the parts between lines '// -----' as modules of their own",
    )
    add(
        "--verify-diagnostics",
        action="store_true",
        help="check errors and warnings against comments such as // expected-error@+1 {{text}}",
    )
    add_ir_options(parser)
    return parser


@dataclass
class _Source:
    """One module's text, with blank lines before it so that its lines count as in the file."""

    text: str
    file: str
    folder: Path
    sidecar: str | None = None
    resolve: Resolve | None = None

    def parse(self) -> Module:
        from qdqc.text.parser import parse_module

        return parse_module(self.text, file=self.file, open_sidecar=self._open)

    def _open(self, name: str) -> Resolve:
        from qdqc.text.qir_files import sidecar_opener

        self.resolve = sidecar_opener(self.folder / "text.qir")(name)
        self.sidecar = name
        return self.resolve


@dataclass
class _Outcome:
    """What became of one module: the module, or the error; and the warnings on the way."""

    source: _Source
    module: Module | None = None
    error: QdqcError | None = None
    warnings: list[Diagnostic] = field(default_factory=list)


def _optimize(invocation: Invocation) -> int:
    args = invocation.args
    passes = make_passes(args.passes, args.plugin)
    text, file, folder = _read(args.input)
    if args.output:
        refuse_inputs([args.output], [] if args.input == "-" else [args.input])
    if args.output and args.split_input_file:
        raise QdqcError("-o takes one module: it does not go with --split-input-file")
    outcomes: list[_Outcome] = []
    for part in _parts(text, args.split_input_file):
        source = _Source(part, file, folder)
        outcomes.append(_run_one(source, passes, invocation))
    if args.verify_diagnostics:
        return _check(text, outcomes)
    for outcome in outcomes:
        if outcome.error is not None:
            write_line(sys.stderr, str(outcome.error))
    _write([o for o in outcomes if o.module is not None], invocation)
    return EXIT_INPUT if any(o.error for o in outcomes) else EXIT_OK


def _read(path: str) -> tuple[str, str, Path]:
    """The text, its name in messages, and the folder where its sidecar lies."""
    from qdqc.text.qir_files import read_text

    if path != "-":
        return read_text(Path(path)), path, Path(path).parent
    return sys.stdin.read(), "<stdin>", Path()


def _parts(text: str, split: bool) -> Iterator[str]:
    if not split:
        yield text
        return
    start = 0
    for match in [*_SPLIT.finditer(text), None]:
        end = len(text) if match is None else match.start()
        yield "\n" * text.count("\n", 0, start) + text[start:end]
        start = end if match is None else match.end()


def _run_one(source: _Source, passes: Sequence[Pass], invocation: Invocation) -> _Outcome:
    from qdqc.ir.verify import check

    outcome = _Outcome(source)
    warn: Callable[[Diagnostic], object] = invocation.warn
    if invocation.args.verify_diagnostics:
        warn = outcome.warnings.append
    try:
        module = source.parse()
        check(module)
        manager = pass_manager(passes, invocation)
        manager.warn = warn
        manager.run(module)
        outcome.module = module
    except QdqcError as error:
        outcome.error = error
    return outcome


def _check(text: str, outcomes: Sequence[_Outcome]) -> int:
    """Compare what happened with what the text expects."""
    diagnostics = [w for o in outcomes for w in o.warnings]
    diagnostics += [o.error.diagnostic for o in outcomes if o.error is not None]
    problems = mismatches(find_expectations(text), diagnostics)
    for problem in problems:
        write_line(sys.stderr, Lines(f"error: {visible(outcomes[0].source.file)}: {problem}"))
    return EXIT_INPUT if problems else EXIT_OK


def _write(outcomes: Sequence[_Outcome], invocation: Invocation) -> None:
    from qdqc.text.qir_files import save

    args = invocation.args
    if args.output:
        for outcome in outcomes:
            if outcome.module is not None:
                save(outcome.module, args.output, elide=args.elide_weights)
        return
    texts: list[str] = []
    lost = 0
    for outcome in outcomes:
        text, count = _print(outcome, args.elide_weights)
        texts.append(text)
        lost += count
    if lost:
        message = f"{lost} constants that passes made are elided on stdout"
        invocation.warn(Diagnostic(Severity.WARNING, message, notes=("-o F.qir keeps them",)))
    sys.stdout.write("// -----\n".join(texts))


def _print(outcome: _Outcome, elide: bool) -> tuple[str, int]:
    """The text for stdout: what the input's sidecar has not got can't be referred to."""
    from qdqc.text.printer import print_module

    module, source = outcome.module, outcome.source
    if module is None:
        return "", 0
    if elide:
        return print_module(module, elide=True), 0
    lost = 0

    def refer(match: re.Match[str]) -> str:
        nonlocal lost
        if source.resolve is not None and source.resolve(match[1]) is not None:
            return match[0]
        lost += 1
        return f'elided("sha256:{match[1][:8]}")'

    return _RESOURCE.sub(refer, print_module(module, weights=source.sidecar)), lost


if __name__ == "__main__":
    sys.exit(main())
