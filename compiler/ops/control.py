"""Ops with nested graphs. Values of outer graphs are captured, not passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdqc.ir.core import Constant
from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import TensorType, Type

if TYPE_CHECKING:
    from qdqc.ir.core import Node

__all__ = ["If", "Loop", "Scan"]


class _Control(Op):
    """What If, Loop and Scan share: results are declared where nothing better is known."""

    def infer(self, *operands: Any, **named: Any) -> tuple[Type, ...]:
        raise ValueError(f"types of the results of '{self.name}' must be declared")

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        return (None,) * len(node.results)


class If(_Control):
    """Gives the outputs of its first graph where ``cond`` holds, else of its second."""

    name = "if"
    operands = ("cond",)
    results = ("ys*",)
    graphs = ("then_branch", "else_branch")
    onnx = Onnx("If")

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        if len(node.graphs) != 2:
            raise ValueError(f"needs a graph for each of two branches, has {len(node.graphs)}")
        taken = _taken(node)
        if taken is not None:
            return tuple(v.type for v in node.graphs[taken].outputs)
        then, other = (g.outputs for g in node.graphs)
        if len(then) != len(other):
            raise ValueError(f"branches give {len(then)} and {len(other)} values")
        return tuple(_either(a.type, b.type) for a, b in zip(then, other, strict=True))


class Loop(_Control):
    """Runs its graph ``trip`` times or until its first output is false.

    Graph inputs are (iteration, condition, carried...), its outputs (condition, carried...,
    scanned...). Results are the carried values after the last run, then each scanned value
    stacked along a new first axis.
    """

    name = "loop"
    operands = ("trip?", "cond?", "xs*")
    results = ("ys*",)
    graphs = ("body",)
    onnx = Onnx("Loop")

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        carried = max(len(node.operands) - 2, 0)
        _check_body(node, carried + 2, carried + 1)
        return super().infer_node(node)


class Scan(_Control):
    """Runs its graph over slices of the last ``num_scan_inputs`` operands.

    Graph inputs are (state..., slices...), its outputs (state..., scanned slices...).
    """

    name = "scan"
    operands = ("xs*",)
    results = ("ys*",)
    graphs = ("body",)
    onnx = Onnx("Scan", since=9)

    num_scan_inputs: int
    scan_input_axes: tuple[int, ...] = ()
    scan_input_directions: tuple[int, ...] = ()
    scan_output_axes: tuple[int, ...] = ()
    scan_output_directions: tuple[int, ...] = ()

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        given, slices = len(node.operands), self.num_scan_inputs
        if not 0 < slices <= given:
            raise ValueError(f"scans {slices} of its {given} operands")
        _check_body(node, given, given - slices)
        scanned = len(node.graphs[0].outputs) - (given - slices)
        for axes, count in (
            (self.scan_input_axes, slices),
            (self.scan_input_directions, slices),
            (self.scan_output_axes, scanned),
            (self.scan_output_directions, scanned),
        ):
            if axes and len(axes) != count:
                raise ValueError(f"has {len(axes)} axes or directions for {count} scanned values")
        return super().infer_node(node)


def _taken(node: Node[Any]) -> int | None:
    """The branch that a constant condition chooses; what the other one gives counts for nothing."""
    cond = node.at(0)
    if not isinstance(cond, Constant) or cond.data.is_elided or cond.data.size != 1:
        return None
    branch = 0 if cond.data.array().any() else 1
    return branch if len(node.graphs[branch].outputs) == len(node.results) else None


def _check_body(node: Node[Any], takes: int, gives: int) -> None:
    """Raises ValueError where the body has other inputs, or fewer outputs, than it needs."""
    if len(node.graphs) != 1:
        raise ValueError(f"needs one body, has {len(node.graphs)}")
    body = node.graphs[0]
    if len(body.inputs) != takes:
        raise ValueError(f"its body has {len(body.inputs)} inputs, needs {takes}")
    if len(body.outputs) < gives:
        raise ValueError(f"its body gives {len(body.outputs)} values, needs at least {gives}")


def _either(a: Type, b: Type) -> Type | None:
    """What holds of both types; None leaves the declared type."""
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a if a == b else None
    a, b = a.expressed(), b.expressed()
    if a.elem is not b.elem:
        raise ValueError(f"branches give {a.elem.text} and {b.elem.text} for one result")
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return TensorType(a.elem, None)
    dims: list[Dim] = [x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)]
    return TensorType(a.elem, tuple(dims))
