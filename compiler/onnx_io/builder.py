"""Builds the graph of a module from ONNX nodes: native ops where there are, else opaque ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Node, Value
from qdqc.ir.fields import Flat
from qdqc.ir.graph import Graph, Module
from qdqc.ir.merge import compatible, merge_types
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType, Type
from qdqc.onnx_io.attributes import constant_data, read_attributes
from qdqc.onnx_io.declared import Declarations
from qdqc.onnx_io.qdq import read_quantized
from qdqc.onnx_io.qoperator_forms import as_casts
from qdqc.onnx_io.schemas import Schema, schema_at
from qdqc.onnx_io.scope import Scope
from qdqc.onnx_io.sizes import byte_size, over_limit
from qdqc.onnx_io.structure import (
    Wiring,
    inner_path,
    node_loc,
    ordered_nodes,
    subgraphs,
)
from qdqc.onnx_io.tensors import TensorReader
from qdqc.ops.onnx_spellings import Spelt
from qdqc.ops.onnx_table import attribute_fields, candidates, defaults_of, flags, nativize
from qdqc.ops.opaque import Opaque

__all__ = ["Builder", "Source"]

_MOST_ELEMENTS = 1 << 48
_CASTS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Source:
    """What the nodes are read against."""

    file: str | None
    opsets: Mapping[str, int]
    declared: Declarations
    reader: TensorReader
    memory_limit: int | None = None


class Builder:
    """Fills a module; one per import."""

    def __init__(self, module: Module, source: Source) -> None:
        self.module = module
        self.source = source

    def fill(
        self,
        proto: GraphProto,
        nodes: Sequence[NodeProto],
        graph: Graph,
        scope: Scope,
        outputs: Sequence[str],
    ) -> None:
        """The nodes, in order, and then the outputs. Inputs are already in the scope."""
        scope.outputs = set(outputs)
        self._defer_constants(proto, nodes, scope)
        nodes = as_casts(nodes, scope, self.source.opsets.get("", 1))
        scope.note_readers(nodes)
        for node in nodes:
            if node.op_type != "Constant" or self._domain(node) != "":
                self._node(node, graph, scope)
        graph.set_outputs([scope[name] for name in outputs])

    def _defer_constants(self, proto: GraphProto, nodes: Sequence[NodeProto], scope: Scope) -> None:
        reader = self.source.reader
        for tensor in proto.initializer:
            scope.defer(tensor.name, lambda t=tensor: reader.read(t, t.name))
        for sparse in proto.sparse_initializer:
            label = sparse.values.name
            scope.defer(label, lambda s=sparse, n=label: reader.sparse(s, n))
        for node in nodes:
            if node.op_type == "Constant" and self._domain(node) == "" and len(node.output) == 1:
                scope.defer(node.output[0], lambda n=node: constant_data(n, reader))

    def _domain(self, node: NodeProto) -> str:
        return "" if node.domain == "ai.onnx" else node.domain

    def _version(self, node: NodeProto) -> int:
        domain = self._domain(node)
        version = self.source.opsets.get(domain)
        if version is None:
            raise self._wrong(node, f"the model does not say which opset of '{domain}' it uses")
        return version

    def _wrong(self, node: NodeProto, message: str, *notes: str) -> QdqcError:
        return QdqcError(
            message,
            node=node.op_type,
            loc=node_loc(node),
            file=self.source.file,
            notes=notes or ("the model is damaged; export it again",),
        )

    def _node(self, node: NodeProto, graph: Graph, scope: Scope) -> None:
        version = self._version(node)
        schema = schema_at(self._domain(node), node.op_type, version)
        self._check_results(node, schema)
        operands: list[Value | None] = [scope[name] if name else None for name in node.input]
        if self._domain(node) in ("", "com.microsoft"):
            quantized = read_quantized(node, operands, scope, self.source.reader)
            if quantized is not None:
                op, kept, declared = quantized
                self._insert(node, op, kept, graph, scope, [], declared)
                return
        attrs = read_attributes(node, self.source.reader, schema)
        names, graphs = self._nested(node, operands, scope)
        spelt = Spelt(
            type=node.op_type,
            domain=self._domain(node),
            version=version,
            attrs=self._stated(node, attrs, version),
            operands=operands,
            results=self._results_used(node, scope),
            name=next((o for o in node.output if o), node.op_type),
            graphs=tuple(names),
        )
        native = nativize(spelt, self.module)
        if native is not None:
            ordered = [graphs[names.index(attribute)] for attribute in native[0].graphs]
            try:
                self._insert(node, *native, graph, scope, ordered, None)
            except QdqcError:
                # A branch that never runs may hold what does not fit.
                if not scope.path or graphs:
                    raise
            else:
                return
        self._insert(node, self._opaque(spelt), operands, graph, scope, graphs, None)

    def _check_results(self, node: NodeProto, schema: Schema | None) -> None:
        """Refuse an absent result that is not optional: onnxruntime dies of some."""
        for index, name in enumerate(node.output if schema is not None else ()):
            formal = None if schema is None else schema.output_at(index)
            if not name and formal is not None and formal.option != formal.option.Optional:
                message = f"its result {index} has no name, but '{formal.name}' is not optional"
                raise self._wrong(node, message)

    def _results_used(self, node: NodeProto, scope: Scope) -> int:
        """How many results count: those up to the last one that somebody reads."""
        if node.op_type == "Split":
            return len(node.output)
        used = [i for i, o in enumerate(node.output) if o in scope.readers or o in scope.outputs]
        return max(used, default=0) + 1 if node.output else 0

    def _stated(self, node: NodeProto, attrs: Mapping[str, Any], version: int) -> dict[str, Any]:
        """Attributes with the defaults of their schema stated where an op has a field for them.

        Attributes that no op has a field for are left out at their default.
        """
        schema = schema_at(self._domain(node), node.op_type, version)
        if schema is None:
            return dict(attrs)
        classes = candidates(self._domain(node), node.op_type)
        self._check_flags(node, attrs, flags(classes))
        fields = {name for cls in classes for name in attribute_fields(cls)}
        kept = {
            name: value
            for name, value in attrs.items()
            if name in fields or name not in schema.defaults or schema.defaults[name] != value
        }
        stated = [defaults_of(cls, schema.defaults) for cls in classes]
        return {name: v for d in stated for name, v in d.items()} | kept

    def _check_flags(self, node: NodeProto, attrs: Mapping[str, Any], names: Iterable[str]) -> None:
        """Flags are 0 or 1: onnxruntime reads some other numbers as 0, some as 1."""
        for name in names:
            value = attrs.get(name, 0)
            if value not in (0, 1):
                raise self._wrong(node, f"attribute '{name}' is {value}, but 0 or 1 is needed")

    def _opaque(self, spelt: Spelt) -> Op:
        schema = schema_at(spelt.domain, spelt.type, spelt.version)
        return Opaque(
            type=spelt.type,
            domain=spelt.domain,
            version=spelt.version if schema is None else schema.since,
            graph_names=spelt.graphs,
            attrs=Flat(spelt.attrs.items()),
        )

    def _nested(
        self, node: NodeProto, operands: Sequence[Value | None], scope: Scope
    ) -> tuple[list[str], list[Graph]]:
        names: list[str] = []
        graphs: list[Graph] = []
        handed = _handed(node, operands) if self._domain(node) == "" else []
        for attribute, proto in subgraphs(node):
            path = inner_path(scope.path, node, attribute)
            names.append(attribute)
            graphs.append(self._nested_graph(proto, path, scope, handed))
        return names, graphs

    def _nested_graph(
        self, proto: GraphProto, path: str, outer: Scope, handed: Sequence[Type | None]
    ) -> Graph:
        graph = Graph(self.module)
        scope = Scope(self.module, path, outer)
        nodes = ordered_nodes(proto, Wiring(outer.names(), self.source.file))
        for index, info in enumerate(proto.input):
            stated = self.source.declared.stated(path, info.name)
            if stated is None and index < len(handed):
                stated = handed[index]
            type = stated if stated is not None else TensorType(Elem.F32)
            scope.set(info.name, graph.add_input(scope.free(info.name), type))
        self.fill(proto, nodes, graph, scope, [o.name for o in proto.output])
        return graph

    def _insert(
        self,
        node: NodeProto,
        op: Op,
        operands: Sequence[Value | None],
        graph: Graph,
        scope: Scope,
        graphs: Sequence[Graph],
        declared: Type | None,
    ) -> None:
        outputs = [name or None for name in node.output]
        specs = op.result_specs
        if specs and not specs[-1].variadic:
            outputs = outputs[: len(specs)]
        names = [None if o is None else scope.free(o) for o in outputs]
        blank = declared if declared is not None else TensorType(Elem.F32)
        types = [None if name is None else blank for name in names]
        made = graph.insert(op, operands, types, names, loc=node_loc(node), graphs=graphs)
        try:
            inferred = op.infer_node(made)
        except (ValueError, ArithmeticError) as error:
            graph.erase(made)
            raise self._wrong(
                node, str(error), "onnxruntime would refuse this node as well; export it again"
            ) from error
        for index, result in enumerate(made.results):
            name = outputs[index]
            if result is None or name is None:
                continue
            stated = declared or self.source.declared.stated(scope.path, name)
            known = inferred[index] if index < len(inferred) else None
            if known is None and not _is_full(stated):
                stated = self.source.declared.searched(scope.path, name)
            result.type = self._type(node, made, index, known, stated)
            scope.set(name, result)

    def _type(
        self,
        proto: NodeProto,
        node: Node[Any],
        index: int,
        inferred: Type | None,
        declared: Type | None,
    ) -> Type:
        """The type of a result: what the op infers, else what is declared, else a guess."""
        type = declared if inferred is None else inferred
        if inferred is not None and declared is not None:
            quantized = isinstance(declared, TensorType) and declared.quant is not None
            first, second = (declared, inferred) if quantized else (inferred, declared)
            type = merge_types(first, second) if compatible(first, second) else first
        if type is None:
            type = self._guess(proto, node, index)
        size = type.size if isinstance(type, TensorType) else None
        if isinstance(size, int) and size > _MOST_ELEMENTS:
            message = f"its result would have {size} elements"
            raise self._wrong(proto, message, "check the input shapes")
        limit, taken = self.source.memory_limit, byte_size(type)
        if limit is not None and taken is not None and taken > limit:
            what, file = f"its result takes {taken} bytes", self.source.file
            raise over_limit(what, limit, file, proto.op_type, node_loc(proto))
        return type

    def _guess(self, proto: NodeProto, node: Node[Any], index: int) -> TensorType:
        """A type by what the schema says of elements; a cast keeps the shape of its operand."""
        schema = schema_at(self._domain(proto), proto.op_type, self._version(proto))
        elem = None if schema is None else schema.elem_of(index, node.operands)
        first = node.at(0)
        like = first.type if first is not None and proto.op_type in _CASTS else None
        shape = like.shape if isinstance(like, TensorType) else None
        return TensorType(elem or _first_elem(node), shape)


def _first_elem(node: Node[Any]) -> Elem:
    return next((v.elem for v in node.present_operands if v.elem is not None), Elem.F32)


def _is_full(type: Type | None) -> bool:
    """Whether nothing more is to be known of a declared type."""
    if not isinstance(type, TensorType):
        return type is not None
    return type.shape is not None and None not in type.shape


def _handed(node: NodeProto, operands: Sequence[Value | None]) -> list[Type | None]:
    """Types of a body's inputs, which may state none themselves, by the operands of the node.

    The shape of what a Loop carries is left open: it may change from round to round.
    """
    types = [None if v is None else v.inference_type() for v in operands]
    if node.op_type == "Loop":
        carried = [TensorType(t.elem) if isinstance(t, TensorType) else t for t in types[2:]]
        return [TensorType(Elem.I64, ()), TensorType(Elem.BOOL, ()), *carried]
    if node.op_type != "Scan":
        return []
    slices = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), len(types))
    axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [])
    slices = min(max(slices, 0), len(types))
    first = len(types) - slices
    cut = dict(zip(range(first, len(types)), [*axes, *[0] * slices], strict=False))
    return [_slice(t, cut[i]) if i in cut else _state(t) for i, t in enumerate(types)]


def _state(type: Type | None) -> Type | None:
    """What a Scan carries: the type without the contents, which change from round to round."""
    return type.with_shape(type.shape) if isinstance(type, TensorType) else type


def _slice(type: Type | None, axis: int) -> Type | None:
    """What a Scan cuts from a tensor: its type without one axis."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    at = axis % len(type.shape) if type.shape else 0
    return TensorType(type.elem, (*type.shape[:at], *type.shape[at + 1 :]))
