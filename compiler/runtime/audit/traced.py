"""Which kernel of an optimised model computes each tensor of the file, through fusions.

The nodes of the file bear names that say where they stand, and onnxruntime keeps those in the names
of the kernels that it makes of them. A product is looked for by that name, then by its result,
then behind it, up to the next product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from onnx import GraphProto, ModelProto, NodeProto

from qdqc.onnx_io.structure import all_nodes, reads, subgraphs
from qdqc.runtime.audit.kernel import (
    FOLDED,
    PRODUCT_KERNELS,
    Kernel,
    integer_values,
    kernel_of,
)
from qdqc.runtime.sessions.places import places_in

__all__ = ["traced"]

_MOVED = "_q_to_dq"
"""What onnxruntime adds to a float value's name where it moved the cast behind it to before it."""


def traced(
    file: ModelProto, nodes: Sequence[NodeProto], optimised: ModelProto
) -> dict[str, Kernel]:
    """The kernel of each tensor of the file, and of those that onnxruntime added.

    ``nodes`` are those of the file and its nested graphs, named by their places. A product whose
    kernel is gone is ``FOLDED`` where the file says why; one that can't be followed is left out.
    """
    trace = _Trace(file, nodes, optimised)
    kernels = dict(trace.made)
    for place, node in enumerate(nodes):
        for name in filter(None, node.output):
            if node.op_type in PRODUCT_KERNELS:
                kernel = trace.product(place, node)
            else:
                kernel = trace.made.get(name) or trace.made.get(f"{name}{_MOVED}")
            if kernel is not None:
                kernels[name] = kernel
    return kernels


class _Trace:
    """``made`` are kernels by tensor, ``named`` those of products by the places in their names."""

    def __init__(self, file: ModelProto, nodes: Sequence[NodeProto], optimised: ModelProto) -> None:
        integers = integer_values(optimised)
        self.made: dict[str, Kernel] = {}
        self.named: dict[int, list[Kernel]] = defaultdict(list)
        for node in all_nodes(optimised.graph.node):
            kernel = kernel_of(node, integers)
            self.made.update(dict.fromkeys(filter(None, node.output), kernel))
            if kernel.op in PRODUCT_KERNELS:
                for place in places_in(node.name):
                    self.named[place].append(kernel)
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in nodes:
            for name in reads(node):
                self._readers[name].append(node)
        self._needless = _needless(file.graph, nodes)

    def product(self, place: int, node: NodeProto) -> Kernel | None:
        """The kernel that computes a product of the file."""
        own = self.named.get(place, [])
        if own:
            return next((kernel for kernel in own if kernel.integer), own[0])
        direct = self.made.get(node.output[0])
        if direct is not None and direct.op in PRODUCT_KERNELS:
            return direct
        return self._swallowing(node) or (FOLDED if place in self._needless else None)

    def _swallowing(self, product: NodeProto) -> Kernel | None:
        """The kernel behind a product that is none of the file's own nodes, as Attention is."""
        waiting, seen = [product], set[str]()
        while waiting:
            node = waiting.pop()
            for name in node.output:
                kernel = self.made.get(name)
                if kernel is not None and kernel.op != node.op_type and not kernel.is_cast:
                    return kernel
                if kernel is None and name and name not in seen:
                    seen.add(name)
                    behind = self._readers[name]
                    waiting += [r for r in behind if r.op_type not in PRODUCT_KERNELS]
        return None


def _needless(graph: GraphProto, nodes: Sequence[NodeProto]) -> set[int]:
    """Places of nodes that need no kernel: of constants alone, read by nobody, or said twice."""
    needless: set[int] = set()
    fixed = {t.name for g in _graphs(graph) for t in g.initializer}
    fixed -= {i.name for i in graph.input}
    first: dict[tuple[object, ...], int] = {}
    same: dict[str, str] = {}
    for place, node in enumerate(nodes):
        read = list(reads(node))
        if node.op_type == "Constant" or (read and fixed.issuperset(read)):
            fixed.update(node.output)
            needless.add(place)
            continue
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        inputs = tuple(same.get(name, name) for name in node.input)
        alike = first.setdefault((node.domain, node.op_type, attributes, inputs), place)
        if alike != place and inputs:
            same.update(zip(node.output, nodes[alike].output, strict=False))
            needless.update((place, alike))  # onnxruntime keeps either
    needed = {o.name for g in _graphs(graph) for o in g.output}
    for place in range(len(nodes) - 1, -1, -1):
        if needed.isdisjoint(nodes[place].output):
            needless.add(place)
        else:
            needed.update(reads(nodes[place]))
    return needless


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those that are nested in it."""
    yield graph
    for node in graph.node:
        for _, nested in subgraphs(node):
            yield from _graphs(nested)
