"""The qtable: lines ``name mode`` that say in which mode single nodes are deployed."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qdqc.diagnostics import QdqcError, suggestion, visible
from qdqc.files import read_text
from qdqc.ir.graph import Graph
from qdqc.ir.loc import Loc, Position

__all__ = [
    "ALIASES",
    "EMPTY",
    "MODES",
    "TOLERANCES",
    "Qtable",
    "QtableLine",
    "load_qtable",
    "mode_named",
    "parse_qtable",
    "plan",
    "print_qtable",
]

MODES = ("F32", "F16", "INT8", "DYN8", "W8", "W4")
"""Modes that a node may be deployed in: float, half precision, static integers, integers whose
scale is found as the model runs, and float with weights of 8 or 4 bits."""

TOLERANCES: Mapping[str, tuple[float, float]] = {
    "INT8": (0.90, 0.80),
    "DYN8": (0.90, 0.80),
    "W8": (0.99, 0.90),
    "W4": (0.90, 0.70),
    "F16": (0.99, 0.98),
    "F32": (0.99, 0.99),
}
"""Least cosine and euclidean similarity of a deployed model's outputs to float, by mode."""

ALIASES: Mapping[str, str] = {
    "FLOAT": "F32",
    "FP32": "F32",
    "FP16": "F16",
    "HALF": "F16",
    "UINT8": "INT8",
    "I8": "INT8",
    "W8F16": "W8",
    "W8BF16": "W8",
    "W4F16": "W4",
    "W4BF16": "W4",
}
"""Other spellings; those of TPU-MLIR name the float type beside the weight, which is f32 here."""

_GLOB = re.compile(r"[*?\[]")
_COMMENT = re.compile(r"\s#.*$")
_MODE = re.compile(r"\s\S+\s*\??\s*$")


@dataclass(frozen=True)
class QtableLine:
    """One line: a name or pattern, its mode, and whether it may match nothing (``?``)."""

    pattern: str
    mode: str
    optional: bool = False
    loc: Loc = field(default=Loc(), compare=False, repr=False)

    @property
    def is_exact(self) -> bool:
        return not self.pattern.startswith(("type:", "re:")) and not _GLOB.search(self.pattern)

    def matches(self, name: str, op: str) -> bool:
        """Whether the line speaks of the node of that name and op."""
        if self.pattern.startswith("type:"):
            return fnmatch.fnmatchcase(op, self.pattern.removeprefix("type:"))
        if self.pattern.startswith("re:"):
            return re.fullmatch(self.pattern.removeprefix("re:"), name) is not None
        return self.pattern == name or (
            not self.is_exact and fnmatch.fnmatchcase(name, self.pattern)
        )


def mode_named(text: str) -> str | None:
    """The mode by its name or alias in any case; None for an unknown one."""
    upper = text.upper()
    mode = ALIASES.get(upper, upper)
    return mode if mode in MODES else None


@dataclass(frozen=True)
class Qtable:
    """The lines of a qtable, in their order: a later one wins."""

    lines: tuple[QtableLine, ...] = ()

    @classmethod
    def of(cls, modes: Mapping[str, str]) -> Qtable:
        """From modes by names and patterns, as lines have them. Raises QdqcError."""
        return cls(tuple(_line(pattern, mode, Loc()) for pattern, mode in modes.items()))

    @property
    def digest(self) -> str:
        """sha256 of what the lines say, in hexadecimal."""
        said = [[line.pattern, line.mode, line.optional] for line in self.lines]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


EMPTY = Qtable()


def load_qtable(path: str | Path) -> Qtable:
    """The qtable of a file. Raises QdqcError, located, for what can't be read."""
    step = "give a text file with lines 'name mode', as run_qtable writes it"
    return parse_qtable(read_text(path, "qtable", step), str(path))


def parse_qtable(text: str, file: str) -> Qtable:
    """The qtable of a text. Raises QdqcError, located, for a malformed line."""
    lines: list[QtableLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if content and not content.startswith("#"):
            lines.append(_parse_line(content, Loc((), _position(file, number, line, content))))
    return Qtable(tuple(lines))


def print_qtable(modes: Mapping[str, str], header: Mapping[str, object] = {}) -> str:
    """The text of a qtable, names in the order given; ``header`` goes into comments."""
    out = [f"# {key}: {visible(' '.join(str(value).split()))}" for key, value in header.items()]
    out += ["###", "# op_name   quantize_mode"]
    out += [f"{_print_name(name)} {mode}" for name, mode in modes.items()]
    return "\n".join(out) + "\n"


def _print_name(name: str) -> str:
    """A name that is one plain word as it is, any other one as a JSON string."""
    plain = name.isprintable() and not any(c.isspace() for c in name)
    return name if plain and name[:1] not in ("#", '"', "") else json.dumps(name)


def _position(file: str, number: int, line: str, content: str) -> Position:
    return Position(file, number, line.index(content) + 1, line, len(content))


def _parse_line(content: str, loc: Loc) -> QtableLine:
    pattern, rest = _split_name(content, loc)
    optional = rest.endswith("?")
    mode_text = rest.removesuffix("?").rstrip()
    if not pattern or not mode_text:
        raise QdqcError(
            "a qtable line is a name and a mode", loc=loc, notes=["write it as 'name F32'"]
        )
    return _line(pattern, mode_text, loc, optional=optional)


def _line(pattern: str, mode_text: str, loc: Loc, *, optional: bool = False) -> QtableLine:
    """Raises QdqcError for an unknown mode, and for a pattern that is none."""
    mode = mode_named(mode_text)
    if mode is None:
        known = ", ".join(MODES)
        raise QdqcError(
            f"unknown mode '{mode_text}'{suggestion(mode_text.upper(), [*MODES, *ALIASES])}",
            loc=loc,
            notes=[f"modes are {known}"],
        )
    if pattern.startswith("re:"):
        try:
            re.compile(pattern.removeprefix("re:"))
        except re.error as error:
            raise QdqcError(f"'{pattern}' is no regular expression: {error}", loc=loc) from error
    return QtableLine(pattern, mode, optional, loc)


def _split_name(content: str, loc: Loc) -> tuple[str, str]:
    """The name or pattern of a line, and what follows it but for a comment.

    The mode is the last word, so that a regular expression may hold blanks.
    """
    if content.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(content)
        except ValueError as error:
            raise QdqcError(f"the name {content} is not a JSON string", loc=loc) from error
        return name, _COMMENT.sub("", content[end:]).strip()
    body = _COMMENT.sub("", content)
    match = _MODE.search(body)
    return (body[: match.start()].strip(), match[0].strip()) if match else (body, "")


def plan(graph: Graph, default: str, qtable: Qtable = EMPTY) -> dict[str, str]:
    """The mode of every node by its name, those of nested graphs with them.

    A later line wins over an earlier one, an exact name over a pattern; what is the name of a
    node is no pattern. Raises QdqcError for a line that matches nothing, unless it ends in
    ``?``.
    """
    ops = {r.name: n for n in graph.walk() for r in n.present_results}
    modes = {n.name: default for n in graph.walk()}

    def is_exact(line: QtableLine) -> bool:
        return line.is_exact or line.pattern in ops

    for line in sorted(qtable.lines, key=is_exact):
        if is_exact(line):
            named = ops.get(line.pattern)
            hits = [] if named is None else [named.name]
        else:
            hits = [n.name for n in graph.walk() if line.matches(n.name, n.op.name)]
        if not hits and not line.optional:
            known = [*ops, *(f"type:{n.op.name}" for n in ops.values())]
            raise QdqcError(
                f"'{line.pattern}' matches no node{suggestion(line.pattern, known)}",
                loc=line.loc,
                notes=["names are those of the .qir file; end the line in '?' if it may miss"],
            )
        modes.update((name, line.mode) for name in hits)
    return modes
