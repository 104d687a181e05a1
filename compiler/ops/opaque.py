"""Any ONNX node that has no op of its own: kept as it came, run as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdqc.ir.fields import Flat
from qdqc.ir.op import Op
from qdqc.ir.types import Type

if TYPE_CHECKING:
    from qdqc.ir.core import Node

__all__ = ["Opaque"]


class Opaque(Op):
    """An ONNX node by its type, with its attributes as plain data.

    ``version`` is the opset (of ``domain``) at which its schema was last changed; an export
    opset that changed it since is an error. ``graph_names`` names the attribute of each nested
    graph. ``attrs`` holds numbers, texts, lists, types and arrays (``Data``) and prints flat:
    ``onnx(%x) {type = "Bar", domain = "com.foo", alpha = 1.0}``. Types of results are declared,
    never inferred.
    """

    name = "onnx"
    operands = ("xs*",)
    results = ("ys*",)

    type: str
    domain: str = ""
    version: int = 1
    graph_names: tuple[str, ...] = ()
    attrs: Flat = Flat()

    def infer(self, *operands: Any, **named: Any) -> tuple[Type, ...]:
        raise ValueError(f'types of the results of onnx "{self.type}" must be declared')

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        return (None,) * len(node.results)
