"""A model whose inputs have other sizes than those that its file fixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, TypeProto

from qdqc.ir.dims import Dim
from qdqc.ir.types import TensorType
from qdqc.onnx_io.shapes import declared_types, write_type
from qdqc.onnx_io.structure import all_nodes, subgraphs

__all__ = ["Resized", "resize", "resized"]


@dataclass(frozen=True)
class Resized:
    """A dimension of an input that is ``size`` where the file fixes it to ``fixed``."""

    name: str
    axis: int
    fixed: int
    size: Dim

    @property
    def text(self) -> str:
        """What people are told of it."""
        size = "open" if self.size is None else str(self.size)
        return (
            f"dimension {self.axis} of input '{self.name}' is {size}, and {self.fixed} in the file"
        )

    @property
    def hint(self) -> str:
        """What may be behind an error."""
        return f"{self.text}: the node may need that"


def resized(graph: GraphProto, shapes: Mapping[str, tuple[Dim, ...]]) -> tuple[Resized, ...]:
    """Fixed dimensions of inputs that are others in these shapes."""
    return tuple(_resized(graph, shapes))


def _resized(graph: GraphProto, shapes: Mapping[str, tuple[Dim, ...]]) -> Iterator[Resized]:
    for name, type in declared_types(graph.input).items():
        own = type.shape if isinstance(type, TensorType) else None
        pairs = zip(own or (), shapes.get(name, ()), strict=False)
        for axis, (fixed, size) in enumerate(pairs):
            if isinstance(fixed, int) and fixed != size:
                yield Resized(name, axis, fixed, size)


def resize(model: ModelProto, shapes: Mapping[str, tuple[Dim, ...]]) -> ModelProto:
    """A copy with inputs of these shapes; what the file says of other sizes is left open."""
    out = ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    for info in graph.input:
        type = declared_types([info]).get(info.name)
        if isinstance(type, TensorType) and info.name in shapes:
            info.type.CopyFrom(write_type(type.with_shape(shapes[info.name])))
    _forget(graph)
    for node in all_nodes(graph.node):
        for _, inner in subgraphs(node):
            _forget(inner)
            for info in inner.input:
                _open(info.type)
    return out


def _forget(graph: GraphProto) -> None:
    """Leave the shapes of inner values and of outputs open: they are of the other sizes."""
    for info in (*graph.value_info, *graph.output):
        _open(info.type)


def _open(type: TypeProto) -> None:
    """Leave the shape of a type open, or of what it is a sequence of."""
    kind = type.WhichOneof("value")
    if kind == "tensor_type":
        type.tensor_type.ClearField("shape")
    elif kind == "sequence_type":
        _open(type.sequence_type.elem_type)
    elif kind == "optional_type":
        _open(type.optional_type.elem_type)
