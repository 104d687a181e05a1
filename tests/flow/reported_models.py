"""Small models with what users' models stumbled over, each with data: one function a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from small_models import f32, model, node

Feeds = list[dict[str, Any]]
Reported = tuple[onnx.ModelProto, Feeds]


def drawn(shape: Sequence[int], count: int = 8, name: str = "x", dtype: Any = np.float32) -> Feeds:
    rng = np.random.default_rng(5)
    return [{name: rng.normal(size=shape).astype(dtype)} for _ in range(count)]


def resized() -> Reported:
    """The scales of Resize are float32 whatever else is float16."""
    constants = {"w": f32(4, 3, 3, 3, scale=0.2), "s": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        node("Resize", ["c", "", "s"], ["y"], mode="linear"),
    ]
    return model(nodes, {"x": [1, 3, 8, 8]}, constants), drawn((1, 3, 8, 8))


def recurrent(op: str, gates: int) -> Reported:
    """A product before a layer whose first result nobody reads."""
    constants = {
        "w": f32(16, 12, scale=0.2),
        "wg": f32(1, gates * 8, 12, scale=0.3),
        "rg": f32(1, gates * 8, 8, scale=0.3),
    }
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node(op, ["m", "wg", "rg"], ["", "y"], hidden_size=8),
    ]
    return model(nodes, {"x": [5, 2, 16]}, constants), drawn((5, 2, 16))


def between_convolutions(middle: NodeProto, **constants: Any) -> Reported:
    """c -> middle -> q, with axes that ONNX writes apart (opset 18)."""
    constants |= {"w": f32(4, 3, 3, 3, scale=0.2), "v": f32(4, 4, 3, 3, scale=0.2)}
    nodes = [node("Conv", ["x", "w"], ["c"]), middle, node("Conv", ["q", "v"], ["y"])]
    return model(nodes, {"x": [1, 3, 10, 10]}, constants, opset=18), drawn((1, 3, 10, 10))


def padded() -> Reported:
    middle = node("Pad", ["c", "p", "", "a"], ["q"])
    return between_convolutions(middle, p=np.array([1, 1, 1, 1]), a=np.array([2, 3]))


def resized_along_axes() -> Reported:
    middle = node("Resize", ["c", "", "s"], ["q"], axes=[2, 3], mode="nearest")
    return between_convolutions(middle, s=np.array([2, 2], np.float32))


def halves() -> Reported:
    """All in float16, inputs and outputs too."""
    constants = {
        "w": f32(8, 3, 3, 3, scale=0.2).astype(np.float16),
        "v": f32(4, 8, 3, 3, scale=0.1).astype(np.float16),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"]),
    ]
    made = model(nodes, {"x": [1, 3, 8, 8]}, constants, elem=TensorProto.FLOAT16)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return made, drawn((1, 3, 8, 8), dtype=np.float16)


def product_and_relu() -> Reported:
    """Integers in, floats out."""
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Relu", ["m"], ["y"])]
    return model(nodes, {"x": [4, 24]}, {"w": f32(24, 16, scale=0.2)}), drawn((4, 24))


def clamped(op: str, activation: NodeProto, *, bias: bool = False) -> Reported:
    """Integers in, floats out, and no output of the graph: a -> activation -> r."""
    names = ["x", "w", "b"] if bias and op == "Gemm" else ["x", "w"]
    nodes = [node(op, names, ["a"])]
    if bias and op == "MatMul":
        nodes = [node(op, names, ["m"]), node("Add", ["m", "b"], ["a"])]
    constants = {"w": f32(24, 16, scale=0.2), "b": f32(16), "low": np.float32(0)}
    constants["high"] = np.float32(1.5)
    nodes += [activation, node("Sin", ["r"], ["y"])]
    read = {n for each in nodes for n in each.input}
    made = model(nodes, {"x": [4, 24]}, {n: c for n, c in constants.items() if n in read})
    return made, drawn((4, 24))


def empty_cache() -> Reported:
    """The first step of a decoder: there is no past yet."""
    nodes = [node("Concat", ["past", "x"], ["k"], axis=1), node("MatMul", ["k", "w"], ["y"])]
    shapes: Mapping[str, Any] = {"past": ["n", "p", 24], "x": ["n", "t", 24]}
    made = model(nodes, shapes, {"w": f32(24, 16, scale=0.2)})
    return made, [{"past": np.zeros((1, 0, 24), np.float32), **f} for f in drawn((1, 3, 24))]


def known_branch() -> Reported:
    """An If whose condition is known, with a value of its own in the branch that is taken."""
    inner = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("b", "c")]
    then = helper.make_graph(
        [node("Relu", ["x"], ["a"]), node("MatMul", ["a", "w"], ["b"])], "t", [], inner[:1]
    )
    other = helper.make_graph([node("Identity", ["x"], ["c"])], "e", [], inner[1:])
    nodes = [
        node("If", ["known"], ["r"], then_branch=then, else_branch=other),
        node("Abs", ["r"], ["y"]),
    ]
    constants = {"known": np.array(True), "w": f32(24, 24, scale=0.2)}
    return model(nodes, {"x": [4, 24]}, constants), drawn((4, 24))


def branches_of_two_sizes() -> Reported:
    """An If that the run decides, whose branches give other shapes."""
    inner = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("b", "c")]
    then = helper.make_graph([node("MatMul", ["x", "w"], ["b"])], "t", [], inner[:1])
    twice = [node("Concat", ["x", "x"], ["xx"], axis=0), node("MatMul", ["xx", "w"], ["c"])]
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["k"]),
        node(
            "If",
            ["k"],
            ["r"],
            then_branch=then,
            else_branch=helper.make_graph(twice, "e", [], inner[1:]),
        ),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "w": f32(24, 16, scale=0.2), "v": f32(16, 8, scale=0.2)}
    return model(nodes, {"x": [4, 24]}, constants), drawn((4, 24))


def shared_weight(op: str = "Gemm") -> Reported:
    """One weight that twenty products read."""
    nodes, x = list[NodeProto](), "x"
    for k in range(20):
        y = "y" if k == 19 else f"t{k}"
        if op == "Gemm":
            nodes.append(node("Gemm", [x, "w", "b"], [f"g{k}"], transB=1))
        else:
            nodes += [node("MatMul", [x, "w"], [f"m{k}"]), node("Add", [f"m{k}", "b"], [f"g{k}"])]
        nodes.append(node("Tanh", [f"g{k}"], [y]))
        x = y
    constants = {"w": f32(256, 256, scale=1 / 16), "b": f32(256, scale=0.1)}
    return model(nodes, {"x": [1, 256]}, constants), drawn((1, 256))


def one_number() -> Reported:
    """A net that answers with one number, and two inner values that are 60 times the others."""
    first = f32(64, 64)
    first[:, :2] *= 60
    constants = {"a": first, "b": f32(64, 1, scale=1 / 40), "c": np.array([-1], np.float32)}
    nodes = [
        node("Gemm", ["x", "a"], ["g"]),
        node("Relu", ["g"], ["r"]),
        node("Gemm", ["r", "b", "c"], ["h"]),
        node("Sigmoid", ["h"], ["y"]),
    ]
    return model(nodes, {"x": [1, 64]}, constants), drawn((1, 64), 32)


def chosen_boxes() -> Reported:
    """Boxes and their scores, and which of them are chosen."""
    constants = {
        "w": f32(8, 3, 3, 3, scale=0.3),
        "to": np.array([1, -1, 8]),
        "first": np.array([0]),
        "middle": np.array([4]),
        "last": np.array([8]),
        "axis": np.array([2]),
        "most": np.array([20]),
        "iou": np.array([0.5], np.float32),
        "least": np.array([0.4], np.float32),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        node("Sigmoid", ["c"], ["s"]),
        node("Reshape", ["s", "to"], ["m"]),
        node("Slice", ["m", "first", "middle", "axis"], ["boxes"]),
        node("Slice", ["m", "middle", "last", "axis"], ["classes"]),
        node("Transpose", ["classes"], ["scores"], perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["y"]),
    ]
    made = model(nodes, {"x": [1, 3, 16, 16]}, constants)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    for name in ("boxes", "scores"):
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made, drawn((1, 3, 16, 16))


def weight_behind_reshape() -> Reported:
    """Stored integers, their cast and a Reshape are a weight."""
    rng = np.random.default_rng(6)
    constants = {
        "q": rng.integers(-127, 128, (4, 6, 16)).astype(np.int8),
        "s": np.float32(0.01),
        "to": np.array([24, 16]),
    }
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["d"]),
        node("Reshape", ["d", "to"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    return model(nodes, {"x": [4, 24]}, constants), drawn((4, 24))


def odd_names(names: Sequence[str]) -> Reported:
    """Convolutions one behind the other whose nodes and results have these names."""
    constants = {f"w{k}": f32(4, 4, 3, 3, scale=0.2) for k in range(len(names) + 1)}
    nodes, x = list[NodeProto](), "x"
    for k, y in enumerate([*names, "y"]):
        nodes.append(node("Conv", [x, f"w{k}"], [y], name=f"n{y}", pads=[1] * 4))
        x = y
    return model(nodes, {"x": [1, 4, 6, 6]}, constants), drawn((1, 4, 6, 6))


REPORTED: dict[str, Callable[[], Reported]] = {
    "resized": resized,
    "resized-along-axes": resized_along_axes,
    "padded": padded,
    "gru": lambda: recurrent("GRU", 3),
    "lstm": lambda: recurrent("LSTM", 4),
    "rnn": lambda: recurrent("RNN", 1),
    "halves": halves,
    "product-and-relu": product_and_relu,
    "matmul-relu-sin": lambda: clamped("MatMul", node("Relu", ["a"], ["r"])),
    "matmul-bias-relu-sin": lambda: clamped("MatMul", node("Relu", ["a"], ["r"]), bias=True),
    "gemm-relu-sin": lambda: clamped("Gemm", node("Relu", ["a"], ["r"]), bias=True),
    "gemm-clip-sin": lambda: clamped("Gemm", node("Clip", ["a", "low", "high"], ["r"])),
    "matmul-clip-sin": lambda: clamped("MatMul", node("Clip", ["a", "low", "high"], ["r"])),
    "empty-cache": empty_cache,
    "known-branch": known_branch,
    "branches-of-two-sizes": branches_of_two_sizes,
    "shared-weight": shared_weight,
    "shared-matmul": lambda: shared_weight("MatMul"),
    "one-number": one_number,
    "chosen-boxes": chosen_boxes,
    "weight-behind-reshape": weight_behind_reshape,
    "names-of-our-own": lambda: odd_names(["h", "h_q", "h_q_q", "h_dq"]),
    "names-that-forge": lambda: odd_names(["\x1b[31mred", "a\nwrote good.onnx", "</script><b>"]),
}


def without_a_number(name: str) -> onnx.ModelProto:
    """A NaN in the weight or the bias of a product."""
    constants = {"w": f32(16, 24, scale=0.3), "b": f32(16)}
    constants[name].flat[0] = np.nan
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    return model(nodes, {"x": [4, 24]}, constants)


def with_attribute(op: str, attribute: str, value: Any) -> onnx.ModelProto:
    nodes = [node(op, ["x"], ["y"])]
    nodes[0].attribute.append(helper.make_attribute(attribute, value))
    return model(nodes, {"x": [3, 2]}, {}, opset=13)


def long_loop(rounds: int) -> onnx.ModelProto:
    """Adds x to itself that many times."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", ["a", "x"], ["sum"]), node("Identity", ["c"], ["goes_on"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("c", TensorProto.BOOL, []),
            value("a", TensorProto.FLOAT, [2]),
        ],
        [value("goes_on", TensorProto.BOOL, []), value("sum", TensorProto.FLOAT, [2])],
    )
    held = {"rounds": numpy_helper.from_array(np.int64(rounds), "rounds")}
    return model([node("Loop", ["rounds", "", "x"], ["y"], body=body)], {"x": [2]}, held)
