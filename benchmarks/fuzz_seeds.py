"""Small models of many families, which mutants are made of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

__all__ = ["SIDE_FILE", "backend_cases", "seeds"]

SIDE_FILE = ("w.bin", np.linspace(-1, 1, 12, dtype=np.float32).tobytes())
"""The file that the last of the seeds reads, and what is in it."""


@cache
def seeds() -> list[ModelProto]:
    """One model a family; the last reads ``w.bin`` beside it."""
    made = [_convolutions(), _shapes(), _branches(), _quantized(), _functions(), _sparse()]
    made += [_attention(), _recurrent(), _half(), _integer_products(), _detector(), _cache()]
    return [*made, _external()]


@cache
def backend_cases() -> list[tuple[str, ModelProto, Mapping[str, Any]]]:
    """The models that onnx gives to backends: names, models, and inputs of a first run."""
    from onnx.backend.test.case.node import collect_testcases

    return [
        (case.name, case.model, _inputs(case))
        for case in collect_testcases("")
        if case.model is not None
    ]


def _inputs(case: Any) -> Mapping[str, Any]:
    given = case.data_sets[0][0] if case.data_sets else []
    return dict(zip((v.name for v in case.model.graph.input), given, strict=False))


def _made(nodes: list[Any], inputs: list[Any], held: list[TensorProto]) -> ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _array(name: str, values: Any, kind: str = "f4") -> TensorProto:
    return numpy_helper.from_array(np.asarray(values).astype(kind), name)


def _convolutions() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="/conv"),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
        node("Clip", ["n", "low", "high"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["a"]),
        node("Flatten", ["a"], ["f"]),
        node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    held = [_random("w", 4, 3, 3, 3), _array("s", np.ones(4)), _array("low", 0)]
    held += [_array("high", 6), _random("g", 5, 4)]
    return _made(nodes, [_info("x", ["N", 3, 8, 8])], held)


def _shapes() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"], axis=0),
        node("Concat", ["b", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("Transpose", ["r"], ["u"], perm=[0, 2, 1]),
        node("MatMul", ["u", "w"], ["m"]),
        node("Add", ["m", "bias"], ["a"]),
        node("Slice", ["a", "zero", "two", "zero"], ["y"]),
    ]
    held = [_array("zero", [0], "i8"), _array("two", [2], "i8"), _array("rest", [4, -1], "i8")]
    held += [_random("w", 4, 6), _array("bias", np.ones(6))]
    return _made(nodes, [_info("x", ["N", 2, 6])], held)


def _branches() -> ModelProto:
    node = helper.make_node
    body = helper.make_graph([node("Abs", ["x"], ["t"])], "b", [], [_info("t", None)])
    steps = helper.make_graph(
        [node("Add", ["v", "x"], ["o"]), node("Identity", ["k"], ["l"])],
        "loop",
        [_info("i", [], TensorProto.INT64), _info("k", [], TensorProto.BOOL), _info("v", [4])],
        [_info("l", [], TensorProto.BOOL), _info("o", [4])],
    )
    nodes = [
        node("If", ["c"], ["e"], then_branch=body, else_branch=body),
        node("Loop", ["count", "c", "e"], ["y"], body=steps),
    ]
    inputs = [_info("x", [4]), _info("c", [], TensorProto.BOOL)]
    return _made(nodes, inputs, [_array("count", 3, "i8")])


def _quantized() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["v"], axis=0),
        node("Conv", ["d", "v"], ["c"]),
        node("QuantizeLinear", ["c", "sx", "zx"], ["k"]),
        node("DequantizeLinear", ["k", "sx", "zx"], ["y"]),
    ]
    held = [_array("sx", 0.1), _array("zx", 3, "u1"), _array("w", np.ones((2, 3, 1, 1)), "i1")]
    held += [_array("sw", [0.1, 0.2]), _array("zw", [0, 0], "i1")]
    return _made(nodes, [_info("x", [1, 3, 4, 4])], held)


def _functions() -> ModelProto:
    """Calls with and without the attribute, and a function that calls the other."""
    node = helper.make_node
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    default = [helper.make_attribute("alpha", 0.25)]
    functions = [
        helper.make_function("f", "Leaky", ["a"], ["b"], [leaky], opsets, [], default),
        helper.make_function(
            "f",
            "Twice",
            ["a"],
            ["b"],
            [node("Leaky", ["a"], ["t"], domain="f"), node("Leaky", ["t"], ["b"], domain="f")],
            opsets,
        ),
    ]
    nodes = [
        node("Twice", ["x"], ["t"], domain="f"),
        node("Leaky", ["t"], ["y"], domain="f", alpha=0.5),
    ]
    made = _made(nodes, [_info("x", ["N", 3])], [])
    made.opset_import.append(opsets[1])
    made.functions.extend(functions)
    return made


def _sparse() -> ModelProto:
    """A sparse initializer, a sparse Constant, and a Scan over what they make."""
    node = helper.make_node
    indices = _array("i", [1, 4], "i8")
    held = helper.make_sparse_tensor(_array("s", [5, 7]), indices, [2, 3])
    other = helper.make_sparse_tensor(_array("v", [5, 7]), indices, [2, 3])
    body = helper.make_graph(
        [node("Add", ["h", "k"], ["n"]), node("Identity", ["n"], ["o"])],
        "scan",
        [_info("h", [3]), _info("k", [3])],
        [_info("n", [3]), _info("o", [3])],
    )
    nodes = [
        node("Constant", [], ["c"], sparse_value=other),
        node("Add", ["s", "c"], ["a"]),
        node("Scan", ["x", "a"], ["l", "y"], body=body, num_scan_inputs=1),
    ]
    made = _made(nodes, [_info("x", [3])], [])
    made.graph.sparse_initializer.append(held)
    return made


def _external() -> ModelProto:
    """Two weights in one file, at offsets that meet."""
    node = helper.make_node
    weights: list[TensorProto] = []
    for name, offset, shape in (("w", 0, (2, 3)), ("b", 24, (6,))):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        size = 4 * int(np.prod(shape))
        for key, value in (("location", "w.bin"), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Concat", ["m", "m"], ["j"], axis=1),
        node("Add", ["j", "b"], ["y"]),
    ]
    return _made(nodes, [_info("x", ["N", 2])], weights)


def _attention() -> ModelProto:
    """A layer of two heads with its norm, as PyTorch exports it."""
    node = helper.make_node
    nodes = [
        node("LayerNormalization", ["x", "g", "b"], ["n"]),
        *(node("MatMul", ["n", "w"], [f"{p}m"]) for p in "qkv"),
        *(node("Reshape", [f"{p}m", "heads"], [f"{p}r"]) for p in "qkv"),
        *(node("Transpose", [f"{p}r"], [p], perm=[0, 2, 1, 3]) for p in "qv"),
        node("Transpose", ["kr"], ["k"], perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Mul", ["s", "half"], ["c"]),
        node("Softmax", ["c"], ["p"], axis=-1),
        node("MatMul", ["p", "v"], ["o"]),
        node("Transpose", ["o"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "flat"], ["f"]),
        node("Add", ["f", "x"], ["y"]),
    ]
    held = [_array("g", np.ones(8)), _array("b", np.zeros(8)), _array("half", 0.5)]
    held += [_random("w", 8, 8), _array("heads", [0, 0, 2, 4], "i8")]
    held += [_array("flat", [0, 0, 8], "i8")]
    return _made(nodes, [_info("x", ["N", "T", 8])], held)


def _recurrent() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("GRU", ["m", "wg", "rg"], ["", "h"], hidden_size=4),
        node("LSTM", ["m", "wl", "rl"], ["all", "", "c"], hidden_size=4),
        node("Add", ["h", "c"], ["y"]),
    ]
    held = [_random("w", 6, 5), _random("wg", 1, 12, 5), _random("rg", 1, 12, 4)]
    held += [_random("wl", 1, 16, 5), _random("rl", 1, 16, 4)]
    return _made(nodes, [_info("x", [3, 2, 6])], held)


def _half() -> ModelProto:
    """A source in float16 between casts."""
    node = helper.make_node
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("Conv", ["h", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Resize", ["c", "", "s"], ["r"], mode="linear"),
        node("Relu", ["r"], ["a"]),
        node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    held = [_random("w", 4, 3, 3, 3, kind="f2"), _array("s", [1, 1, 2, 2])]
    return _made(nodes, [_info("x", [1, 3, 6, 6])], held)


def _integer_products() -> ModelProto:
    """What onnxruntime's dynamic quantizer writes, and a product of QOperator form."""
    node = helper.make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "sq", "zq"]),
        node("MatMulInteger", ["q", "w", "zq", "zw"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["sq", "sw"], ["s"]),
        node("Mul", ["f", "s"], ["m"]),
        node("QuantizeLinear", ["m", "sx", "zx"], ["k"]),
        node("QLinearMatMul", ["k", "sx", "zx", "v", "sw", "zw", "sx", "zx"], ["l"]),
        node("DequantizeLinear", ["l", "sx", "zx"], ["y"]),
    ]
    integers = np.random.default_rng(2).integers(-100, 100, (2, 6, 6))
    held = [_array("w", integers[0], "i1"), _array("v", integers[1], "i1")]
    held += [_array("zw", 0, "i1"), _array("sw", 0.01), _array("sx", 0.1), _array("zx", 128, "u1")]
    return _made(nodes, [_info("x", ["N", 6])], held)


def _detector() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c"], ["s"]),
        node("Reshape", ["s", "rows"], ["m"]),
        node("Split", ["m", "parts"], ["y", "k"], axis=2),
        node("Transpose", ["k"], ["scores"], perm=[0, 2, 1]),
        node("NonMaxSuppression", ["y", "scores", "most", "iou", "least"], ["chosen"]),
    ]
    held = [_random("w", 8, 3, 3, 3), _array("rows", [1, -1, 8], "i8")]
    held += [_array("parts", [4, 4], "i8"), _array("most", [5], "i8")]
    held += [_array("iou", [0.5]), _array("least", [0.4])]
    made = _made(nodes, [_info("x", [1, 3, 6, 6])], held)
    made.graph.output.append(_info("chosen", None, TensorProto.INT64))
    return made


def _cache() -> ModelProto:
    """One step of a decoder: what is past, and what is new."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["k"]),
        node("Concat", ["past", "k"], ["present"], axis=1),
        node("Transpose", ["present"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["x", "t"], ["s"]),
        node("Add", ["s", "mask"], ["a"]),
        node("Softmax", ["a"], ["p"], axis=-1),
        node("MatMul", ["p", "present"], ["y"]),
    ]
    inputs = [_info("x", ["N", "T", 6]), _info("past", ["N", "P", 6]), _info("mask", ["T", "T+P"])]
    return _made(nodes, inputs, [_random("w", 6, 6)])


def _random(name: str, *shape: int, kind: str = "f4") -> TensorProto:
    rng = np.random.default_rng(len(name) + sum(shape))
    return _array(name, rng.standard_normal(shape) / np.sqrt(shape[-1]), kind)
