"""Pipeline strings: ``a,b{x=1 y="k"},@transform``.

Options stand in braces, separated by spaces, with values as the IR spells attributes. A bare
word is a text. Dashes in option names stand for the underscores of the fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.fields import FieldError, decode, encode
from qdqc.ir.loc import Loc, Position
from qdqc.pipeline.pass_ import PASSES, Pass
from qdqc.registry import Registry

__all__ = ["Step", "instance_of", "parse_pipeline", "print_item", "print_pipeline", "resolve"]

T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<punct>[,{}=\[\]@])
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<word>[\w.+:/*$-]+)
      | (?P<bad>.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z")
_CONSTANTS: Mapping[str, Any] = {
    "true": True,
    "false": False,
    "none": None,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
}


@dataclass(frozen=True)
class Step:
    """One item of a pipeline string: a pass with its options, or a named pipeline.

    ``places`` holds where the item (key ``""``) and each option stand.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    places: Mapping[str, Position] = field(default_factory=dict, compare=False, repr=False)

    def place(self, option: str = "") -> Position | None:
        return self.places.get(option, self.places.get(""))


def parse_pipeline(text: str, file: str = "<pipeline>") -> list[Step]:
    """The items of a pipeline string, in order, named pipelines unexpanded.

    Raises QdqcError with a caret where the text does not follow the syntax.
    """
    return _Reader(text, file).pipeline()


def resolve(
    text: str,
    pipelines: Mapping[str, str] | None = None,
    registry: Registry[type[Pass]] = PASSES,
    file: str = "<pipeline>",
) -> list[Pass]:
    """The passes of a pipeline string, named pipelines expanded.

    Raises QdqcError for syntax, unknown names and options that do not fit.
    """
    return _expand(text, pipelines or {}, registry, file, ())


def print_pipeline(passes: Iterable[Pass]) -> str:
    """The string that ``resolve`` reads back as the same passes; defaults are left out."""
    return ",".join(map(print_item, passes))


def print_item(item: Any) -> str:
    """``name{option=value}`` of a pass, or of another dataclass of options that has a name."""
    options = " ".join(f"{name.replace('_', '-')}={text}" for name, text in encode(item))
    return f"{item.name}{{{options}}}" if options else item.name


def _expand(
    text: str,
    pipelines: Mapping[str, str],
    registry: Registry[type[Pass]],
    file: str,
    within: tuple[str, ...],
) -> list[Pass]:
    out: list[Pass] = []
    for step in parse_pipeline(text, file):
        if not step.named:
            out.append(_make(step, registry, pipelines))
        elif step.name not in pipelines:
            known = ", ".join(f"@{n}" for n in sorted(pipelines)) or "none"
            hint = suggestion(f"@{step.name}", [f"@{n}" for n in pipelines])
            raise _error(f"unknown pipeline '@{step.name}'{hint} (known: {known})", step.place())
        elif step.name in within:
            circle = " -> ".join(f"@{n}" for n in (*within, step.name))
            raise _error(f"the named pipeline contains itself: {circle}", step.place())
        else:
            inner = pipelines[step.name]
            out += _expand(inner, pipelines, registry, f"@{step.name}", (*within, step.name))
    return out


def _make(step: Step, registry: Registry[type[Pass]], pipelines: Mapping[str, str]) -> Pass:
    cls = registry.get(step.name)
    if cls is None:
        message = f"unknown pass '{step.name}'"
        if step.name in pipelines:
            message += f"; the named pipeline is written '@{step.name}'"
        else:
            message += suggestion(step.name, registry.names())
        raise _error(message, step.place(), "--list-passes shows all passes")
    return instance_of(cls, step, f"pass '{step.name}'")


def instance_of(cls: type[T], step: Step, what: str) -> T:
    """The dataclass of an item's options; ``what`` names it in messages.

    Raises QdqcError, located at the option that does not fit.
    """
    try:
        return decode(cls, step.options, what)
    except (FieldError, ValueError) as error:
        at = next((o for o in step.options if f"'{o}'" in str(error)), "")
        raise QdqcError(_dashed(str(error), step), loc=Loc((), step.place(at))) from None


def _dashed(message: str, step: Step) -> str:
    """The codec speaks of fields; on a command line they are spelt with dashes."""
    known = sorted(step.options, key=len, reverse=True)
    for name in known:
        message = message.replace(f"'{name}'", f"'{name.replace('_', '-')}'")
    return message


def _error(message: str, place: Position | None, *notes: str) -> QdqcError:
    return QdqcError(message, loc=Loc((), place), notes=notes)


class _Reader:
    """A reader with one token of look-ahead; ``at`` counts tokens that are not space."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        matches = _TOKEN.finditer(text)
        self.tokens = [m for m in matches if m.lastgroup != "space"]
        self.at = 0

    def pipeline(self) -> list[Step]:
        steps: list[Step] = []
        if not self.tokens:
            return steps
        steps.append(self.step())
        while self.at < len(self.tokens):
            self.expect(",", "',' or the end of the pipeline")
            steps.append(self.step())
        return steps

    def step(self) -> Step:
        named = self.peek() == "@"
        place = self.place()
        self.at += named
        name = self.word("the name of a pass")
        places = {"": replace(place, width=len(name) + named)}
        options: dict[str, Any] = {}
        if self.peek() == "{":
            if named:
                raise self.error(f"'@{name}' is a named pipeline, which takes no options")
            self.at += 1
            self.options(name, options, places)
        return Step(name, options, named, places)

    def options(self, owner: str, options: dict[str, Any], places: dict[str, Position]) -> None:
        while self.peek() != "}":
            place = self.place()
            if self.peek() == ",":
                raise self.error("options are separated by spaces, not by commas")
            key = self.word(f"an option of '{owner}' or '}}'").replace("-", "_")
            if key in options:
                raise _error(f"option '{key.replace('_', '-')}' is given twice", place)
            self.expect("=", "'=' and the option's value")
            places[key] = place
            options[key] = self.value()
        self.at += 1

    def value(self) -> Any:
        if self.peek() == "[":
            return self.array()
        match = self.tokens[self.at] if self.at < len(self.tokens) else None
        if match is not None and match.lastgroup == "text":
            self.at += 1
            try:
                return json.loads(match[0])
            except json.JSONDecodeError:
                self.at -= 1
                raise self.error("this is not valid text: escapes are those of JSON") from None
        word = self.word("a value: a number, a word, a quoted text or a [list]")
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if _NUMBER.match(word):
            return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
        return word

    def array(self) -> tuple[Any, ...]:
        self.at += 1
        items: list[Any] = []
        while self.peek() != "]":
            if items:
                self.expect(",", "',' or ']'")
            items.append(self.value())
        self.at += 1
        return tuple(items)

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def word(self, wanted: str) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at].lastgroup != "word":
            raise self.error(f"expected {wanted}, found {self.found()}")
        self.at += 1
        return self.tokens[self.at - 1][0]

    def expect(self, punct: str, wanted: str) -> None:
        if self.peek() != punct:
            raise self.error(f"expected {wanted}, found {self.found()}")
        self.at += 1

    def found(self) -> str:
        return f"'{self.peek()}'" if self.at < len(self.tokens) else "the end of the text"

    def error(self, message: str) -> QdqcError:
        return _error(
            message, self.place(), "the form is: first-pass,second-pass{option=1 other=text}"
        )

    def place(self) -> Position:
        """Where the next token stands, or the end of the text."""
        match = self.tokens[self.at] if self.at < len(self.tokens) else None
        offset = len(self.text) if match is None else match.start()
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        line = self.text[start : end if end >= 0 else len(self.text)]
        number = self.text.count("\n", 0, offset) + 1
        width = len(match[0].partition("\n")[0]) if match is not None else 1
        return Position(self.file, number, offset - start + 1, line, width)
