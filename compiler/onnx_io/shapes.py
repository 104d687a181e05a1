"""Dimensions of ONNX types, and the shapes that a user gives for the inputs."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import GraphProto, TensorShapeProto, TypeProto, ValueInfoProto

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.spelling import print_type
from qdqc.ir.types import OptionalType, SequenceType, TensorType, Type
from qdqc.ops.onnx_table import elem_code, elem_of_code

__all__ = ["ShapeRequest", "declared_types", "input_types", "parse_dim", "read_type", "write_type"]

_SYMBOL = re.compile(r"[A-Za-z_]\w*\Z")
_LONGEST = 256
_LARGEST = 1 << 48


def parse_dim(text: str) -> Dim:
    """A ``dim_param``: an expression (``past+1``, ``(H+1)//2``) in normal form, else a symbol.

    An empty text, ``?`` and negative numbers say nothing: None.
    """
    text = text.strip()
    if not text or text == "?":
        return None
    if _SYMBOL.match(text):
        return symbol(text)
    if len(text) <= _LONGEST:
        try:
            dim = _evaluate(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            return symbol(text)
        if isinstance(dim, int):
            return dim if 0 <= dim < _LARGEST else None
        return dim
    return symbol(text[:_LONGEST])


def _evaluate(tree: ast.expr) -> int | Expr:
    if isinstance(tree, ast.Name):
        return symbol(tree.id)
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return tree.value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return _evaluate(tree.operand) * -1
    if not isinstance(tree, ast.BinOp):
        raise ValueError("no expression over dimensions")
    left, right = _evaluate(tree.left), _evaluate(tree.right)
    if isinstance(tree.op, ast.Add):
        return left + right
    if isinstance(tree.op, ast.Sub):
        return left - right
    if isinstance(tree.op, ast.Mult):
        return left * right
    if isinstance(tree.op, ast.FloorDiv) and right != 0:
        return left // right
    raise ValueError("no expression over dimensions")


def _dim(dim: TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if 0 <= dim.dim_value < _LARGEST else None
    return parse_dim(dim.dim_param) if dim.HasField("dim_param") else None


def read_type(proto: TypeProto) -> Type | None:
    """The type that an ONNX file states; None where it states none that the IR has."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = proto.tensor_type if kind == "tensor_type" else None
        elem = None if tensor is None else elem_of_code(tensor.elem_type)
        if tensor is None or elem is None:
            return None
        shape = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
        return TensorType(elem, shape)
    if kind == "sequence_type":
        item = read_type(proto.sequence_type.elem_type)
        return None if item is None else SequenceType(item)
    if kind == "optional_type":
        item = read_type(proto.optional_type.elem_type)
        return None if item is None else OptionalType(item)
    return None


def write_type(type: Type) -> TypeProto:
    """The type as ONNX files state it; scales and ranges have no place there."""
    out = TypeProto()
    if isinstance(type, SequenceType):
        out.sequence_type.elem_type.CopyFrom(write_type(type.item))
        return out
    if isinstance(type, OptionalType):
        out.optional_type.elem_type.CopyFrom(write_type(type.item))
        return out
    out.tensor_type.elem_type = elem_code(type.elem)
    if type.shape is not None:
        out.tensor_type.shape.SetInParent()
        for dim in type.shape:
            entry = out.tensor_type.shape.dim.add()
            if isinstance(dim, int):
                entry.dim_value = dim
            elif dim is not None:
                entry.dim_param = _param(dim)
    return out


def _lone_symbol(dim: Expr) -> str | None:
    """The symbol that a dimension consists of."""
    if len(dim.terms) == 1:
        (monomial, factor), *_ = dim.terms
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return None


def _param(dim: Expr) -> str:
    """The text of a dimension; a lone symbol goes out as it came in, without quotes."""
    return _lone_symbol(dim) or dim.text


class ShapeRequest:
    """The user's shapes for graph inputs, checked against the model's own.

    A size that the model leaves open is given one or a name; one that it fixes may become another,
    a name, or open by ``?``. ``symbols`` says what the model's symbols became, and ``shapes`` what
    the inputs are; apply it to every declared type.
    """

    def __init__(
        self,
        inputs: Mapping[str, Type],
        wanted: Mapping[str, Sequence[int | str]],
        file: str | None,
    ) -> None:
        self._inputs = inputs
        self._file = file
        self.symbols: dict[str, int | Expr] = {}
        self.shapes: dict[str, tuple[Dim, ...]] = {}
        for name, dims in wanted.items():
            self._take(name, tuple(dims))

    def apply(self, name: str | None, type: Type) -> Type:
        """A declared type with the request in it; ``name`` is that of a graph input."""
        if not isinstance(type, TensorType):
            return type
        if name is not None and name in self.shapes:
            return replace(type, shape=self.shapes[name])
        return type.substitute(self.symbols) if self.symbols else type

    def _take(self, name: str, wanted: tuple[int | str, ...]) -> None:
        declared = self._inputs.get(name)
        if declared is None:
            near = suggestion(name, self._inputs)
            raise self._wrong(f"the model has no input '{name}'{near}")
        if not isinstance(declared, TensorType):
            raise self._wrong(f"input '{name}' is not a tensor and takes no shape")
        if declared.shape is not None and len(declared.shape) != len(wanted):
            raise self._wrong(
                f"the shape {_listed(wanted)} given for input '{name}' has "
                f"{len(wanted)} dimensions, but the model's has {len(declared.shape)}"
            )
        old = declared.shape if declared.shape is not None else (None,) * len(wanted)
        dims = [self._dim(name, wanted, i, d) for i, d in enumerate(old)]
        self.shapes[name] = tuple(dims)

    def _dim(self, name: str, wanted: tuple[int | str, ...], index: int, own: Dim) -> Dim:
        given = wanted[index]
        if isinstance(given, int) and not 0 <= given < _LARGEST:
            raise self._wrong(f"dimension {index} of input '{name}' can't be {given}")
        dim = given if isinstance(given, int) else parse_dim(given)
        if isinstance(own, int):
            return dim
        if own is None or dim is None:
            return own if dim is None else dim
        if (name_of := _lone_symbol(own)) is not None:
            before = self.symbols.setdefault(name_of, dim)
            if before != dim:
                raise self._wrong(
                    f"the shapes give both {before} and {dim} for the model's dimension '{own}'"
                )
        return dim

    def _wrong(self, message: str) -> QdqcError:
        listed = [f"input %{n} : {print_type(t)}" for n, t in self._inputs.items()]
        notes = [*listed, "give a size or a name for each dimension, e.g. [1,3,224,224]"]
        return QdqcError(message, file=self._file, notes=notes)


def _listed(dims: tuple[int | str, ...]) -> str:
    return "[" + ",".join(map(str, dims)) + "]"


def declared_types(infos: Sequence[ValueInfoProto]) -> dict[str, Type]:
    """Types by name, of those value infos whose types the IR has."""
    types = {info.name: read_type(info.type) for info in infos}
    return {name: type for name, type in types.items() if type is not None}


def input_types(graph: GraphProto, file: str | None) -> dict[str, Type]:
    """Types of a graph's inputs that no initializer fills, in order. Raises QdqcError."""
    given = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    wanted = [info for info in graph.input if info.name not in given]
    types = declared_types(wanted)
    for info in wanted:
        if info.name not in types:
            raise QdqcError(
                f"input '{info.name}' has no type that qdqc knows",
                file=file,
                notes=["give the input an element type where the model is made"],
            )
    if len(types) < len(wanted):
        raise QdqcError("two inputs have one name", file=file, notes=["export the model again"])
    return types
