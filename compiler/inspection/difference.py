"""What differs between two modules, thing by thing, by name.

A node is known by its first result, a constant by the operand that it is: names of constants
change with every pass that rewrites them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.fields import encode
from qdqc.ir.graph import Module
from qdqc.ir.spelling import print_type, print_value
from qdqc.ir.types import Quant, Range, TensorType, Type
from qdqc.ir.view import reads
from qdqc.ops import CASTS
from qdqc.quant.arithmetic import numbers
from qdqc.runtime.comparison.compare import decibels

__all__ = ["Change", "Detail", "Difference", "brief_type", "difference"]

_NONE = "none"
_COUNTED = ("op", "mode", "precision")
"""Aspects with few texts, which a summary counts."""

_BETWEEN_PASSES = re.compile(r",(?![^{]*\})")


@dataclass(frozen=True)
class Detail:
    """One aspect of a thing, as it was and as it is."""

    aspect: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """A node, an input or the module itself: added ``+``, removed ``-`` or changed ``~``.

    ``note`` says where what a removed node stood for is now, or from where an added one comes.
    """

    sign: str
    op: str
    name: str
    details: tuple[Detail, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """All changes, in the order of the module after, and how many nodes each module has."""

    changes: tuple[Change, ...]
    nodes: tuple[int, int]

    @property
    def counts(self) -> dict[str, int]:
        """How many things were added, removed and changed."""
        signs = Counter(c.sign for c in self.changes)
        return {"added": signs["+"], "removed": signs["-"], "changed": signs["~"]}

    def by_aspect(self) -> dict[str, int]:
        """How many things changed in an aspect, the most frequent first."""
        named = (dict.fromkeys(d.aspect for d in c.details) for c in self.changes)
        return dict(Counter(aspect for aspects in named for aspect in aspects).most_common())

    def moves(self) -> list[tuple[Detail, int]]:
        """Changes of op, mode and precision with their number, the most frequent first."""
        counts = Counter(d for c in self.changes for d in c.details if d.aspect in _COUNTED)
        return counts.most_common()


def difference(before: Module, after: Module) -> Difference:
    """What was added, removed and changed between two modules."""
    ours, theirs = _nodes(after), _nodes(before)
    changes = [c for c in (_module_change(before, after),) if c is not None]
    changes += _input_changes(before, after)
    went, came = _homes(ours, theirs), _homes(theirs, ours)
    for name, node in _merged(theirs, ours):
        if name not in ours:
            changes.append(Change("-", node.op.name, name, note=_kin("now part of", went, node)))
        elif name not in theirs:
            changes.append(Change("+", node.op.name, name, note=_kin("from", came, node)))
        elif details := tuple(_node_details(theirs[name], node)):
            changes.append(Change("~", node.op.name, name, details))
    return Difference(tuple(changes), (len(theirs), len(ours)))


def _nodes(module: Module) -> dict[str, Node[Any]]:
    return {n.name: n for n in module.walk() if n.present_results}


def _merged(
    before: Mapping[str, Node[Any]], after: Mapping[str, Node[Any]]
) -> Iterator[tuple[str, Node[Any]]]:
    """Nodes of both in the order of the second; what was removed stands where it stood."""
    waiting = iter(before.items())
    for name, node in after.items():
        if name in before:
            for gone, old in waiting:
                if gone == name:
                    break
                if gone not in after:
                    yield gone, old
        yield name, node
    yield from ((gone, old) for gone, old in waiting if gone not in after)


def _homes(among: Mapping[str, Node[Any]], others: Mapping[str, Node[Any]]) -> dict[str, Node[Any]]:
    """By ONNX node the last node of ``among`` that stands for it, the renamed ones last."""
    ordered = sorted(among.items(), key=lambda item: item[0] not in others)
    return {place: node for _, node in ordered for place in node.loc.names}


def _kin(how: str, homes: Mapping[str, Node[Any]], node: Node[Any]) -> str:
    kin = {homes[p].name: homes[p] for p in node.loc.names if p in homes}
    names = ", ".join(f"{n.op.name} {name}" for name, n in kin.items())
    return f"{how} {names}" if names else ""


def _module_change(before: Module, after: Module) -> Change | None:
    pairs = [("opsets", *(print_value(m.opsets) for m in (before, after)))]
    if not _is_silent(after):
        targets = [str(m.header.get("target", _NONE)) for m in (before, after)]
        pairs += [("target", targets[0], targets[1]), ("passes", *_passes(before, after))]
    outputs = [", ".join(v.name for v in m.graph.outputs) for m in (before, after)]
    pairs.append(("outputs", outputs[0], outputs[1]))
    details = tuple(Detail(key, old, new) for key, old, new in pairs if old != new)
    return Change("~", "module", after.name, details) if details else None


def _is_silent(module: Module) -> bool:
    """Whether its file does not say how it was made, as an ONNX file does not."""
    return "pipeline" not in module.header


def _passes(before: Module, after: Module) -> tuple[str, str]:
    """Passes that ran, without those that both modules had first and last."""
    old, new = (_BETWEEN_PASSES.split(str(m.header.get("pipeline", ""))) for m in (before, after))
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    texts = [", ".join(filter(None, p[first : len(p) - last])) for p in (old, new)]
    return texts[0] or _NONE, texts[1] or _NONE


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """How many texts both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _input_changes(before: Module, after: Module) -> Iterator[Change]:
    old, new = ({v.name: v for v in m.graph.inputs} for m in (before, after))
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield Change("-", "input", name)
        elif name not in old:
            yield Change("+", "input", name)
        else:
            details = (
                *_stated(before, after, name),
                *_type_details(old[name].type, new[name].type),
            )
            if details:
                yield Change("~", "input", name, details)


def _stated(before: Module, after: Module, name: str) -> Iterator[Detail]:
    """Preprocessing that differs; a file that can't state it says nothing by that."""
    old, new = (m.graph.input_attrs.get(name) or {} for m in (before, after))
    if (old or not _is_silent(before)) and (new or not _is_silent(after)):
        yield from _entries(*({k: print_value(v) for k, v in s.items()} for s in (old, new)))


def _node_details(before: Node[Any], after: Node[Any]) -> Iterator[Detail]:
    if before.op.name != after.op.name:
        yield Detail("op", before.op.name, after.op.name)
    else:
        yield from _entries(dict(encode(before.op, True)), dict(encode(after.op, True)))
    if before.mode != after.mode:
        yield Detail("mode", before.mode or _NONE, after.mode or _NONE)
    yield from _operand_details(before, after)
    for old, new in zip_longest(before.results, after.results):
        names = [_NONE if value is None else value.name for value in (old, new)]
        if names[0] != names[1]:
            yield Detail("result", *names)
        if old is not None and new is not None:
            yield from _type_details(old.type, new.type)


def _entries(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Detail]:
    """Attributes that differ; one at its default is not said."""
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key, "default"), after.get(key, "default")
        if old != new:
            yield Detail(key, old, new)


def _operand_details(before: Node[Any], after: Node[Any]) -> Iterator[Detail]:
    old_names, new_names = [], []
    for index, (old, new) in enumerate(zip_longest(before.operands, after.operands)):
        if isinstance(old, Constant) and isinstance(new, Constant):
            yield from _constant_details(_operand(after, index), old, new)
        elif _named(old) != _named(new):
            old_names.append(_named(old))
            new_names.append(_named(new))
    if old_names:
        yield Detail("reads", ", ".join(old_names), ", ".join(new_names))
    captured = [sorted(v.name for v in reads(n) if v not in n.operands) for n in (before, after)]
    if captured[0] != captured[1]:
        yield Detail("captures", *(", ".join(names) or _NONE for names in captured))


def _operand(node: Node[Any], index: int) -> str:
    specs = node.op.operand_specs
    if not specs or specs[min(index, len(specs) - 1)].variadic:
        return f"operand {index}"
    return specs[min(index, len(specs) - 1)].name


def _named(value: Value | None) -> str:
    """The name of a value, or of what a cast stands for."""
    while value is not None and value.producer is not None and isinstance(value.producer.op, CASTS):
        value = value.producer.operands[0]
    return _NONE if value is None else value.name


def _constant_details(aspect: str, before: Constant, after: Constant) -> Iterator[Detail]:
    if before.type == after.type and _same_contents(before.data, after.data):
        return
    shaped = before.tensor.shape != after.tensor.shape
    old, new = (brief_type(c.tensor, shaped=shaped) for c in (before, after))
    if old == new:
        new = "other numbers"
    yield Detail(aspect, old, f"{new}{_kept(before, after)}")


def _same_contents(a: Data, b: Data) -> bool:
    """Elided data know the beginning of their digest alone."""
    least = min(len(a.digest), len(b.digest))
    return a.digest[:least] == b.digest[:least]


def _kept(before: Constant, after: Constant) -> str:
    """What the new numbers keep of the old ones, in dB."""
    unknown = before.data.is_elided or after.data.is_elided or before.data.shape != after.data.shape
    if unknown or before.data.strings is not None or after.data.strings is not None:
        return ""
    old, new = (np.asarray(numbers(c)) for c in (before, after))
    if "c" in (old.dtype.kind, new.dtype.kind):
        return ""
    exact = old.astype(np.float64)
    noise, signal = float(np.sum((exact - new.astype(np.float64)) ** 2)), float(np.sum(exact**2))
    if noise == 0:
        return ", the same numbers"
    return f", {decibels(noise / signal):.1f} dB" if signal else ", was zero"


def brief_type(type_: TensorType, *, shaped: bool = True) -> str:
    """Element type, shape where it is wanted, and scales in few words."""
    text = print_type(TensorType(type_.elem, type_.shape)) if shaped else type_.elem.text
    return f"{text}, {_scales(type_.quant)}" if type_.quant is not None else text


def _type_details(before: Type, after: Type) -> Iterator[Detail]:
    if before == after:
        return
    if not isinstance(before, TensorType) or not isinstance(after, TensorType):
        yield Detail("type", print_type(before, elide=True), print_type(after, elide=True))
        return
    pairs = (
        ("precision", before.elem.text, after.elem.text),
        ("shape", _shape(before), _shape(after)),
        ("range", _reach(before.range), _reach(after.range)),
        ("scale", _scales(before.quant), _scales(after.quant)),
    )
    details = [Detail(aspect, old, new) for aspect, old, new in pairs if old != new]
    yield from details or [Detail("scale", _scales(before.quant), "other scales")]


def _shape(type_: TensorType) -> str:
    return print_type(TensorType(type_.elem, type_.shape)).removeprefix(type_.elem.text)


def _reach(range_: Range | None) -> str:
    if range_ is None:
        return _NONE
    return f"{range_.min:.6g}..{range_.max:.6g} threshold {range_.threshold:.6g}"


def _scales(quant: Quant | None) -> str:
    if quant is None:
        return _NONE
    if quant.scale.ndim == 0:
        return f"{float(quant.scale):.6g} zero point {int(quant.zero_point)}"
    blocks = f" in blocks of {quant.block}" if quant.block is not None else ""
    ends = f"{float(quant.scale.min()):.4g}..{float(quant.scale.max()):.4g}"
    return f"{quant.scale.size} scales {ends} on axis {quant.axis}{blocks}"
