"""From the IR to ONNX: nodes are spelt at an opset, and what the types say are initializers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.attributes import write_attribute
from qdqc.onnx_io.expand import expand
from qdqc.onnx_io.opsets import choose_opset, ir_version
from qdqc.onnx_io.schemas import schema_at
from qdqc.onnx_io.shapes import write_type
from qdqc.onnx_io.shared import shared_constants
from qdqc.onnx_io.spell import is_whole, quant_of, spell
from qdqc.onnx_io.tensors import to_tensor_proto
from qdqc.ops import CASTS
from qdqc.ops.onnx_table import load_ops
from qdqc.ops.opaque import Opaque
from qdqc.versions import own_version

__all__ = ["build_model", "export_onnx", "export_parts"]

Place = Callable[[Data, str], TensorProto]


def export_onnx(
    module: Module, *, opset: int | None = None, value_info: bool = False
) -> ModelProto:
    """A float or lowered module as an ONNX model, weights inline.

    Without ``opset`` it is the lowest one that every node fits. ``value_info`` states the types
    of inner values too (off by default: onnxruntime fuses differently with them). Raises
    QdqcError for a module that must be lowered first, for elided weights, and for nodes that
    the opset can't spell.
    """
    return build_model(module, opset, value_info, to_tensor_proto)


def build_model(module: Module, opset: int | None, value_info: bool, place: Place) -> ModelProto:
    """As ``export_onnx``; ``place`` makes the tensor of a constant, inline or external."""
    load_ops()
    for node in module.walk():
        _check_lowered(node)
    chosen = choose_opset(module, opset)
    opsets = {"": chosen} | _own_opsets(module)
    entries = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = ModelProto(ir_version=ir_version(module, opsets), opset_import=entries)
    model.producer_name = "qdqc"
    model.producer_version = own_version()
    _Writer(module, chosen, value_info, place).write(model.graph)
    return model


def _own_opsets(module: Module) -> dict[str, int]:
    """Opsets of the domains beside ONNX's own: that of the source, else the one an op states."""
    stated: dict[str, int] = {}
    for op in (node.op for node in module.walk()):
        if isinstance(op, Opaque):
            stated[op.domain] = max(op.version, stated.get(op.domain, 1))
        elif op.onnx is not None:
            stated.setdefault(op.onnx.domain, 1)
    return {d: module.opsets.get(d, version) for d, version in stated.items() if d}


def export_parts(module: Module, opset: int | None = None) -> dict[str, list[str]]:
    """Tensors of the exported model that write a value out, in order, by the value's name.

    A matmul with a bias and a clamp is three nodes in ONNX: the product's tensor comes first, that
    of the value itself last. Values whose node is one in ONNX are not among them.
    """
    load_ops()
    chosen = choose_opset(module, opset)
    writer = _Writer(module, chosen, False, lambda data, name: TensorProto(name=name))
    writer.write(GraphProto())
    return writer.parts


def _check_lowered(node: Node[Any]) -> None:
    if isinstance(node.op, CASTS):
        return
    for value in (*node.present_operands, *node.present_results):
        if isinstance(value.type, TensorType) and value.type.quant is not None:
            raise QdqcError(
                f"its value %{value.name} is quantized, and ONNX has no form for that",
                node=node.op.name,
                loc=node.loc,
                notes=["lower the module first, with the pass 'lower-to-qdq'"],
            )


class _Writer:
    def __init__(self, module: Module, opset: int, value_info: bool, place: Place) -> None:
        self.module = module
        self.opset = opset
        self.value_info = value_info
        self.place = place
        self.main = GraphProto()
        self._taken = set(module.value_names())
        self._node_names: set[str] = set()
        self._shared: dict[tuple[Any, ...], str] = {}
        self._twins: dict[str, str] = {}
        self.parts: dict[str, list[str]] = {}

    def write(self, main: GraphProto) -> None:
        self.main = main
        main.name = self.module.name
        shared = shared_constants(self.module)
        self._twins = shared.same
        for constant in self.module.constants.values():
            if constant.is_used and constant.name not in shared.all:
                main.initializer.append(self._tensor(constant.data, constant.name))
        for name, source in shared.turned.items():
            label = self._node_name(name)
            main.node.append(helper.make_node("Transpose", [source], [name], label, perm=[1, 0]))
        self._graph(self.module.graph, main)

    def _tensor(self, data: Data, name: str) -> TensorProto:
        if data.is_elided:
            raise QdqcError(
                f"constant %{name} was elided from the text, so its contents are not known",
                notes=["load the module with its weights (the .safetensors beside the .qir)"],
            )
        return self.place(data, name)

    def _fresh(self, wish: str) -> str:
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name

    def _graph(self, graph: Graph, out: GraphProto) -> None:
        """Inputs, nodes and outputs of a graph."""
        out.input.extend(_info(v.name, v) for v in graph.inputs)
        for node in graph.nodes():
            self._node(node, out)
            if self.value_info:
                shown = [r for r in node.present_results if not r.is_output]
                out.value_info.extend(_info(r.name, r) for r in shown)
        for index, value in enumerate(graph.outputs):
            name = value.name
            made = value.producer is not None and value.graph is graph
            if graph.owner is not None and (not made or value in graph.outputs[:index]):
                # onnxruntime wants every output of a nested graph made inside it, and computes
                # wrong numbers where two of them are one.
                name = self._fresh(f"{value.name}_out")
                out.node.append(helper.make_node("Identity", [value.name], [name], name=name))
            out.output.append(_info(name, value))

    def _node(self, node: Node[Any], out: GraphProto) -> None:
        """One node, or the nodes that write it out; ONNX names go to the first and the last."""
        values = (*node.present_operands, *node.present_results)
        names = {v.name: self._twins.get(v.name, v.name) for v in values}
        made = list(self._written(node, names))
        given = node.loc.names or (node.name,)
        made[0].name = self._node_name(given[0])
        for part in made[1:-1]:
            part.name = self._node_name(part.output[0])
        if len(made) > 1:
            self.parts[node.name] = [name for part in made for name in part.output if name]
            made[-1].name = self._node_name(given[-1] if len(given) > 1 else node.name)
        out.node.extend(made)

    def _written(self, node: Node[Any], names: dict[str, str]) -> Iterator[NodeProto]:
        """A node, or its parts; ``names`` are those of the values in the model."""
        parts = None if is_whole(node, self.opset) else expand(node)
        if parts is None:
            yield self._whole(node, names)
            return
        inner = {v.name: names[v.name] for v in parts.module.graph.inputs}
        for constant in parts.module.constants.values():
            inner[constant.name] = self._initializer(constant.data, constant.name)
        for part in parts.module.graph.nodes():
            inner[part.name] = names[node.name] if part.result.is_output else self._fresh(part.name)
            yield from self._written(part, inner)

    def _whole(self, node: Node[Any], names: dict[str, str]) -> NodeProto:
        inputs = ["" if v is None else names[v.name] for v in node.operands]
        outputs = [name and names[name] for name in _outputs(node)]
        if isinstance(node.op, Opaque):
            made = self._opaque(node.op, inputs, outputs)
        else:
            elem = _elem(node.operands[0]) if node.operands else None
            made = self._native(node.op, node.name, elem, inputs, outputs)
        quant = quant_of(node)
        if quant is not None:
            self._parameters(made, node.name, *quant)
        self._nested(node, made)
        return made

    def _node_name(self, wish: str) -> str:
        name, count = wish, 0
        while name in self._node_names:
            count += 1
            name = f"{wish}_{count}"
        self._node_names.add(name)
        return name

    def _native(
        self, op: Op, name: str, elem: Elem | None, operands: list[str], outputs: list[str]
    ) -> NodeProto:
        facts = op.onnx
        assert facts is not None
        spelling = spell(op, elem, self.opset)
        inputs = list(operands)
        for position in sorted(spelling.inputs):
            field, data = spelling.inputs[position]
            inputs.extend([""] * (position - len(inputs)))
            inputs.insert(position, self._initializer(data, f"{name}.{field}"))
        made = helper.make_node(facts.type, inputs, outputs, domain=facts.domain)
        schema = schema_at(facts.domain, facts.type, self.opset)
        for attribute, value in spelling.attrs.items():
            kind = None if schema is None else schema.attribute_type(attribute)
            made.attribute.append(write_attribute(attribute, value, kind))
        return made

    def _opaque(self, op: Opaque, inputs: list[str], outputs: list[str]) -> NodeProto:
        made = helper.make_node(op.type, inputs, outputs, domain=op.domain)
        schema = schema_at(op.domain, op.type, op.version)
        for name, value in op.attrs:
            kind = None if schema is None else schema.attribute_type(name)
            made.attribute.append(write_attribute(name, value, kind))
        return made

    def _nested(self, node: Node[Any], made: NodeProto) -> None:
        """Graphs of a node as attributes; ``body[1]`` is an entry in a list of graphs."""
        names: Sequence[str] = node.op.graphs
        if isinstance(node.op, Opaque):
            names = node.op.graph_names
        lists: dict[str, list[GraphProto]] = {}
        for name, graph in zip(names, node.graphs, strict=True):
            proto = GraphProto(name=f"{node.name}_{name}")
            self._graph(graph, proto)
            if name.endswith("]"):
                lists.setdefault(name.partition("[")[0], []).append(proto)
            else:
                made.attribute.append(helper.make_attribute(name, proto))
        for name, protos in lists.items():
            made.attribute.append(helper.make_attribute(name, protos))

    def _parameters(self, made: NodeProto, name: str, elem: Elem, quant: Quant) -> None:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear; equal ones are shared."""
        zeros = Data.of(quant.zero_point.astype(elem.dtype), elem)
        made.input.append(self._initializer(Data.of(quant.scale), f"{name}_scale"))
        made.input.append(self._initializer(zeros, f"{name}_zero_point"))
        made.ClearField("attribute")  # the axis of a dequantize stands in ``quant`` by now
        if quant.axis is not None:
            made.attribute.append(helper.make_attribute("axis", quant.axis))
        if quant.block is not None:
            made.attribute.append(helper.make_attribute("block_size", quant.block))

    def _initializer(self, data: Data, wish: str) -> str:
        """The name of an initializer with these contents, made once."""
        key = (data.elem, data.shape, data.digest)
        name = self._shared.get(key)
        if name is None:
            name = self._shared[key] = self._fresh(wish)
            self.main.initializer.append(to_tensor_proto(data, name))
        return name


def _outputs(node: Node[Any]) -> list[str]:
    """Names of the results. Optional ones at the end are left out where they are absent.

    onnxruntime's layout transformer loses the result of a MaxPool whose second output is "".
    """
    names = ["" if r is None else r.name for r in node.results]
    specs = node.op.result_specs
    while names and not names[-1] and len(names) <= len(specs) and specs[len(names) - 1].optional:
        names.pop()
    return names


def _elem(value: Value | None) -> Elem | None:
    return value.type.elem if value and isinstance(value.type, TensorType) else None


def _info(name: str, value: Value) -> ValueInfoProto:
    return ValueInfoProto(name=name, type=write_type(value.type))
