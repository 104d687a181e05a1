"""npz_tool: look into npz files, and compare one run with another."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import EXIT_INPUT, EXIT_OK, QdqcError, joined, suggestion
from qdqc.tools.arguments import names, tolerance
from qdqc.tools.command import CommandParser, Invocation, execute

if TYPE_CHECKING:
    from qdqc.data.archive import Archive
    from qdqc.runtime.comparison.compare import Comparison

__all__ = ["COMMANDS", "main"]

_SHOWN = 5
"""Names that a message lists before it says how many more there are."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its first word says which part. Returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for index, word in enumerate(words):
        if word in COMMANDS:
            parser, action, _ = COMMANDS[word]
            return execute(parser(), action, words[:index] + words[index + 1 :])
        if not word.startswith("-"):
            break
    return execute(_overview(), lambda _: EXIT_OK, words)


def _overview() -> CommandParser:
    parser = CommandParser(
        "npz_tool",
        "Look into npz files, and compare two of them. Commands:\n"
        + "\n".join(f"  {name:<15}{text}" for name, (_, _, text) in COMMANDS.items()),
        "npz_tool compare int8.npz float.npz --tolerance 0.9,0.8 -v\n  npz_tool compare --help",
    )
    parser.add_argument(
        "command", type=_known, metavar="COMMAND", help=f"one of {', '.join(COMMANDS)}"
    )
    return parser


def _known(word: str) -> str:
    raise argparse.ArgumentTypeError(f"unknown command '{word}'{suggestion(word, COMMANDS)}")


def _compare_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool compare",
        "Compare the arrays that two npz files share by name. Exit code 1 when one fails.",
        "npz_tool compare int8.npz float.npz --tolerance 0.9,0.8 --save worst.csv",
    )
    add = parser.add_argument
    add("target", metavar="A.npz", help="what is judged")
    add("reference", metavar="B.npz", help="what it is compared with; its order counts")
    add(
        "--tolerance",
        type=tolerance,
        default=(0.99, 0.99),
        metavar="COS,EUCLID",
        help="least similarity (default: 0.99,0.99)",
    )
    add("--excepts", type=names, default=[], metavar="A,B", help="names or globs to leave out")
    add(
        "--per_axis_compare",
        type=_axis,
        metavar="N",
        help="a row for each index along this axis too, such as 1 for channels",
    )
    add("--save", metavar="F.csv", help="write all figures")
    return parser


def _axis(word: str) -> int:
    if word.isdecimal():
        return int(word)
    raise argparse.ArgumentTypeError(f"'{word}' is not an axis; axes count from 0")


def _compare(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive
    from qdqc.files import refuse_inputs, refuse_unwritable, write_whole
    from qdqc.report.comparison_text import comparison_csv, render_comparison
    from qdqc.runtime.comparison.compare_files import compare_files

    args = invocation.args
    if args.save:
        refuse_inputs([args.save], [args.target, args.reference])
        refuse_unwritable([args.save])
    with Archive(args.target) as target, Archive(args.reference) as reference:
        _check_names(target, reference, invocation)
        comparison = compare_files(
            target, reference, args.tolerance, args.excepts, args.per_axis_compare
        )
    if not comparison.rows:
        raise QdqcError("--excepts leaves nothing to compare", notes=["name fewer arrays in it"])
    if args.save:
        write_whole(args.save, comparison_csv(comparison))
    _report(comparison, invocation)
    invocation.answer(render_comparison(comparison, every=invocation.verbosity > 0))
    invocation.answer(f"npz compare {'PASSED' if comparison.passed else 'FAILED'}")
    return EXIT_OK if comparison.passed else EXIT_INPUT


def _check_names(target: Archive, reference: Archive, invocation: Invocation) -> None:
    """Report names that only one file has. Raises QdqcError when they share none."""
    missing = [n for n in reference if n not in target]
    if len(missing) == len(reference):
        raise QdqcError(
            f"the files share no name: it has {_listed(list(target))}; "
            f"{reference.path} has {_listed(missing)}",
            file=str(target.path),
            notes=["dump both with names of the same model; npz_tool rename gives other names"],
        )
    extra = [n for n in target if n not in reference]
    for path, only in ((reference.path, missing), (target.path, extra)):
        if only and invocation.verbosity > 0:
            invocation.warn(f"only {path} has {_listed(only)}: not compared")
    if missing or extra:
        counts = f"{len(missing)} only in {reference.path}, {len(extra)} only in {target.path}"
        invocation.tell(f"names that both files have are compared ({counts})")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:_SHOWN]) or "nothing"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _report(comparison: Comparison, invocation: Invocation) -> None:
    first = comparison.first_failure
    invocation.report |= {
        "compared": len(comparison.rows),
        "failed": sum(not r.passed for r in comparison.rows),
        "passed": comparison.passed,
        "first_failure": None if first is None else first.name,
    }


def _dump_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool dump",
        "List the arrays of an npz file, or show one of them.",
        "npz_tool dump out.npz logits 10",
    )
    add = parser.add_argument
    add("file", metavar="F.npz", help="what is looked into")
    add("key", nargs="?", metavar="NAME", help="show this array (default: list all)")
    add("count", nargs="?", type=int, default=16, metavar="K", help="elements shown, -1 for all")
    return parser


def _dump(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive
    from qdqc.report.arrays import render_array

    args = invocation.args
    with Archive(args.file) as archive:
        if args.key is not None:
            invocation.answer(render_array(archive, args.key, args.count))
            return EXIT_OK
        for name in archive:
            invocation.answer(f"{name}  {archive.header(name)}")
        invocation.report["arrays"] = list(archive)
    return EXIT_OK


def _statistic_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool statistic",
        "Extremes, moments, zeros and odd elements (NaN, infinities) of the arrays of an npz file.",
        "npz_tool statistic out.npz '/block1/*' --per_axis 1 --save out.csv",
    )
    add = parser.add_argument
    add("file", metavar="F.npz", help="what is looked into")
    add("names", nargs="?", type=names, default=["*"], metavar="A,B", help="names or globs")
    add("--per_axis", type=_axis, metavar="N", help="a row for each index along this axis too")
    add("--save", metavar="F.csv", help="write all figures")
    return parser


def _statistic(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive
    from qdqc.files import refuse_inputs, refuse_unwritable, write_whole
    from qdqc.report.arrays import render_statistics, statistics_csv, statistics_of
    from qdqc.runtime.comparison.compare import excepted

    args = invocation.args
    if args.save:
        refuse_inputs([args.save], [args.file])
        refuse_unwritable([args.save])
    with Archive(args.file) as archive:
        chosen = [n for n in archive if excepted(n, args.names)]
        if not chosen:
            raise QdqcError(
                f"no array is named {_listed(args.names)}{suggestion(args.names[0], archive)}",
                file=args.file,
                notes=[f"npz_tool dump {args.file} lists its {len(archive)} arrays"],
            )
        rows = [row for name in chosen for row in statistics_of(archive, name, args.per_axis)]
    if args.save:
        write_whole(args.save, statistics_csv(rows))
    invocation.report["arrays"] = chosen
    invocation.answer(render_statistics(rows))
    return EXIT_OK


def _visualize_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool visualize_diff",
        "Show where an array differs between two npz files.",
        "npz_tool visualize_diff int8.npz float.npz logits --per_axis 1",
    )
    add = parser.add_argument
    add("target", metavar="A.npz", help="what is judged")
    add("reference", metavar="B.npz", help="what it is compared with")
    add("key", nargs="?", metavar="NAME", help="the array (default: the one that is worst)")
    add("--count", type=int, default=10, metavar="K", help="elements that are listed")
    add("--per_axis", type=_axis, metavar="N", help="the worst indices along this axis too")
    return parser


def _visualize(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive
    from qdqc.report.apart import apart, render_apart, worst_parts
    from qdqc.report.comparison_text import render_similarity
    from qdqc.runtime.comparison.compare_files import similarities

    args = invocation.args
    with Archive(args.target) as target, Archive(args.reference) as reference:
        name = args.key or _worst(target, reference, invocation)
        deviations = apart(target, reference, name, max(0, args.count))
        rows = similarities(name, target, reference)
        invocation.answer(render_similarity(next(rows)))
        invocation.answer(render_apart(deviations))
        if args.per_axis is not None and args.per_axis < len(deviations.shape):
            parts = worst_parts(target, reference, name, args.per_axis)
            invocation.answer(joined([f"worst along axis {args.per_axis}:", *parts]))
    invocation.report |= {"name": name, "largest": deviations.reach, "rms": deviations.rms}
    return EXIT_OK


def _worst(target: Archive, reference: Archive, invocation: Invocation) -> str:
    """The array with the lowest euclidean similarity, of those that can be compared."""
    from qdqc.runtime.comparison.compare_files import compare_files

    _check_names(target, reference, invocation)
    rows = [r for r in compare_files(target, reference).worst(len(reference)) if not r.note]
    if not rows:
        raise QdqcError(
            "no array has the same shape in both files",
            file=str(target.path),
            notes=["npz_tool compare shows the shapes"],
        )
    return rows[0].name


def _extract_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool extract",
        "Write some arrays of an npz file to another.",
        "npz_tool extract out.npz part.npz logits,probs",
    )
    add = parser.add_argument
    add("file", metavar="F.npz", help="what is read")
    add("output", metavar="OUT.npz", help="what is written")
    add("names", type=names, metavar="A,B", help="names of arrays")
    return parser


def _extract(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive

    args = invocation.args
    with Archive(args.file) as archive:
        return _write({n: (archive, n) for n in args.names}, invocation)


def _merge_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool merge",
        "Write the arrays of several npz files to one; of equal names the last counts.",
        "npz_tool merge a.npz b.npz both.npz",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="F.npz", help="what is read")
    add("output", metavar="OUT.npz", help="what is written")
    return parser


def _merge(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive

    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(Archive(path)) for path in invocation.args.files]
        return _write({name: (file, name) for file in files for name in file}, invocation)


def _rename_parser() -> CommandParser:
    parser = CommandParser(
        "npz_tool rename",
        "Write an npz file with one array under another name.",
        "npz_tool rename out.npz renamed.npz logits scores",
    )
    add = parser.add_argument
    add("file", metavar="F.npz", help="what is read")
    add("output", metavar="OUT.npz", help="what is written")
    add("old", metavar="OLD", help="name of the array")
    add("new", metavar="NEW", help="its new name")
    return parser


def _rename(invocation: Invocation) -> int:
    from qdqc.data.archive import Archive

    args = invocation.args
    with Archive(args.file) as archive:
        if args.new in archive:
            raise QdqcError(
                f"there is already an array '{args.new}'",
                file=args.file,
                notes=["give another name"],
            )
        archive.header(args.old)
        renamed = {args.new if n == args.old else n: (archive, n) for n in archive}
        return _write(renamed, invocation)


def _write(arrays: dict[str, tuple[Archive, str]], invocation: Invocation) -> int:
    from qdqc.data.archive import copy_arrays

    output = Path(invocation.args.output)
    copy_arrays(output, arrays)
    invocation.report["arrays"] = list(arrays)
    invocation.tell(f"wrote {output}: {len(arrays)} arrays")
    return EXIT_OK


COMMANDS: dict[str, tuple[Callable[[], CommandParser], Callable[[Invocation], int | None], str]] = {
    "compare": (_compare_parser, _compare, "compare the arrays of two files"),
    "visualize_diff": (_visualize_parser, _visualize, "show where an array differs"),
    "statistic": (_statistic_parser, _statistic, "extremes, moments and odd elements"),
    "dump": (_dump_parser, _dump, "list the arrays of a file, or show one"),
    "extract": (_extract_parser, _extract, "write some arrays to another file"),
    "merge": (_merge_parser, _merge, "write the arrays of several files to one"),
    "rename": (_rename_parser, _rename, "write a file with one array under another name"),
}
"""Each part with its parser, what it does, and its line in the overview."""


if __name__ == "__main__":
    raise SystemExit(main())
