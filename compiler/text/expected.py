"""What the grammar expected, in words that a reader of the text knows."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["describe", "describe_token"]

_WORDS = {
    "$END": "the end of the text",
    "MODULE": "'module'",
    "CONST": "'const'",
    "GRAPH": "'graph'",
    "SEQ": "'seq<...>'",
    "OPT": "'opt<...>'",
    "Q": "'q(...)'",
    "RANGE": "'range(...)'",
    "MODE": "'mode(...)'",
    "LOC": "'loc(...)'",
    "DENSE": "'dense[...]'",
    "RESOURCE": "'resource(...)'",
    "ELIDED": "'elided(...)'",
    "MODULE_NAME": "the module's name, such as @main",
    "VALUE": "a value, such as %x",
    "ABSENT": "'_' for an absent result",
    "NONE": "'none'",
    "TRUE": "'true'",
    "FALSE": "'false'",
    "WORD": "a name",
    "STRING": "a text in quotes",
    "NUMBER": "a number",
    "NUMBERS": "a list of numbers",
    "TENSOR": "a type, such as f32[1,3]",
    "SIZE": "a size",
    "SYMBOL": "a symbol",
    "LPAR": "'('",
    "RPAR": "')'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "EQUAL": "'='",
    "PLUS": "'+'",
    "MINUS": "'-'",
    "STAR": "'*'",
    "LESSTHAN": "'<'",
    "MORETHAN": "'>'",
    "_ARROW": "'->'",
    "FLOOR": "'//'",
}

_TYPE = frozenset({"TENSOR", "SEQ", "OPT"})
_GROUPS = (
    (
        _TYPE | {"NUMBER", "STRING", "TRUE", "FALSE", "NONE", "NUMBERS", "LSQB", "LBRACE"},
        "an attribute's value (a number, a text in quotes, a list, a type, true, false, none)",
    ),
    (frozenset({"NUMBERS", "LSQB"}), "a list in brackets"),
    (_TYPE, "a type, such as f32[1,3]"),
    (frozenset({"VALUE", "ABSENT"}), "a result, such as %y"),
    (frozenset({"WORD", "STRING"}), "an attribute's name"),
    (frozenset({"DENSE", "RESOURCE", "ELIDED"}), "dense[...], resource(...) or elided(...)"),
)


def describe(terminals: Collection[str]) -> str:
    """The terminals in words, joined by commas and ``or``."""
    left = set(terminals)
    words: list[str] = []
    for group, text in _GROUPS:
        if group <= left:
            left -= group
            words.append(text)
    words += sorted(_WORDS.get(t, t.lower()) for t in left)
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " or " + words[-1]


def describe_token(type: str, text: str) -> str:
    """What stands there instead."""
    if type == "$END":
        return "the end of the text"
    short = text if len(text) <= 40 else text[:37] + "..."
    return f"'{short}'"
