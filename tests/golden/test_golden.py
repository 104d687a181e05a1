"""Dumps of three tiny models after the named pipelines, held against the files beside this one.

A change that means to change nothing is seen to change nothing. Where a dump changes on purpose:

    QDQC_UPDATE_GOLDEN=1 python -m pytest tests/golden

writes the files anew; read their diff before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

HERE = Path(__file__).parent
UPDATE = bool(os.environ.get("QDQC_UPDATE_GOLDEN"))


class Model:
    """Nodes and initializers of an ONNX model. Weights are made without a random generator:
    the same on every machine and with every numpy.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def weight(self, *shape: int, name: str) -> str:
        numbers = (np.arange(int(np.prod(shape))) * 37 + 11 * len(self.tensors)) % 127 - 63
        return self.const((numbers / 64).reshape(shape).astype(np.float32), name)

    def const(self, array: npt.ArrayLike, name: str) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"/{output}/{op}", **attrs))
        return output

    def build(self, x: Sequence[int | str], output: str) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "golden",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def mobilenet() -> ModelProto:
    """An inverted residual block with its padding apart, a pool and a classifier."""
    m = Model()
    low, high = m.const(np.float32(0), "low"), m.const(np.float32(6), "high")

    def block(x: str, name: str, shape: Sequence[int], clip: bool, **attrs: Any) -> str:
        n = shape[0]
        c = m.node("Conv", [x, m.weight(*shape, name=f"{name}.w")], f"{name}.conv", **attrs)
        scale = m.weight(n, name=f"{name}.scale")
        rest = [m.weight(n, name=f"{name}.{p}") for p in ("bias", "mean")]
        var = m.const((np.arange(n) % 5 + 1).astype(np.float32) / 4, f"{name}.var")
        y = m.node("BatchNormalization", [c, scale, *rest, var], f"{name}.bn")
        return m.node("Clip", [y, low, high], f"{name}.act") if clip else y

    pads = m.const(np.array([0, 0, 0, 0, 0, 0, 1, 1]), "pads")
    stem = block(m.node("Pad", ["x", pads], "padded"), "stem", (8, 3, 3, 3), True, strides=[2, 2])
    wide = block(stem, "expand", (16, 8, 1, 1), True)
    deep = block(wide, "depth", (16, 1, 3, 3), True, group=16, pads=[1, 1, 1, 1])
    thin = block(deep, "project", (8, 16, 1, 1), False)
    same = m.node("Identity", [m.node("Add", [thin, stem], "sum")], "dropout")
    flat = m.node("Flatten", [m.node("GlobalAveragePool", [same], "pool")], "flat")
    w, b = m.weight(5, 8, name="fc.w"), m.weight(5, name="fc.b")
    return m.build(["N", 3, 8, 8], m.node("Gemm", [flat, w, b], "logits", transB=1))


def transformer() -> ModelProto:
    """Attention and a feed-forward part, LayerNormalization and Gelu as exporters spell them."""
    m = Model()
    two = m.const(np.float32(2), "two")

    def norm(x: str, name: str) -> str:
        d = m.node("Sub", [x, m.node("ReduceMean", [x], f"{name}.mean", axes=[-1])], f"{name}.d")
        squares = m.node("Pow", [d, two], f"{name}.pow")
        var = m.node("ReduceMean", [squares], f"{name}.var", axes=[-1])
        eps = m.const(np.float32(1e-5), f"{name}.eps")
        std = m.node("Sqrt", [m.node("Add", [var, eps], f"{name}.add")], f"{name}.std")
        y = m.node("Div", [d, std], f"{name}.div")
        y = m.node("Mul", [y, m.weight(8, name=f"{name}.gamma")], f"{name}.mul")
        return m.node("Add", [y, m.weight(8, name=f"{name}.beta")], f"{name}.y")

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        y = m.node("MatMul", [x, m.weight(rows, columns, name=f"{name}.w")], f"{name}.mm")
        return m.node("Add", [m.weight(columns, name=f"{name}.b"), y], f"{name}.y")

    q, k, v = (linear("x", name, 8, 8) for name in "qkv")
    keys = m.node("Transpose", [k], "keys", perm=[0, 2, 1])
    scores = m.node("MatMul", [q, keys], "scores")
    scaled = m.node("Div", [scores, m.const(np.float32(2.5), "root")], "scaled")
    mixed = m.node("MatMul", [m.node("Softmax", [scaled], "probs", axis=-1), v], "mixed")
    first = norm(m.node("Add", [linear(mixed, "out", 8, 8), "x"], "res1"), "ln1")
    h = linear(first, "up", 8, 16)
    erf = m.node("Erf", [m.node("Div", [h, m.const(np.float32(2**0.5), "sqrt2")], "g1")], "g2")
    one = m.node("Add", [erf, m.const(np.float32(1), "one")], "g3")
    half = m.node("Mul", [m.node("Mul", [h, one], "g4"), m.const(np.float32(0.5), "half")], "gelu")
    down = linear(half, "down", 16, 8)
    return m.build([1, 4, 8], norm(m.node("Add", [down, first], "res2"), "ln2"))


def shapes() -> ModelProto:
    """A convolution between shape arithmetic: views, splits of heads, a computed resize."""
    m = Model()
    zero, one = m.const(np.array(0), "zero"), m.const(np.array([1]), "one")
    minus = m.const(np.array([-1]), "minus")

    def dim(x: str, index: int, name: str) -> str:
        shape = m.node("Shape", [x], f"{name}.shape")
        at = m.node("Constant", [], f"{name}.at", value=numpy_helper.from_array(np.array(index)))
        axes = m.node("Gather", [shape, at], f"{name}.dim", axis=0)
        return m.node("Unsqueeze", [axes, m.const(np.array([0]), f"{name}.ax")], f"{name}.n")

    w = m.weight(4, 2, 3, 3, name="w")
    a = m.node("Relu", [m.node("Conv", ["x", w], "a", pads=[1, 1, 1, 1])], "a.relu")
    target = m.node(
        "Concat", [dim(a, 0, "n"), m.const(np.array([2, 2]), "heads"), minus], "t", axis=0
    )
    heads = m.node("Reshape", [a, target], "heads.y")
    swapped = m.node("Transpose", [heads], "swap", perm=[0, 2, 1, 3])
    back = m.node("Transpose", [swapped], "back", perm=[0, 2, 1, 3])
    ends = m.node("Mul", [dim(back, 3, "l"), one], "ends")
    part = m.node(
        "Slice", [back, m.const(np.array([0]), "start"), ends, m.const(np.array([3]), "ax")], "part"
    )
    m.node("Gather", [m.node("Shape", ["x"], "dead.shape"), zero], "dead", axis=0)
    flat_shape = m.node("Concat", [dim(part, 0, "f"), minus], "ft", axis=0)
    flat = m.node("Reshape", [part, flat_shape], "flat")
    y = m.node("MatMul", [flat, m.weight(64, 3, name="fc.w")], "fc")
    return m.build(["N", 2, 4, 4], m.node("Add", [y, m.weight(3, name="fc.b")], "y"))


MODELS: dict[str, Callable[[], ModelProto]] = {
    "mobilenet": mobilenet,
    "transformer": transformer,
    "shapes": shapes,
}


def give_ranges(module: Module) -> None:
    """Ranges by the place in the graph alone: calibration is not what is held here."""
    results = (r for n in module.graph.nodes() for r in n.present_results)
    for index, value in enumerate((*module.graph.inputs, *results)):
        if isinstance(value.type, TensorType) and value.type.elem is Elem.F32:
            low, high = -1.0 - index % 3, 2.0 + index % 5
            value.type = value.type.with_range(Range(low, high, max(-low, high)))


def compare(name: str, module: Module) -> None:
    text = print_module(module, elide=True)
    assert print_module(parse_module(text), elide=True) == text
    path = HERE / f"{name}.qir"
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), "no such dump yet: see this file's first lines"
    assert text == path.read_text(encoding="utf-8"), "see this file's first lines"


@pytest.mark.parametrize("name", MODELS)
def test_after_transform(name: str) -> None:
    compare(f"{name}.transform", run(import_onnx(MODELS[name]()), "@transform"))


@pytest.mark.parametrize("name", MODELS)
def test_after_int8(name: str) -> None:
    module = run(import_onnx(MODELS[name]()), "@transform")
    give_ranges(module)
    compare(f"{name}.int8", run(module, "assign-precision,quantize"))


@pytest.mark.parametrize("name", MODELS)
def test_after_lowering(name: str) -> None:
    module = run(import_onnx(MODELS[name]()), "@transform")
    give_ranges(module)
    compare(f"{name}.qdq", run(module, "@int8"))


def test_no_dump_is_left_over() -> None:
    wanted = {f"{name}.{stage}.qir" for name in MODELS for stage in ("transform", "int8", "qdq")}
    assert {path.name for path in HERE.glob("*.qir")} == wanted
