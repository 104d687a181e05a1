"""What onnxruntime made one kernel of: stretches of the file between tensors that it kept.

A stretch that holds casts can be held against the kernel on the kernel's very inputs: those that
both the file and the optimised model have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from qdqc.onnx_io.structure import reads, subgraphs
from qdqc.runtime.audit.kernel import PRODUCT_KERNELS, integer_values
from qdqc.runtime.sessions.places import places_in

__all__ = ["Stretch", "cut_out", "given_name", "kept_tensors", "stretches"]

_CASTS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QuantizeLinear",
    }
)
"""Ops of which a kernel may make something else than they say."""


@dataclass(frozen=True)
class Stretch:
    """Nodes of the file, by their places, that make ``result`` of the tensors ``given``.

    ``kernel`` is what makes it in the optimised model.
    """

    result: str
    kernel: str
    places: tuple[int, ...]
    given: tuple[str, ...]


def kept_tensors(nodes: Sequence[NodeProto], optimised: ModelProto) -> dict[str, NodeProto]:
    """The kernels of the optimised model by the tensor of the file that they make.

    ``nodes`` are those of the file's main graph, named by their places. onnxruntime turns i8
    activations into u8 under names of its own: those stand for the integers that the cast behind
    the same product makes.
    """
    made = {name for node in nodes for name in node.output if name}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in reads(node):
            readers[name].append(node)
    integers = integer_values(optimised)
    kept: dict[str, NodeProto] = {}
    renamed: dict[str, NodeProto] = {}
    for kernel in optimised.graph.node:
        kept.update((name, kernel) for name in kernel.output if name in made)
        place = next(iter(places_in(kernel.name)[-1:]), len(nodes))
        name = kernel.output[0]
        if name in integers and name not in made and place < len(nodes):
            cast = _cast_behind(nodes[place], readers)
            if cast is not None and (cast.input[1] in kernel.input or len(kernel.input) < 3):
                renamed[cast.output[0]] = kernel
    return renamed | kept


def _cast_behind(node: NodeProto, readers: Mapping[str, Sequence[NodeProto]]) -> NodeProto | None:
    """The cast to integers that ends what a node begins, where nothing forks off before it."""
    while node.op_type != "QuantizeLinear":
        behind = readers[node.output[0]] if node.output else []
        if len(behind) != 1 or behind[0].op_type in PRODUCT_KERNELS:
            return None
        node = behind[0]
    return node


def stretches(
    file: ModelProto, nodes: Sequence[NodeProto], kept: Mapping[str, NodeProto]
) -> list[Stretch]:
    """Stretches with casts in them that became one kernel, in graph order.

    Left out are those that hold several products, of which none can be told, and nested graphs.
    """
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    inputs = {i.name for i in file.graph.input} - {t.name for t in file.graph.initializer}
    out: list[Stretch] = []
    for result in maker:
        if result not in kept:
            continue
        places, given, waiting = set[int](), dict[str, None](), [maker[result]]
        while waiting:
            place = waiting.pop()
            if place in places:
                continue
            places.add(place)
            for name in nodes[place].input:
                if name in kept or name in inputs:
                    given[name] = None
                elif name in maker:
                    waiting.append(maker[name])
        if _is_fused([nodes[p] for p in places]):
            kernel = kept[result].op_type
            out.append(Stretch(result, kernel, tuple(sorted(places)), tuple(given)))
    return out


def _is_fused(nodes: Sequence[NodeProto]) -> bool:
    working = [n for n in nodes if n.op_type != "Constant"]
    if any(next(subgraphs(n), None) for n in working):
        return False
    products = sum(n.op_type in PRODUCT_KERNELS for n in working)
    return len(working) > 1 and products < 2 and any(n.op_type in _CASTS for n in working)


def given_name(name: str) -> str:
    """The input of a model that was cut out by which a tensor comes in."""
    return f"{name}_given"


def cut_out(
    file: ModelProto,
    nodes: Sequence[NodeProto],
    chosen: Sequence[Stretch],
    values: Mapping[str, npt.NDArray[np.generic]],
    fetched: Sequence[str],
    *,
    magnitudes: bool = False,
) -> ModelProto:
    """A model of these stretches alone, whose inputs have the types of ``values``.

    With ``magnitudes`` what casts give in float loses its sign, so that a product gives the sum of
    the sizes of its terms.
    """
    given = {name for stretch in chosen for name in stretch.given}
    out = ModelProto(ir_version=file.ir_version, opset_import=file.opset_import)
    read: set[str] = set()
    for place in sorted({place for stretch in chosen for place in stretch.places}):
        node = out.graph.node.add()
        node.CopyFrom(nodes[place])
        for index, name in enumerate(node.input):
            node.input[index] = given_name(name) if name in given else name
        read.update(node.input)
        if magnitudes and node.op_type == "DequantizeLinear":
            name = node.output[0]
            node.output[0] = f"{name}_signed"
            out.graph.node.append(helper.make_node("Abs", [f"{name}_signed"], [name]))
    out.graph.initializer.extend(t for t in file.graph.initializer if t.name in read)
    for name in sorted(given):
        elem = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        out.graph.input.append(helper.make_tensor_value_info(given_name(name), elem, None))
    out.graph.name = "stretches"
    out.graph.output.extend(ValueInfoProto(name=name) for name in fetched)
    return out
