"""What the file, onnx's shape inference and onnxruntime say about the types of values."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from functools import cached_property

import onnx.shape_inference
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from qdqc.ir.dims import Dim, Expr
from qdqc.ir.types import Elem, TensorType, Type
from qdqc.onnx_io.schemas import elem_spelling
from qdqc.onnx_io.shapes import ShapeRequest, declared_types, read_type, write_type
from qdqc.onnx_io.structure import Wiring, inner_path, ordered_nodes, reads, subgraphs
from qdqc.ops.onnx_table import elem_of_code

__all__ = ["Declarations", "ask_onnxruntime", "stripped"]

_KEPT_BYTES = 1024
_EQUATION = re.compile(rb"[A-Za-z ,.]*(->[A-Za-z .]*)?\Z")
_INVENTED = re.compile(r"unk__\d+\Z")
_MOST_BYTES = 1 << 28


def stripped(model: ModelProto, request: ShapeRequest) -> ModelProto:
    """A copy without large weights: they become inputs, so that only their types remain."""
    out = ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    source, graph = model.graph, out.graph
    graph.name = source.name or "main"
    inputs = {i.name for i in source.input}
    for info in source.input:
        _add_info(graph.input.add(), info, request, info.name)
    for field in ("output", "value_info"):
        for info in getattr(source, field):
            _add_info(getattr(graph, field).add(), info, request, None)
    for tensor in source.initializer:
        if tensor.ByteSize() <= _KEPT_BYTES and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            _add_weight(graph, tensor.name, tensor)
    # onnx's inference and onnxruntime take nodes as they come.
    for node in ordered_nodes(source, Wiring(frozenset(), None)):
        if _is_harmful(node):
            continue
        big = node.op_type == "Constant" and node.ByteSize() > _KEPT_BYTES
        tensor = next((a.t for a in node.attribute if a.HasField("t")), None)
        if big and tensor is not None and len(node.output) == 1:
            _add_weight(graph, node.output[0], tensor)
        else:
            graph.node.append(node)
            _sort_nested(graph.node[-1])
    return out


def _sort_nested(node: NodeProto) -> None:
    """Bring the nodes of nested graphs into an order of execution, in place."""
    for _, graph in subgraphs(node):
        known = {name for inner in graph.node for name in reads(inner)}
        known.update(info.name for info in graph.output)
        copies = [
            NodeProto.FromString(inner.SerializeToString())
            for inner in ordered_nodes(graph, Wiring(known, None))
        ]
        del graph.node[:]
        graph.node.extend(copies)
        for inner in graph.node:
            _sort_nested(inner)


def _is_harmful(node: NodeProto) -> bool:
    """Whether onnx's inference may hang on a node: it does on equations with other characters."""
    if node.op_type == "Einsum":
        equations = [a.s for a in node.attribute if a.name == "equation"]
        return not all(_EQUATION.match(e) for e in equations)
    return any(_is_harmful(inner) for _, graph in subgraphs(node) for inner in graph.node)


def _add_info(
    target: ValueInfoProto, info: ValueInfoProto, request: ShapeRequest, name: str | None
) -> None:
    target.name = info.name
    type = read_type(info.type)
    if type is None:
        target.type.CopyFrom(info.type)
    else:
        target.type.CopyFrom(write_type(request.apply(name, type)))


def _add_weight(graph: GraphProto, name: str, tensor: TensorProto) -> None:
    info = graph.input.add(name=name)
    elem = elem_of_code(tensor.data_type)
    if elem is not None:
        info.type.CopyFrom(write_type(TensorType(elem, tuple(tensor.dims))))


class Declarations:
    """Types that something besides our own inference knows, by path of the graph and name.

    onnx's shape inference and onnxruntime are asked only for values that need it: they are
    native libraries, and a model may be made to trouble them.
    """

    def __init__(self, model: ModelProto, request: ShapeRequest) -> None:
        self._model = model
        self._request = request
        self._stated: dict[tuple[str, str], Type] = {}
        _collect(model.graph, "", self._stated)
        _drop_invented(model.graph, self._stated)

    def stated(self, path: str, name: str) -> Type | None:
        """What the file says."""
        type = self._stated.get((path, name))
        return None if type is None else self._request.apply(None if path else name, type)

    def searched(self, path: str, name: str) -> Type | None:
        """What can be found out: by onnx's inference, else by onnxruntime, else the file."""
        type = self._inferred.get((path, name))
        if type is None and not path:
            type = self._runtime.get(name)
        return self.stated(path, name) if type is None else type

    @cached_property
    def _light(self) -> ModelProto:
        return stripped(self._model, self._request)

    @cached_property
    def _inferred(self) -> dict[tuple[str, str], Type]:
        light = self._light
        if light.ByteSize() < _MOST_BYTES:
            # A native library: whatever it throws, we only know less.
            with contextlib.suppress(Exception):
                light = onnx.shape_inference.infer_shapes(light, data_prop=True)
        types: dict[tuple[str, str], Type] = {}
        _collect(light.graph, "", types)
        _drop_invented(light.graph, types)
        return types

    @cached_property
    def _runtime(self) -> dict[str, Type]:
        made = [o for node in self._light.graph.node for o in node.output if o]
        return ask_onnxruntime(self._light, [o for o in made if ("", o) not in self._inferred])


def _collect(graph: GraphProto, path: str, types: dict[tuple[str, str], Type]) -> None:
    for field in ("input", "output", "value_info"):
        for name, type in declared_types(getattr(graph, field)).items():
            types.setdefault((path, name), type)
    for node in graph.node:
        for attribute, inner in subgraphs(node):
            _collect(inner, inner_path(path, node, attribute), types)


def _drop_invented(graph: GraphProto, types: dict[tuple[str, str], Type]) -> None:
    """Leave open what onnx's inference gave a name of its own: ``unk__7`` means unknown.

    A model's own symbols may have such names too (tf2onnx makes them): its inputs state those.
    """
    own: set[str] = set()
    for type in declared_types(graph.input).values():
        if isinstance(type, TensorType):
            own.update(*(d.symbols() for d in type.shape or () if isinstance(d, Expr)))
    for key, type in types.items():
        if isinstance(type, TensorType) and type.shape is not None:
            dims = tuple(None if _is_invented(d, own) else d for d in type.shape)
            types[key] = type if dims == type.shape else type.with_shape(dims)


def _is_invented(dim: Dim, own: Collection[str]) -> bool:
    if not isinstance(dim, Expr):
        return False
    return any(_INVENTED.match(name) and name not in own for name in dim.symbols())


def ask_onnxruntime(light: ModelProto, names: Collection[str]) -> dict[str, Type]:
    """Types of values that onnx's inference does not know, as onnxruntime loads the model.

    onnxruntime knows its contrib ops. Empty where it can't load the model.
    """
    import onnxruntime as ort

    asked = ModelProto()
    asked.CopyFrom(light)
    outputs = {o.name for o in asked.graph.output}
    for name in names:
        if name not in outputs:
            asked.graph.output.add(name=name)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            asked.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # the fallback prints to stdout
        )
        described = session.get_outputs()
    except Exception:  # a native library: whatever it throws, we only know less
        return {}
    types: dict[str, Type] = {}
    for output in described:
        elem = _RUNTIME_ELEMS.get(output.type)
        if elem is not None:
            dims = tuple(d if isinstance(d, int) and d >= 0 else None for d in output.shape)
            types[output.name] = TensorType(elem, dims)
    return types


_RUNTIME_ELEMS = {elem_spelling(elem): elem for elem in Elem}
