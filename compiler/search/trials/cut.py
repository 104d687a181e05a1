"""Where a module is cut for the trials of a layer: a head that ends in its values, and the tail.

Both pieces begin at values that are kept from a run of the float module. Only such values are
kept that a session computes the same when it is cut there: what a runtime may fuse into its
reader is computed anew, within the piece, so that a trial gives the same bits as the whole
model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.view import reads, to_networkx
from qdqc.ops import Reshape
from qdqc.rewrite.driver import erase_dead
from qdqc.search.trials.layers import Layer

__all__ = ["Cuts", "Piece", "open_batch", "piece_of"]

_TRIALS = symbol("trials")
"""The size of the first axis of a tail's inputs, where variants lie behind one another."""


@dataclass(frozen=True)
class Piece:
    """What computes ``outputs`` from ``inputs``, all names of values.

    The ``readers`` take other values for those of ``instead``: inputs of the name given there.
    ``beside`` is computed on the way and read outside, too: it is given out so that a runtime
    finds several readers, as in the whole model.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: frozenset[Node[Any]]
    instead: Mapping[str, str] = field(default_factory=dict)
    readers: frozenset[Node[Any]] = frozenset()
    beside: tuple[str, ...] = ()


class Cuts:
    """The pieces of a float module; ``compared`` are the values that a trial is judged by."""

    def __init__(self, module: Module, compared: Collection[str]) -> None:
        self.graph: Graph = module.graph
        self.compared = tuple(compared)
        self._targets = [v for v in map(module.value, compared) if v is not None]

    @cached_property
    def _view(self) -> Any:
        return to_networkx(self.graph)

    def head(self, layer: Layer) -> Piece:
        """What computes the values of a layer; it reads kept values."""
        wanted = list(layer.values)
        made = frozenset[Node[Any]]()
        if layer.integer and layer.node is not None:
            wanted, made = reads(layer.node), frozenset({layer.node})
        nodes, inputs = _needed(wanted, self.is_kept)
        outputs = tuple(v.name for v in layer.values)
        return Piece(inputs, outputs, nodes | made, beside=_read_outside(nodes | made))

    def tail(self, layer: Layer) -> Piece:
        """What computes the compared values from those of a layer, and from kept ones beside.

        Values that stay float beside their rounded form are computed as in the float module.
        """
        behind = self._behind(layer)
        made = set(layer.values) if layer.integer else set[Value]()
        instead = {} if layer.integer else {v: f"{v.name} rounded" for v in layer.values}
        readers = frozenset(layer.readers)

        def is_given(value: Value) -> bool:
            return value in made or (value.producer not in behind and self.is_kept(value))

        def read(node: Node[Any]) -> list[Value]:
            return [v for v in reads(node) if node not in readers or v not in instead]

        nodes, inputs = _needed(self._targets, is_given, read)
        renamed = {value.name: name for value, name in instead.items()}
        return Piece(inputs, self.compared, nodes, renamed, readers, _read_outside(nodes))

    def needs(self, layer: Layer) -> list[str]:
        """The kept values and inputs that the pieces of a layer begin at."""
        own = {v.name for v in layer.values} if layer.integer else set[str]()
        names = (*self.head(layer).inputs, *self.tail(layer).inputs)
        return [n for n in dict.fromkeys(names) if n not in own]

    def _behind(self, layer: Layer) -> set[Node[Any] | None]:
        """The nodes that a layer's rounding reaches."""
        import networkx

        if layer.integer:
            return set(networkx.descendants(self._view, layer.node))
        behind: set[Node[Any] | None] = set(layer.readers)
        for node in layer.readers:
            behind |= networkx.descendants(self._view, node)
        return behind

    def is_kept(self, value: Value) -> bool:
        """Whether a value may be taken from a run of the whole float module.

        It is an input, or float and read by products alone, or by several nodes. Anything else
        may be part of a fusion: an Add behind a Conv, a Pad before one, shape arithmetic. Images
        that an Add reads are among it, for their layout: onnxruntime adds within the Conv before
        where the other operand lies in blocks of channels, which an input does not. Values
        without the batch in front would not fit beside those that have it.
        """
        if value.producer is None:
            return True
        if value.elem is not Elem.F32:
            return False
        shape = value.shape
        if not shape or self._batch is None or shape[0] != self._batch:
            return False
        users = value.users
        products = not value.is_output and all(_kind(n) is Kind.WEIGHTED for n in users)
        if len(users) == 1 or len(shape) == _IMAGE:
            return products and _kind(value.producer) in _STANDING
        return True

    @cached_property
    def _batch(self) -> Any:
        """The first dimension that all inputs share; None where they do not."""
        shapes = [v.type.shape for v in self.graph.inputs if isinstance(v.type, TensorType)]
        firsts = {shape[0] if shape else None for shape in shapes}
        return firsts.pop() if len(firsts) == 1 else None


_IMAGE = 4
"""Axes of images, which onnxruntime may lay out in blocks of channels."""

_STANDING = (Kind.WEIGHTED, Kind.ARITHMETIC, Kind.FLOAT)
"""Kinds of nodes that no runtime moves into the product that reads them."""


def _kind(node: Node[Any]) -> Kind:
    return node.traits.kind


def _needed(
    wanted: Iterable[Value],
    is_given: Callable[[Value], bool],
    read: Callable[[Node[Any]], list[Value]] = reads,
) -> tuple[frozenset[Node[Any]], tuple[str, ...]]:
    """The nodes that compute values, back to those that are given, and the given ones' names."""
    nodes: set[Node[Any]] = set()
    inputs: set[str] = set()
    stack = list(wanted)
    while stack:
        value = stack.pop()
        if isinstance(value, Constant):
            continue
        if value.producer is None or is_given(value):
            inputs.add(value.name)
        elif value.producer not in nodes:
            nodes.add(value.producer)
            stack += read(value.producer)
    return frozenset(nodes), tuple(sorted(inputs))


def _read_outside(nodes: frozenset[Node[Any]]) -> tuple[str, ...]:
    """Values that some of the nodes make and read, and that others read as well."""
    made = (r for node in nodes for r in node.present_results)
    outside = [v.name for v in made if not nodes.isdisjoint(v.users) and not nodes >= set(v.users)]
    return tuple(sorted(outside))


def piece_of(module: Module, piece: Piece) -> Module:
    """A module of a piece alone."""
    out = clone(module)
    graph = out.graph
    readers = {node.name for node in piece.readers}
    for name, other in piece.instead.items():
        value = _value(out, name)
        made = graph.add_input(other, value.type)
        for use in value.uses:
            if isinstance(use.user, Node) and use.user.name in readers:
                use.user.set_operand(use.index, made)
    for name in piece.inputs:
        value = _value(out, name)
        if value.producer is not None:
            made = graph.add_input(out.fresh_name(f"{name}_given"), value.type)
            value.replace_uses(made)
            value.rename(out.fresh_name(f"{name}_made"))
            made.rename(name)
    names = dict.fromkeys((*piece.outputs, *piece.beside))
    graph.set_outputs([_value(out, name) for name in names])
    erase_dead(reversed(list(graph.nodes())))
    given = {*piece.inputs, *piece.instead.values()}
    graph.drop_inputs([i for i, v in enumerate(graph.inputs) if v.name not in given])
    return out


def _value(module: Module, name: str) -> Value:
    value = module.value(name)
    assert value is not None, name
    return value


def open_batch(module: Module, made: Collection[str]) -> None:
    """Leave the size of the first axis open, so that variants can lie behind one another.

    So are the channels of images that the trial made: behind a cast, where they stand in the
    whole model, onnxruntime does not know them either, and lays out a pool otherwise.
    Reshapes to a constant shape keep the first axis as it comes. Whether the nodes keep rows
    apart is not looked at here: who runs the module has to see that.
    """
    sizes = {_first(v) for v in module.graph.inputs}
    size = sizes.pop() if len(sizes) == 1 else None
    for value in (*module.graph.inputs, *module.graph.outputs):
        shape = value.shape
        if shape:
            channels = (None,) if value.name in made and len(shape) == _IMAGE else shape[1:2]
            value.type = value.tensor.with_shape((_TRIALS, *channels, *shape[2:]))
    for node in module.graph.nodes():
        shape = node.operand("shape") if isinstance(node.op, Reshape) else None
        if isinstance(shape, Constant) and not node.op.allowzero:
            dims = shape.data.array()
            if dims.size and dims[0] == size and _first(node.need("x")) in (size, _TRIALS):
                open_shape = Data.of(np.concatenate([[0], dims[1:]]).astype(np.int64))
                name = module.fresh_name(f"{shape.name}_open")
                node.set_operand(1, module.add_constant(name, open_shape))


def _first(value: Value) -> Any:
    return value.shape[0] if value.shape else None
