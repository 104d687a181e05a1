"""What the small models of these tests are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


RNG = np.random.default_rng(1)


def start_over(seed: int) -> None:
    """Let the next numbers be those of this seed, whatever other tests have drawn."""
    RNG.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def f32(*shape: int, scale: float = 1.0) -> Array:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, Any],
    opset: int = 17,
    elem: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model whose output is y, of whatever shape and type."""
    ins = [helper.make_tensor_value_info(n, elem, s) for n, s in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [
        c if isinstance(c, TensorProto) else numpy_helper.from_array(np.asarray(c), n)
        for n, c in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", ins, [out], held)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 11)


node = helper.make_node


def pair(x: str, y: str, scale: str, zero: str) -> list[NodeProto]:
    """x quantized to y_q, and back to y."""
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{y}_q"]),
        node("DequantizeLinear", [f"{y}_q", scale, zero], [y]),
    ]
