"""Functions that a model brings along, made ready for onnx's inliner."""

from __future__ import annotations

import onnx.inliner
from onnx import GraphProto, ModelProto

from qdqc.diagnostics import QdqcError
from qdqc.onnx_io.structure import all_nodes

__all__ = ["inlined", "state_defaults"]


def inlined(model: ModelProto, file: str | None = None) -> ModelProto:
    """The model without functions of its own, as it is where it has none.

    Raises QdqcError for what onnx's inliner refuses.
    """
    if not model.functions:
        return model
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    light.graph.CopyFrom(_without_weights(model.graph))
    domains = {entry.domain for entry in light.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain not in domains:
                light.opset_import.append(entry)
                domains.add(entry.domain)
    state_defaults(light)
    try:
        whole = onnx.inliner.inline_local_functions(light)
        if whole.functions:
            whole = onnx.inliner.inline_local_functions(light, convert_version=True)
    except Exception as error:
        raise QdqcError(
            f"the functions of the model can't be inlined: {error}",
            file=file,
            notes=["inline them where the model is made, or export it again"],
        ) from error
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(model.graph.initializer)
    return whole


def _without_weights(graph: GraphProto) -> GraphProto:
    """A copy of a graph whose initializers have a name and a type but no contents."""
    out = GraphProto(name=graph.name)
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(out, field).extend(getattr(graph, field))
    for tensor in graph.initializer:
        out.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return out


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
