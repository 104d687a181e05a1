"""Functions that a model brings along, made ready for onnx's inliner."""

from __future__ import annotations

from onnx import ModelProto

from qdqc.onnx_io.structure import all_nodes

__all__ = ["state_defaults"]


def state_defaults(model: ModelProto) -> None:
    """Write attributes that a call leaves to the function's default into the call, in place.

    onnx's inliner takes the default of the inner op for them instead, and with it other numbers.
    """
    known = {(f.domain, f.name, f.overload): f for f in model.functions}
    bodies = [model.graph.node, *(f.node for f in model.functions)]
    for node in (inner for body in bodies for inner in all_nodes(body)):
        function = known.get((node.domain, node.op_type, node.overload))
        if function is None:
            continue
        given = {attribute.name for attribute in node.attribute}
        node.attribute.extend(a for a in function.attribute_proto if a.name not in given)
