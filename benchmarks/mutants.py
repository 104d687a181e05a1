"""Mutants: a model, an IR text, a file of lines or of bytes with one to four changes."""

from __future__ import annotations

import random
import re
from typing import Any

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto

__all__ = ["mutated_bytes", "mutated_lines", "mutated_model", "mutated_text"]

_WORD = re.compile(r"(?P<value>%[\w.]+)|(?P<number>-?\d+(\.\d+)?)|(?P<word>[a-z_]\w*)")
_ODD = ("0", "-1", "2", "99999999999")
_LINE_WORD = re.compile(r"[^\s,:()\[\]{}\"'=]+")
_ODD_WORDS = ("nan", "-inf", "1e400", "-1", "0", "99999999999999999999", "x", '"', "é\u202e", "\0")


def mutated_model(rng: random.Random, source: ModelProto) -> ModelProto | None:
    """A model with one to three changes; None where no protobuf is left."""
    model = ModelProto()
    model.CopyFrom(source)
    if rng.random() < 0.3:
        data = bytearray(model.SerializeToString())
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            if rng.random() < 0.7:
                data[at] = rng.randrange(256)
            else:
                del data[at]
        try:
            return ModelProto.FromString(bytes(data))
        except DecodeError:
            return None
    for _ in range(rng.randint(1, 3)):
        _change(model, rng)
    return model


def _change(message: Message, rng: random.Random) -> None:
    """Alter a random field of a message, or of one inside it."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    repeated = hasattr(value, "append") or hasattr(value, "add")
    if repeated and len(value) and rng.random() < 0.3:
        at = rng.randrange(len(value))
        if rng.random() < 0.5:
            del value[at]
        else:
            value.append(value[at])
        return
    inner = value[rng.randrange(len(value))] if repeated and len(value) else value
    if isinstance(inner, Message):
        if rng.random() < 0.9:
            _change(inner, rng)
        else:
            message.ClearField(field.name)
    elif repeated and len(value):
        value[rng.randrange(len(value))] = _other(inner, rng)
    elif not repeated:
        try:
            setattr(message, field.name, _other(value, rng))
        except (TypeError, ValueError):
            message.ClearField(field.name)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([0, -1, 1, 2, value + 1, 1 << 20, (1 << 31) - 1, rng.randrange(40)])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    if isinstance(value, bytes):
        return value[: rng.randrange(len(value) + 1)]
    return rng.choice(
        ["", "x", "w", "y", "Add", "Reshape", "Loop", "ai.onnx", "../x", "link.bin", value * 2]
    )


def mutated_text(rng: random.Random, text: str) -> str:
    """The text of a module with pieces cut, doubled, altered, or one word put for another.

    Most cut pieces are refused by the grammar; words for their like come further.
    """
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            words = list(_WORD.finditer(text))
            old = rng.choice(words)
            like = [w[0] for w in words if w.lastgroup == old.lastgroup]
            text = text[: old.start()] + rng.choice([*like, *_ODD]) + text[old.end() :]
        return text
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        length = rng.choice([1, 1, 2, 5, 20, 80])
        piece = text[at : at + length]
        other = rng.choice(
            ["", piece * 2, "9", "-", "%x", "f32[", ")", '"', "\0", "é", "none", "}"]
        )
        text = text[:at] + other + text[at + length :]
    return text


def mutated_lines(rng: random.Random, text: str) -> str:
    """A text file with lines doubled, dropped or cut, or one word put for another or an odd one."""
    for _ in range(rng.randint(1, 3)):
        lines = text.splitlines(keepends=True) or [""]
        at = rng.randrange(len(lines))
        words = list(_LINE_WORD.finditer(lines[at]))
        kind = rng.random()
        if words and kind < 0.6:
            old = rng.choice(words)
            new = rng.choice([*_LINE_WORD.findall(text), *_ODD_WORDS])
            lines[at] = lines[at][: old.start()] + new + lines[at][old.end() :]
        elif kind < 0.7:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        elif kind < 0.85:
            lines.insert(rng.randrange(len(lines)), lines[at])
        else:
            del lines[at]
        text = "".join(lines)
    return text


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """A file with bytes altered, its end cut off, or a piece of it dropped, doubled or zeroed.

    Half of the changes fall into its first or last 200 bytes, where formats keep what they say of
    themselves.
    """
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not changed:
            break
        size = len(changed)
        at = rng.randrange(size)
        if rng.random() < 0.5:
            at = min(size - 1, rng.randrange(200))
            at = size - 1 - at if rng.random() < 0.5 else at
        kind, length = rng.random(), rng.choice([1, 2, 8, 64])
        if kind < 0.5:
            changed[at] = rng.choice([0, 1, 255, changed[at] ^ (1 << rng.randrange(8))])
        elif kind < 0.6:
            del changed[at:]
        elif kind < 0.75:
            del changed[at : at + length]
        elif kind < 0.9:
            changed[at:at] = changed[at : at + length]
        else:
            changed[at : at + length] = bytes(len(changed[at : at + length]))
    return bytes(changed)
