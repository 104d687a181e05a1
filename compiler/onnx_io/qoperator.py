"""Integer ops of other tools, written out: QLinearConv is dequantize, Conv, quantize.

onnxruntime's QOperator format holds quantized networks as ops that take integers, scales and zero
points. Each with constant scales becomes the float op between casts, which ``qdq.py`` reads as
types. What moves integers between them (MaxPool, Reshape...) moves the numbers instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from qdqc.ir.core import Constant
from qdqc.ir.data import Data
from qdqc.ir.types import Elem
from qdqc.onnx_io.scope import Scope
from qdqc.onnx_io.structure import subgraphs

__all__ = ["FORMS", "MOVERS", "Form", "Scaled", "Writing", "as_casts"]

Array = npt.NDArray[Any]

MOVERS = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Ops that move or select integers as they do numbers; the first input is what they move."""


_SIZERS = ("Resize", "Upsample")


def moves(node: NodeProto) -> bool:
    """Whether a node moves or selects integers as it does numbers."""
    if node.op_type not in _SIZERS:
        return node.op_type in MOVERS
    stated = {a.name: a.s for a in node.attribute}
    crops = stated.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return stated.get("mode", b"nearest") == b"nearest" and not crops


@dataclass(frozen=True)
class Scaled:
    """Names of an integer tensor, of its scale and of its zero point, which may be absent."""

    name: str
    scale: str
    zero: str = ""


Form = Callable[["Writing", NodeProto], bool]

FORMS: dict[str, Form] = {}
"""How an op is written out, by its type: False where it can't be. ``qoperator_forms.py`` fills
it.
"""


def as_casts(nodes: Sequence[NodeProto], scope: Scope, opset: int) -> Sequence[NodeProto]:
    """The nodes of a graph with integer ops of constant scales written out between casts.

    Constants must be known to ``scope``; those that this takes are added to it. ``opset`` is that
    of the default domain. What can't be written out stays as it is.
    """
    if not any(n.op_type in FORMS or n.op_type in _CASTS for n in nodes):
        return nodes
    return Writing(nodes, scope, opset).run()


_CASTS = ("QuantizeLinear", "DequantizeLinear")


class Writing:
    """The nodes that come out, and the float views of integer tensors among them."""

    def __init__(self, nodes: Sequence[NodeProto], scope: Scope, opset: int) -> None:
        self.nodes = nodes
        self.scope = scope
        self.opset = opset
        self.out: list[NodeProto] = []
        self.views: dict[tuple[Scaled, int | None], str] = {}
        self.scales: dict[str, Scaled] = {}
        self.taken = {o for n in nodes for o in n.output} | scope.names() | scope.reserved

    def run(self) -> list[NodeProto]:
        wanted = self._wanted()
        for node in self.nodes:
            form = FORMS.get(node.op_type)
            mark = len(self.out)
            if form is not None and form(self, node):
                continue
            self._undo(mark)
            if moves(node) and self._moved(node, wanted):
                continue
            self.out.append(node)
            if node.op_type == "QuantizeLinear" and not node.attribute:
                self._note(node)
        return self.out

    def _undo(self, mark: int) -> None:
        """Forget what a form wrote before it found that it can't."""
        made = {o for n in self.out[mark:] for o in n.output}
        del self.out[mark:]
        self.views = {key: view for key, view in self.views.items() if view not in made}
        self.scales = {name: s for name, s in self.scales.items() if name not in made}

    def _wanted(self) -> dict[str, Scaled]:
        """Integer tensors that are read by their scale, directly or behind what moves them."""
        wanted: dict[str, Scaled] = {}
        for node in reversed(self.nodes):
            read = list(node.input)
            if node.op_type == "DequantizeLinear" and len(read) > 1 and not node.attribute:
                wanted[read[0]] = Scaled(read[0], read[1], read[2] if len(read) > 2 else "")
            elif node.op_type in FORMS:
                for first in (0, 3):  # where the integers of most ops stand; others do not move
                    if len(read) > first + 2:
                        wanted[read[first]] = Scaled(*read[first : first + 3])
            elif moves(node) and node.output[0] in wanted:
                behind = wanted[node.output[0]]
                wanted[read[0]] = Scaled(read[0], behind.scale, behind.zero)
        return wanted

    def _note(self, node: NodeProto) -> None:
        name, zero = node.output[0], node.input[2] if len(node.input) > 2 else ""
        self.scales[name] = Scaled(name, node.input[1], zero)

    def _moved(self, node: NodeProto, wanted: dict[str, Scaled]) -> bool:
        """Let a node move numbers where it moves integers of one known scale."""
        behind = wanted.get(node.output[0])
        if behind is None or any(subgraphs(node)):
            return False
        source = self.scales.get(node.input[0])
        if source is None and self.array(node.input[0]) is not None:
            source = Scaled(node.input[0], behind.scale, behind.zero)
        if source is None or not self._same(source, behind):
            return False
        view = self.view(source)
        if view is None:
            return False
        made = NodeProto()
        made.CopyFrom(node)
        made.input[0] = view
        outputs = list(node.output)
        indices = 1 if node.op_type == "MaxPool" else len(outputs)
        for index, name in enumerate(outputs[:indices]):
            made.output[index] = self.fresh(f"{name}_f")
        self.out.append(made)
        for index, name in enumerate(outputs[:indices]):
            self.store(node, made.output[index], Scaled(name, source.scale, source.zero))
        return True

    def _same(self, a: Scaled, b: Scaled) -> bool:
        """Whether two scales per tensor are one."""
        pairs = [(self.array(x), self.array(y)) for x, y in ((a.scale, b.scale), (a.zero, b.zero))]
        for x, y in pairs:
            first, second = (np.zeros(1) if v is None else v for v in (x, y))
            if first.size != 1 or second.size != 1 or first.item() != second.item():
                return False
        return pairs[0][0] is not None

    def array(self, name: str) -> Array | None:
        """The contents of a constant; None for another name, and for none."""
        try:
            value = self.scope[name] if name else None
        except KeyError:
            return None
        if not isinstance(value, Constant) or value.data.is_elided:
            return None
        return value.data.array()

    def fresh(self, name: str) -> str:
        """A name that no tensor has."""
        made, number = name, 1
        while made in self.taken:
            made, number = f"{name}_{number}", number + 1
        self.taken.add(made)
        return made

    def constant(self, name: str, array: Array) -> str:
        """The name of a constant, new where no other has it."""
        made = self.fresh(name)
        self.scope.defer(made, lambda: Data.of(array))
        return made

    def view(self, source: Scaled, axis: int | None = None) -> str | None:
        """The name of the numbers that integers stand for; None where their scale is no constant.

        A scale per element of ``axis`` needs one; so does nothing else.
        """
        scale = self.array(source.scale)
        zero = self.array(source.zero) if source.zero else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.dtype != np.float32:
            return None
        if scale.size != 1 and axis is None:
            return None
        key = (source, None if scale.size == 1 else axis)
        if key not in self.views:
            made = self.views[key] = self.fresh(f"{source.name}_dq")
            attributes: dict[str, Any] = {} if key[1] is None else {"axis": axis}
            read = [source.name, source.scale, *([source.zero] if source.zero else [])]
            self.out.append(helper.make_node("DequantizeLinear", read, [made], made, **attributes))
        return self.views[key]

    def op(self, node: NodeProto, type_: str, read: Sequence[str], **attributes: Any) -> str:
        """The result of a float op that a node stands for, before it is quantized."""
        made = self.fresh(f"{node.output[0]}_f")
        self.out.append(helper.make_node(type_, read, [made], node.name, **attributes))
        return made

    def give(self, node: NodeProto, made: str) -> bool:
        """Let the last op's result be that of the node, in float."""
        assert self.out[-1].output[0] == made
        self.out[-1].output[0] = node.output[0]
        return True

    def store(self, node: NodeProto, made: str, result: Scaled, like: Scaled | None = None) -> bool:
        """Quantize a result into the integers of the node; False where their scale is unknown.

        A result without zero point has the type of ``like``, whose integers its op takes.
        """
        scale, zero = self.array(result.scale), self.array(result.zero)
        if scale is None or scale.size != 1 or scale.dtype != np.float32:
            return False
        if result.zero and (zero is None or zero.size != 1):
            return False
        if not result.zero and like is not None:
            given = self.array(like.zero)
            if given is None:
                return False
            name = self.constant(f"{result.name}_zero_point", np.zeros((), given.dtype))
            result = Scaled(result.name, result.scale, name)
        read = [made, result.scale, *([result.zero] if result.zero else [])]
        self.out.append(helper.make_node("QuantizeLinear", read, [result.name], node.name))
        self.scales[result.name] = result
        return True

    def is_integer(self, name: str, *elems: Elem) -> bool:
        """Whether a constant has one of these types."""
        array = self.array(name)
        return array is not None and Elem.of(array.dtype) in elems
