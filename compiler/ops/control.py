"""Ops with nested graphs. Values of outer graphs are captured, not passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qdqc.ir.core import Constant
from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import TensorType, Type

if TYPE_CHECKING:
    from qdqc.ir.core import Node, Value
    from qdqc.ir.graph import Graph

__all__ = ["MOST_ROUNDS", "If", "Loop", "Scan", "static_rounds"]

MOST_ROUNDS = 1 << 24
"""Rounds of a loop that are run, those of loops inside it counted by their product."""


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


def static_rounds(graph: Graph, outer: int = 1) -> Iterator[tuple[Node[Any], int]]:
    """Loops and scans with how often their bodies run, as far as that is known beforehand.

    A body inside another runs the product of both. One whose rounds only the run decides counts
    as if it ran once.
    """
    for node in graph.nodes():
        rounds = outer
        if isinstance(node.op, Loop):
            rounds *= _trips(node)
        elif isinstance(node.op, Scan):
            rounds *= _slices(node, node.op)
        if rounds > outer:
            yield node, rounds
        for inner in node.graphs:
            yield from static_rounds(inner, rounds)


def _trips(node: Node[Any]) -> int:
    """The rounds of a loop that nothing ends before its constant trip count."""
    trip, body = node.at(0), node.graphs[0]
    if trip is None or not body.outputs or len(body.inputs) < 2:
        return 1
    count, goes_on = _scalar(trip), body.outputs[0]
    while goes_on.producer is not None and goes_on.producer.op.name == "identity":
        goes_on = goes_on.producer.need("x")
    first = node.at(1)
    starts = first is None or _scalar(first) == 1
    endless = goes_on is body.inputs[1] or _scalar(goes_on) == 1
    return max(1, count) if count is not None and starts and endless else 1


def _slices(node: Node[Any], scan: Scan) -> int:
    """How long the axis is that a scan goes along."""
    first = len(node.operands) - scan.num_scan_inputs
    value = node.at(first)
    axis = scan.scan_input_axes[0] if scan.scan_input_axes else 0
    shape = value.tensor.shape if value is not None and isinstance(value.type, TensorType) else None
    size = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
    return max(1, size) if isinstance(size, int) else 1


def _scalar(value: Value) -> int | None:
    """The number of a constant of one element; None for others."""
    data = getattr(value, "data", None)
    if data is None or data.is_elided or data.size != 1 or data.strings is not None:
        return None
    return int(data.array().reshape(()))


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
