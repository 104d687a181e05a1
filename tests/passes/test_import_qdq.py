"""Models that other tools quantized: they come in typed, and are laid anew without loss."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import open_session

SHAPE = [1, 3, 8, 8]


class Net:
    """Builds a QDQ model node by node."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def const(self, name: str, array: npt.ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, type: str, *inputs: str, name: str, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(type, list(inputs), [name], name=f"/{name}", **attrs))
        return name

    def cast(self, kind: str, x: str, scale: npt.ArrayLike, zero: Any, **attrs: Any) -> str:
        count = sum(n.op_type == kind for n in self.nodes)
        name = f"{x}_{kind[0].lower()}{count}"
        scales = self.const(f"{name}_scale", np.array(scale, np.float32))
        return self.op(kind, x, scales, self.const(f"{name}_zero", zero), name=name, **attrs)

    def fake(self, x: str, scale: npt.ArrayLike, zero: Any, **attrs: Any) -> str:
        """A quantize and a dequantize behind it, as training with quantization leaves them."""
        stored = self.cast("QuantizeLinear", x, scale, zero, **attrs)
        return self.cast("DequantizeLinear", stored, scale, zero, **attrs)

    def weight(self, name: str, *shape: int, stored: bool, symmetric: bool = True) -> str:
        """A weight in 8 bits per channel: stored, or float in front of a pair of casts."""
        array = self.rng.normal(0, 0.3, shape).astype(np.float32)
        scale = np.abs(array).reshape(shape[0], -1).max(axis=1) / 127
        zero = np.zeros(shape[0], np.int8)
        if not stored:
            return self.fake(self.const(name, array), scale, zero, axis=0)
        wide = scale.reshape(-1, *[1] * (len(shape) - 1))
        held = self.const(name, np.rint(array / wide).astype(np.int8))
        return self.cast("DequantizeLinear", held, scale, zero, axis=0)

    def model(self, output: str, shape: list[int]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.constants)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def trained() -> onnx.ModelProto:
    """Float weights in front of casts, float biases, Relu before the cast, symmetric s8."""
    net = Net()
    x = net.fake("x", 0.03, np.int8(0))
    bias = net.const("b1", net.rng.normal(0, 0.3, 8).astype(np.float32))
    a = net.op("Conv", x, net.weight("w1", 8, 3, 3, 3, stored=False), bias, name="c1", pads=[1] * 4)
    r = net.fake(net.op("Relu", a, name="r1"), 0.02, np.int8(0))
    c = net.op("Conv", r, net.weight("w2", 8, 8, 1, 1, stored=False), name="c2")
    s = net.op("Add", r, net.fake(c, 0.05, np.int8(0)), name="s")
    last = net.weight("w3", 4, 8, 1, 1, stored=False)
    y = net.op("Conv", net.fake(s, 0.05, np.int8(0)), last, name="y")
    return net.model(net.fake(y, 0.05, np.int8(0)), [1, 4, 8, 8])


def stored(elem: type[np.int8 | np.uint8] = np.uint8) -> onnx.ModelProto:
    """Integer weights and biases, a cast for each reader: what onnxruntime's quantizer writes."""
    net = Net(1)
    zero = elem(128) if elem is np.uint8 else elem(0)
    x = net.fake("x", 0.03, zero)
    w = net.weight("w1", 8, 3, 3, 3, stored=True)
    scales = net.constants[-2]
    product = numpy_helper.to_array(scales) * np.float32(0.03)
    bias = net.const("b1", net.rng.integers(-900, 900, 8).astype(np.int32))
    b = net.cast("DequantizeLinear", bias, product, np.zeros(8, np.int32), axis=0)
    low = elem(np.iinfo(elem).min)
    r = net.op("Relu", net.op("Conv", x, w, b, name="c1", pads=[1] * 4), name="r1")
    q = net.cast("QuantizeLinear", r, 0.02, low)
    left, right = (net.cast("DequantizeLinear", q, 0.02, low) for _ in range(2))
    m = net.op("MaxPool", left, name="m", kernel_shape=[3, 3], pads=[1] * 4)
    s = net.op("Add", net.fake(m, 0.02, low), right, name="s")
    last = net.weight("w2", 4, 8, 1, 1, stored=True)
    y = net.op("Conv", net.fake(s, 0.05, low), last, name="y")
    return net.model(net.fake(y, 0.05, zero), [1, 4, 8, 8])


def outputs(model: onnx.ModelProto, optimise: str = "off") -> npt.NDArray[np.float32]:
    """Its output on eight inputs that reach most of the range."""
    session = open_session(model, optimise=optimise, threads=1)
    rng = np.random.default_rng(9)
    feeds = [rng.uniform(-3, 3, SHAPE).astype(np.float32) for _ in range(8)]
    return np.concatenate([np.asarray(session.run(None, {"x": f})[0]) for f in feeds])


def imported(model: onnx.ModelProto) -> Module:
    return run(import_onnx(model), "@transform")


def ops(module: Module) -> Counter[str]:
    return Counter(n.op.name for n in module.graph.nodes())


MODELS = {"trained": trained, "stored": stored, "stored-s8": lambda: stored(np.int8)}


@pytest.mark.parametrize("name", MODELS)
def test_the_typed_module_gives_the_same_numbers(name: str) -> None:
    model = MODELS[name]()
    lowered = export_onnx(run(imported(model), "lower-to-qdq"))
    np.testing.assert_array_equal(outputs(lowered), outputs(model))


def test_a_stored_model_is_typed_throughout() -> None:
    module = imported(stored())
    assert ops(module) == {"quantize": 1, "conv": 2, "max_pool": 1, "add": 1, "dequantize": 1}
    conv = next(n for n in module.graph.nodes() if n.op.name == "conv")
    assert [v.tensor.elem for v in conv.present_operands] == [Elem.U8, Elem.I8, Elem.I32]
    assert conv.op.clamp == (0.0, float("inf"))
    assert set(conv.loc.names) >= {"/c1", "/r1"}


def test_a_trained_model_gets_integer_weights_as_onnx_rounds_them() -> None:
    module = imported(trained())
    weights = [c for c in module.constants.values() if c.tensor.elem is Elem.I8]
    assert sorted(len(c.data.shape) for c in weights) == [4, 4, 4]
    held = {n.name: n for n in trained().graph.initializer}
    array, scale = (numpy_helper.to_array(held[n]) for n in ("w1", "w1_q1_scale"))
    expected = np.clip(np.rint(array / scale.reshape(-1, 1, 1, 1)), -128, 127)
    found = next(c for c in weights if c.data.shape == (8, 3, 3, 3))
    np.testing.assert_array_equal(found.data.array(), expected)


RELAY = "unquantize,canonicalize,fuse-activation,assign-precision,quantize"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_laid_anew_within_a_step(name: str) -> None:
    """The same grid for signed and unsigned integers; a Relu's own range is only finer."""
    model = MODELS[name]()
    again = export_onnx(run(imported(model), f"{RELAY},lower-to-qdq"))
    step = 0.05
    assert np.abs(outputs(again) - outputs(model)).max() <= 3.01 * step
    assert np.abs(outputs(again) - outputs(model)).mean() <= step


def test_the_same_integers_where_the_target_has_the_same_types() -> None:
    module = imported(stored())
    typed = run(module, RELAY)
    for node in typed.graph.nodes():
        before = module.value(node.name)
        if before is not None:
            assert node.result.type == before.type or node.op.name == "dequantize", node.name
    np.testing.assert_array_equal(
        outputs(export_onnx(run(typed, "lower-to-qdq"))), outputs(stored())
    )


@pytest.mark.parametrize("name", MODELS)
def test_what_is_laid_anew_runs_in_integers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "again.onnx"
    onnx.save(export_onnx(run(imported(MODELS[name]()), f"{RELAY},lower-to-qdq")), path)
    kernels = Counter(n.op_type for n in optimised_model(path).graph.node)
    assert not kernels["Conv"] + kernels["FusedConv"]
    convolutions = [n for n in MODELS[name]().graph.node if n.op_type == "Conv"]
    assert kernels["QLinearConv"] == len(convolutions)


def test_parameters_that_are_computed_stay_nodes() -> None:
    net = Net()
    scale = net.op("Abs", "x", name="abs")
    total = net.op("ReduceMax", scale, name="total", keepdims=0)
    net.op("QuantizeLinear", "x", total, name="q")
    model = net.model(net.op("DequantizeLinear", "q", total, name="y"), SHAPE)
    module = imported(model)
    assert "quantize" not in ops(module)
    np.testing.assert_array_equal(outputs(export_onnx(module)), outputs(model))


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("per_axis", [False, True])
def test_a_weight_that_is_transposed_behind_its_cast_is_integer(held: bool, per_axis: bool) -> None:
    """How a linear layer is exported after training: rows are output channels, then they turn."""
    net = Net(3)
    flat = net.op("Reshape", net.fake("x", 0.03, np.uint8(128)), "shape", name="flat")
    net.const("shape", np.array([1, 192]))
    row = net.fake(flat, 0.03, np.uint8(128))
    if per_axis:
        w = net.weight("w", 10, 192, stored=held)
    else:
        w = net.fake(
            net.const("w", net.rng.normal(0, 0.3, (10, 192)).astype(np.float32)), 0.01, np.int8(0)
        )
    turned = net.op("Transpose", w, name="turned", perm=[1, 0])
    y = net.op("MatMul", row, turned, name="y")
    model = net.model(net.fake(y, 0.1, np.uint8(128)), [1, 10])
    module = imported(model)
    assert ops(module) == {"quantize": 1, "reshape": 1, "matmul": 1, "dequantize": 1}
    product = next(n for n in module.graph.nodes() if n.op.name == "matmul")
    weight = product.need("b").tensor
    assert (weight.elem, weight.shape) == (Elem.I8, (192, 10))
    assert weight.quant is not None
    assert weight.quant.axis == (1 if per_axis else None)
    np.testing.assert_array_equal(outputs(export_onnx(run(module, "lower-to-qdq"))), outputs(model))
