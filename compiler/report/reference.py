"""Reference pages in Markdown, made of what ops and passes say about themselves."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterable, Mapping
from typing import Any, cast

from qdqc.ir.fields import hints
from qdqc.ir.op import OPS, Kind, Onnx, Op
from qdqc.ir.spelling import print_value
from qdqc.ir.types import Elem, TensorType
from qdqc.pipeline.pass_ import PASSES, Pass
from qdqc.rewrite.pattern import PatternPass

__all__ = ["ops_page", "passes_page"]

_OPS_HEAD = """# Ops
Every op of the IR, by family. `x?` may be absent, `xs*` is any number of operands. The ONNX line
names the operator that the op is written as and the opset from which it has this form; an op that
is *written out below* a later opset is spelled with older operators there. *Quantized as* says how
`quantize` sees the op on float32 operands: `weighted` (a product with a constant), `product` (of
two activations), `arithmetic` (any scales), `preserving` (operand and result share one scale).
An ONNX node of any other type comes in as `onnx{type = "..."}` and goes out as it came.
"""

_PASSES_HEAD = """# Passes
What `--passes` takes, with options and defaults: `name{option=value other=value}`.
`--explain NAME` says why rules declined.
"""


def ops_page() -> str:
    """All ops that are registered, by the module that defines them."""
    families: dict[str, list[type[Op]]] = {}
    for cls in OPS:
        families.setdefault(cls.__module__, []).append(cls)
    blocks = [_OPS_HEAD]
    for module in sorted(families, key=lambda name: name.rpartition(".")[2]):
        about = inspect.getdoc(sys.modules[module]) or ""
        title = module.rpartition(".")[2].replace("_", " ").capitalize()
        blocks.append(f"## {title}\n{about}\n")
        blocks += [_op(cls) for cls in families[module]]
    return "\n".join(blocks)


def _op(cls: type[Op]) -> str:
    signature = f"{cls.name}({', '.join(cls.operands)}) -> ({', '.join(cls.results)})"
    lines = [f"### `{signature}`", inspect.getdoc(cls) or "", ""]
    lines += [f"- {line}" for line in _facts(cls)]
    return "\n".join(lines).rstrip() + "\n"


def _facts(cls: type[Op]) -> Iterable[str]:
    if cls.graphs:
        yield f"Graphs: {', '.join(f'`{g}`' for g in cls.graphs)}"
    yield from (f"`{text}`" for text in _fields(cls, dashed=False))
    if cls.onnx is not None:
        yield _spelling(cls, cls.onnx)
    kind = _kind(cls)
    if kind is not None:
        yield f"Quantized as: {kind}"


def _fields(cls: type[Any], *, dashed: bool) -> list[str]:
    """``name : type = default`` for each field; no default where it must be given."""
    lines: list[str] = []
    annotations = hints(cls)
    for field in dataclasses.fields(cast(Any, cls)):
        name = field.name.replace("_", "-") if dashed else field.name
        text = f"{name} : {_type(annotations[field.name])}"
        if field.default is not dataclasses.MISSING:
            text += f" = {print_value(field.default, typed_floats=True)}"
        lines.append(text)
    return lines


def _type(annotation: Any) -> str:
    """A field's type as it reads in the text form of the IR."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in args)
    if typing.get_origin(annotation) is tuple:
        inner = [_type(a) for a in args if a is not Ellipsis]
        return f"[{inner[0]}*]" if Ellipsis in args else f"[{', '.join(inner)}]"
    if args:
        return " | ".join(_type(a) for a in args)
    names = {int: "int", float: "float", str: "text", bool: "bool", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _spelling(cls: type[Op], facts: Onnx) -> str:
    domain = f"{facts.domain}." if facts.domain else ""
    text = f"ONNX: `{domain}{facts.type}`, opset {facts.since}"
    if cls.expand is not Op.expand:
        text += "; written out below" if facts.since > 7 else "; in parts where it must"
    return text


def _kind(cls: type[Op]) -> str | None:
    """How quantization sees the op on float32 matrices; None for ops that stay float."""
    required = [s for s in cls.operand_specs if not s.optional]
    try:
        traits = cls.quant(_bare(cls), *[TensorType(Elem.F32, (2, 2)) for _ in required])
    except (TypeError, ValueError):  # it looks at fields that must be given
        return None
    return None if traits.kind is Kind.FLOAT else traits.kind.value


def _bare(cls: type[Op]) -> Op:
    """An op whose fields that must be given are absent."""
    return cls.__new__(cls)


def passes_page(pipelines: Mapping[str, str]) -> str:
    """All passes that are registered, and the named pipelines."""
    blocks = [_PASSES_HEAD, "## Pipelines"]
    for name, text in sorted(pipelines.items()):
        blocks.append(f"- `@{name}` = {', '.join(f'`{p}`' for p in text.split(','))}")
    blocks.append("")
    blocks += [_pass(cls) for cls in PASSES]
    return "\n".join(blocks)


def _pass(cls: type[Pass]) -> str:
    lines = [f"## `{cls.name}`", inspect.getdoc(cls) or ""]
    fields = _fields(cls, dashed=True)
    if fields:
        lines += ["", *(f"- `{text}`" for text in fields)]
    if issubclass(cls, PatternPass):
        lines += ["", "| rule | nodes | what it does |", "| --- | --- | --- |"]
        lines += [f"| {name} | {ops} | {about} |" for name, ops, about in _rules(cls)]
    return "\n".join(lines) + "\n"


def _rules(cls: type[PatternPass]) -> Iterable[tuple[str, str, str]]:
    by_name: dict[str, list[str]] = {}
    for op, name in cls.rules:
        by_name.setdefault(name, []).append(f"`{op.name}`")
    for name, ops in by_name.items():
        about = " ".join((inspect.getdoc(getattr(cls, name)) or "").split())
        yield name, ", ".join(ops), about.replace("|", "\\|")
