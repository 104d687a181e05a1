"""inline-control: a branch that is known to run, and a loop of no or one round, are no control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdqc.ir.core import Node, Value
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Identity, If, Loop, Scan, Squeeze, Unsqueeze
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["InlineControl"]


class InlineControl(PatternPass):
    """Put the graph of an If, Loop or Scan in its place where it is known to run once, or never.

    Nodes keep their names and locations; what gives a result bears the result's name.
    """

    name = "inline-control"

    @rewrites(If)
    def branch(self, node: Node[If], rw: Rewriter) -> Result:
        """if(c, then, else) is the branch that a constant c chooses."""
        chosen = _only(node.need("cond"), rw)
        if chosen is None:
            return rw.no("its condition is not a constant", node.need("cond"))
        return _results(rw.inline(node.graphs[0 if chosen else 1], ()), rw)

    @rewrites(Loop)
    def loop(self, node: Node[Loop], rw: Rewriter) -> Result:
        """No round gives what the loop starts with; one round is the body, its scans stacked."""
        trip, cond = node.operand("trip"), node.operand("cond")
        most = None if trip is None else _only(trip, rw)
        starts = True if cond is None else _only(cond, rw)
        if (most is not None and most <= 0) or (starts is not None and not starts):
            return _no_round(node, rw)
        if starts is None:
            return rw.no("its condition is not a constant", cond)
        body, carried = node.graphs[0], node.operands[2:]
        if most != 1 and _only(_source(body.outputs[0]), rw) != 0:
            return rw.no("it may run more than one round", trip)
        if trip is not None and most is None:
            return rw.no("it may run no round", trip)
        first = rw.constant(np.array(0, np.int64), body.inputs[0].name)
        runs = rw.constant(np.array(True), body.inputs[1].name)
        outputs = rw.inline(body, [first, runs, *(v for v in carried if v is not None)])[1:]
        scanned = outputs[len(carried) :]
        stacked = [rw.op(Unsqueeze(axes=(0,)), v) for v in scanned]
        return _results([*outputs[: len(carried)], *stacked], rw)

    @rewrites(Scan)
    def scan(self, node: Node[Scan], rw: Rewriter) -> Result:
        """A scan of length 1 is its body between squeezed slices and stacked results."""
        op, operands = node.op, node.present_operands
        states = len(operands) - op.num_scan_inputs
        axes = op.scan_input_axes or (0,) * op.num_scan_inputs
        slices = list(zip(operands[states:], axes, strict=True))
        for value, axis in slices:
            shape = value.tensor.shape
            if shape is None or shape[axis:][:1] != (1,):
                return rw.no("its length is not known to be 1", value)
        given = [rw.op(Squeeze(axes=(axis,)), value) for value, axis in slices]
        outputs = rw.inline(node.graphs[0], [*operands[:states], *given])
        scanned = outputs[states:]
        places = op.scan_output_axes or (0,) * len(scanned)
        pairs = zip(scanned, places, strict=True)
        stacked = [rw.op(Unsqueeze(axes=(axis,)), value) for value, axis in pairs]
        return _results([*outputs[:states], *stacked], rw)


def _only(value: Value, rw: Rewriter) -> int | None:
    """The one number of a constant."""
    array = rw.array(value)
    return int(array.item()) if array is not None and array.size == 1 else None


def _source(value: Value) -> Value:
    """What a value is the same as: what a graph gives may be no constant, but an identity."""
    while value.producer is not None and isinstance(value.producer.op, Identity):
        value = value.producer.need("x")
    return value


def _results(values: Sequence[Value], rw: Rewriter) -> list[Value]:
    """Values in the place of the root's results.

    What can't take the name of a graph output goes through an identity.
    """
    results: list[Value] = []
    for old, value in zip(rw.root.results, values, strict=False):
        fixed = old is not None and old.is_output
        free = value.producer in rw.created and value not in results
        results.append(rw.op(Identity(), value) if fixed and not free else value)
    return results


def _no_round(node: Node[Loop], rw: Rewriter) -> Result:
    """What a loop carries stays as it is, and what it scans is empty."""
    carried = [v for v in node.operands[2:] if v is not None]
    empty: list[tuple[tuple[int, ...], Elem]] = []
    for inner in node.graphs[0].outputs[1 + len(carried) :]:
        type = inner.type
        shape = type.static_shape if isinstance(type, TensorType) else None
        if not isinstance(type, TensorType) or shape is None or type.elem is Elem.STRING:
            return rw.no("it runs no round, but the shape of what it scans is not known", inner)
        empty.append(((0, *shape), type.elem))
    made = [rw.constant(np.zeros(shape, elem.dtype), elem=elem) for shape, elem in empty]
    return _results([*carried, *made], rw)
