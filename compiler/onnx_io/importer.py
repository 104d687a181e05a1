"""From ONNX to the IR: reads a model, checks it, and builds the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.graph import Module
from qdqc.ir.spelling import print_type
from qdqc.ir.types import Type
from qdqc.onnx_io.binding import bind_inputs
from qdqc.onnx_io.builder import Builder, Source
from qdqc.onnx_io.declared import Declarations
from qdqc.onnx_io.functions import inlined
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.resized import resize, resized
from qdqc.onnx_io.schemas import NEWEST, OLDEST
from qdqc.onnx_io.scope import Scope
from qdqc.onnx_io.shapes import ShapeRequest, input_types
from qdqc.onnx_io.sizes import check_sizes
from qdqc.onnx_io.structure import Wiring, check_texts, check_wiring, ordered_nodes, reads
from qdqc.onnx_io.tensors import TensorReader
from qdqc.ops.onnx_table import load_ops

__all__ = ["import_onnx"]


Shape: TypeAlias = Sequence[int | str]


def import_onnx(
    source: str | Path | ModelProto,
    *,
    input_shapes: Mapping[str, Shape] | Sequence[Shape] | None = None,
    output_names: Sequence[str] | None = None,
    bind: Mapping[str, npt.ArrayLike] | None = None,
    memory_limit: int | None = None,
) -> Module:
    """Read an ONNX model into a module.

    ``source`` is the path of a file or a model in memory (which is left as it is).
    ``input_shapes`` states dimensions of inputs, by name or for all of them in order: sizes, or
    names for symbolic ones, in place of sizes that the file fixes as well; ``?`` leaves one open.
    ``output_names`` cuts the graph to what these values need. ``bind`` gives inputs a value that
    is theirs in every run: they become constants, and are inputs no longer. Weights in external
    files are mapped, not read. A model whose weights, or one of whose values, would take more than
    ``memory_limit`` bytes is refused. Wiring and sizes are checked before onnx or onnxruntime
    see the model. Raises QdqcError for whatever is wrong with the model or the wishes.
    """
    load_ops()
    file, folder, model = _opened(source)
    check_texts(model, file)
    check_wiring(model, file)
    types = input_types(model.graph, file)
    request = ShapeRequest(types, _by_name(types, input_shapes or {}, file), file)
    reader = TensorReader(file, folder)
    wanted = {name: request.apply(name, type) for name, type in types.items()}
    check_sizes(model, wanted, reader, memory_limit, file)
    changed = resized(model.graph, request.shapes)
    if changed:
        model = resize(model, request.shapes)
    model = inlined(model, file)
    opsets = _opsets(model, file)
    order = ordered_nodes(model.graph, Wiring(frozenset(), file))
    outputs = _wanted_outputs(model.graph, output_names, file)
    nodes = order if output_names is None else _needed(order, outputs)
    declared = Declarations(model, request)
    module = Module(name=_module_name(source, model), opsets=dict(opsets))
    if file is not None:
        module.header["source"] = Path(file).name
    builder = Builder(module, Source(file, opsets, declared, reader, memory_limit))
    scope = Scope(module, "", None)
    scope.reserved.update(o for node in order for o in node.output)
    scope.reserved.update(types, (t.name for t in model.graph.initializer))
    read = {name for node in nodes for name in reads(node)} | set(outputs)
    for name, type in wanted.items():
        if output_names is None or name in read:
            scope.set(name, module.graph.add_input(name, type))
    try:
        builder.fill(model.graph, nodes, module.graph, scope, outputs)
    except QdqcError as error:
        raise error.with_notes(*(c.hint for c in changed)) from error
    bind_inputs(module, bind or {})
    module.drop_unused_constants()
    return module


def _opened(source: str | Path | ModelProto) -> tuple[str | None, Path | None, ModelProto]:
    """The model, and its file and folder where it comes from one."""
    if not isinstance(source, ModelProto):
        path = Path(source)
        return str(path), path.parent, read_model(path)
    if not source.HasField("graph"):
        raise QdqcError("the model has no graph", notes=["give a complete ModelProto"])
    return None, None, source


def _by_name(
    types: Mapping[str, Type], given: Mapping[str, Shape] | Sequence[Shape], file: str | None
) -> Mapping[str, Shape]:
    if isinstance(given, Mapping):
        return given
    if len(given) != len(types):
        listed = ", ".join(f"{name}: {print_type(type)}" for name, type in types.items())
        raise QdqcError(
            f"{len(given)} input shapes are given, but the model has {len(types)} inputs",
            file=file,
            notes=[f"inputs are {listed}", "give one shape for each, in this order"],
        )
    return dict(zip(types, given, strict=True))


def _module_name(source: str | Path | ModelProto, model: ModelProto) -> str:
    if not isinstance(source, ModelProto):
        return Path(source).stem
    return model.graph.name or "main"


def _opsets(model: ModelProto, file: str | None) -> dict[str, int]:
    """Opsets by domain. Raises QdqcError for those that are out of reach."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(entry.version, versions.get(domain, 0))
        if not 0 < entry.version < 1 << 31:
            raise QdqcError(
                f"opset {entry.version} of '{domain}' is not a version",
                file=file,
                notes=["the model is damaged; export it again"],
            )
    version = versions.get("")
    if version is None and all(n.domain not in ("", "ai.onnx") for n in model.graph.node):
        return versions
    if version is None:
        version = 1
    if version < OLDEST:
        notes = ["convert it first with onnx.version_converter.convert_version"]
        raise QdqcError(
            f"the model is written for opset {version}, and qdqc reads {OLDEST} to {NEWEST}",
            file=file,
            notes=notes,
        )
    if version > NEWEST:
        notes = ["upgrade onnx and onnxruntime, or export the model for an older opset"]
        raise QdqcError(
            f"the model is written for opset {version}, and the installed onnx knows "
            f"{OLDEST} to {NEWEST}",
            file=file,
            notes=notes,
        )
    return versions


def _wanted_outputs(
    graph: GraphProto, output_names: Sequence[str] | None, file: str | None
) -> list[str]:
    if output_names is None:
        return [info.name for info in graph.output]
    known = {name for node in graph.node for name in node.output if name}
    known |= {info.name for info in graph.input}
    for name in output_names:
        if name not in known:
            made = ", ".join(info.name for info in graph.output)
            raise QdqcError(
                f"the model has no value '{name}' to end at{suggestion(name, known)}",
                file=file,
                notes=[f"its outputs are {made}; any value inside may be named as well"],
            )
    return list(dict.fromkeys(output_names))


def _needed(order: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """Those of the ordered nodes that the outputs depend on."""
    wanted = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(order):
        if wanted.intersection(node.output):
            wanted.update(reads(node))
            kept.append(node)
    return kept[::-1]
