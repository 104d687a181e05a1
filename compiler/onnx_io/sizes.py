"""Sizes that a model states, held against a limit before anything is read or run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import packed_size
from qdqc.ir.loc import Loc
from qdqc.ir.types import TensorType, Type
from qdqc.onnx_io.structure import subgraphs
from qdqc.onnx_io.tensors import TensorReader

__all__ = ["byte_size", "check_sizes", "over_limit", "stored_tensors"]


def check_sizes(
    model: ModelProto,
    inputs: Mapping[str, Type],
    reader: TensorReader,
    limit: int | None,
    file: str | None,
) -> None:
    """Refuse impossible shapes of stored tensors, and more bytes than the limit allows.

    All stored tensors together may take so many bytes, and so may each input. Raises QdqcError.
    """
    total = 0
    for name, tensor, dims in stored_tensors(model):
        total += reader.stated_size(tensor, dims, name)
    if limit is not None and total > limit:
        raise over_limit(f"the weights of the model take {total} bytes", limit, file)
    for name, type in inputs.items():
        size = byte_size(type)
        if limit is not None and size is not None and size > limit:
            raise over_limit(f"input '{name}' takes {size} bytes", limit, file)


def byte_size(type: Type) -> int | None:
    """Bytes of a value whose shape is known; None for others."""
    size = type.size if isinstance(type, TensorType) else None
    if not isinstance(type, TensorType) or not isinstance(size, int):
        return None
    return packed_size(type.elem, size)


def over_limit(
    what: str, limit: int, file: str | None, node: str | None = None, loc: Loc | None = None
) -> QdqcError:
    """The error for something larger than the limit."""
    return QdqcError(
        f"{what}, and the memory limit is {limit}",
        node=node,
        loc=loc,
        file=file,
        notes=["give smaller `input_shapes`, or a larger `memory_limit` where there is the memory"],
    )


def stored_tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto, Iterable[int]]]:
    """Every tensor that the model stores: its name and the dimensions of what it stands for."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: GraphProto) -> Iterator[tuple[str, TensorProto, Iterable[int]]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor, tensor.dims
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse.values, sparse.dims
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto, Iterable[int]]]:
    for node in nodes:
        for attribute in node.attribute:
            label = next(iter(node.output), attribute.name)
            if attribute.HasField("t"):
                yield label, attribute.t, attribute.t.dims
            if attribute.HasField("sparse_tensor"):
                sparse = attribute.sparse_tensor
                yield label, sparse.values, sparse.dims
            for tensor in attribute.tensors:
                yield label, tensor, tensor.dims
        for _, graph in subgraphs(node):
            yield from _of_graph(graph)
