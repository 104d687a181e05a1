"""Random networks through the whole flow: whatever is drawn deploys, in integers where it should.

Networks are drawn as PyTorch exports them: convolutions of every form with their activations,
residuals, gates, pools and a head, or token layers with attention and a feed-forward part.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import qdqc

Array = npt.NDArray[Any]
SAMPLES = 8
LEAST = {"int8": 0.95, "dyn8": 0.99, "w8": 0.999, "w4": 0.9, "f16": 0.9999}
"""Cosine with the float output that no network of this size falls below."""


class Draft:
    """A network in the making: each step reads ``self.value`` and moves it on."""

    def __init__(self, draw: Any, shape: list[int]) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.shape = shape
        self.value = "x"

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [name], name=f"/{kind}_{name}", **attributes)
        self.nodes.append(node)
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan = np.prod(shape[1:]) if len(shape) > 1 else 1
        array = self.rng.standard_normal(shape) * (scale or 1.0 / np.sqrt(max(fan, 1)))
        return self.const(array.astype(np.float32))

    def const(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def activation(self, value: str) -> str:
        kind = self.pick("Relu", "Relu6", "HardSwish", "Swish", "LeakyRelu", "Sigmoid", "PRelu", "")
        if kind == "Swish":
            return self.op("Mul", value, self.op("Sigmoid", value))
        if kind == "Relu6":
            bounds = self.const(np.float32(0)), self.const(np.float32(6))
            return self.op("Clip", value, *bounds)
        if kind == "PRelu":
            slope = self.const(np.full((self.shape[1], 1, 1), 0.1, np.float32))
            return self.op("PRelu", value, slope)
        return self.op(kind, value) if kind else value

    def model(self, name: str) -> ModelProto:
        out = self.nodes[-1]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.first[1:]])
        y = helper.make_tensor_value_info(out.output[0], TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, name, [x], [y], self.weights)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    first: tuple[int, ...] = ()


def conv(draft: Draft, value: str, out: int, *, size: int, group: int = 1, stride: int = 1) -> str:
    channels = draft.shape[1]
    inputs = [value, draft.weight(out, channels // group, size, size)]
    if draft.pick(True, False):
        inputs.append(draft.weight(out, scale=0.1))
    attributes: dict[str, Any] = {"group": group} if group > 1 else {}
    if draft.pick(True, True, False):
        attributes |= {"pads": [size // 2] * 4, "strides": [stride] * 2}
    else:
        attributes |= {"auto_pad": "SAME_UPPER", "strides": [stride] * 2}
    found = draft.op("Conv", *inputs, **attributes)
    if draft.pick(True, False):
        held = [draft.const(np.abs(draft.rng.standard_normal(out)).astype(np.float32) + 0.5)]
        held += [draft.weight(out, scale=0.1) for _ in range(2)]
        held.append(draft.const(np.abs(draft.rng.standard_normal(out)).astype(np.float32) + 0.5))
        found = draft.op("BatchNormalization", found, *held)
    rows = -(-draft.shape[2] // stride)
    draft.shape = [draft.shape[0], out, rows, rows]
    return found


def image_step(draft: Draft) -> None:
    """One block of an image network."""
    kind = draft.pick("conv", "depthwise", "residual", "gate", "pool", "fork", "shuffle")
    value, channels = draft.value, draft.shape[1]
    if kind == "conv":
        out, size = draft.pick(4, 8, 12), draft.pick(1, 3)
        value = draft.activation(conv(draft, value, out, size=size, stride=draft.pick(1, 2)))
    elif kind == "depthwise":
        value = draft.activation(conv(draft, value, channels, size=3, group=channels))
    elif kind == "residual":
        inner = draft.activation(conv(draft, value, channels, size=3))
        value = draft.activation(draft.op("Add", value, conv(draft, inner, channels, size=1)))
    elif kind == "gate":
        held = list(draft.shape)
        pooled = draft.op("GlobalAveragePool", value)
        draft.shape = [held[0], channels, 1, 1]
        inner = draft.op("Relu", conv(draft, pooled, 4, size=1))
        gate = draft.op(draft.pick("Sigmoid", "HardSigmoid"), conv(draft, inner, channels, size=1))
        value, draft.shape = draft.op("Mul", value, gate), held
    elif kind == "pool" and draft.shape[2] > 1:
        pool = draft.pick("MaxPool", "AveragePool")
        value = draft.op(pool, value, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        draft.shape[2:] = [-(-n // 2) for n in draft.shape[2:]]
    elif kind == "fork":
        held = list(draft.shape)
        left = draft.activation(conv(draft, value, 4, size=1))
        draft.shape = held
        right = draft.activation(conv(draft, value, 4, size=3))
        value, draft.shape[1] = draft.op("Concat", left, right, axis=1), 8
    elif kind == "shuffle" and channels % 2 == 0:
        rows = draft.shape[2]
        split = draft.const(np.array([0, 2, channels // 2, rows, rows]))
        joined = draft.const(np.array([0, channels, rows, rows]))
        parts = draft.op("Transpose", draft.op("Reshape", value, split), perm=[0, 2, 1, 3, 4])
        value = draft.op("Reshape", parts, joined)
    draft.value = value


@st.composite
def image_networks(draw: Any) -> ModelProto:
    draft = Draft(draw, [1, 3, 8, 8])
    draft.first = (1, 3, 8, 8)
    draft.value = draft.activation(conv(draft, "x", 8, size=3))
    for _ in range(draw(st.integers(1, 4))):
        image_step(draft)
    pooled = draft.op("GlobalAveragePool", draft.value)
    flat = draft.op("Flatten", pooled)
    draft.op("Gemm", flat, draft.weight(5, draft.shape[1]), draft.weight(5, scale=0.1), transB=1)
    return draft.model("image")


def linear(draft: Draft, value: str, width: int, out: int) -> str:
    weight = draft.const(
        (draft.rng.standard_normal((width, out)) / np.sqrt(width)).astype(np.float32)
    )
    product = draft.op("MatMul", value, weight)
    bias = draft.weight(out, scale=0.1)
    return draft.op("Add", *draft.pick((product, bias), (bias, product)))


def attention(draft: Draft, value: str, width: int) -> str:
    query, key, values = (linear(draft, value, width, width) for _ in range(3))
    turned = draft.op("Transpose", key, perm=[0, 2, 1])
    scores = draft.op("MatMul", query, turned)
    scale = draft.const(np.float32(np.sqrt(width)))
    weights = draft.op("Softmax", draft.op("Div", scores, scale), axis=-1)
    return linear(draft, draft.op("MatMul", weights, values), width, width)


def feed_forward(draft: Draft, value: str, width: int) -> str:
    inner = linear(draft, value, width, 2 * width)
    kind = draft.pick("Relu", "Tanh", "Gelu")
    if kind == "Gelu":
        root = draft.const(np.float32(np.sqrt(2)))
        one, half = draft.const(np.float32(1)), draft.const(np.float32(0.5))
        curve = draft.op("Add", draft.op("Erf", draft.op("Div", inner, root)), one)
        inner = draft.op("Mul", draft.op("Mul", inner, curve), half)
    else:
        inner = draft.op(kind, inner)
    return linear(draft, inner, 2 * width, width)


@st.composite
def token_networks(draw: Any) -> ModelProto:
    width = 16
    draft = Draft(draw, [1, 6, width])
    draft.first = (1, 6, width)
    for _ in range(draw(st.integers(1, 2))):
        part = draft.pick(attention, feed_forward)
        gain, shift = draft.const(np.ones(width, np.float32)), draft.weight(width, scale=0.1)
        before = draft.pick(True, False)
        norm = {"axis": -1, "epsilon": 1e-5}
        value = draft.value
        if before:
            value = draft.op("LayerNormalization", value, gain, shift, **norm)
        value = draft.op("Add", draft.value, part(draft, value, width))
        if not before:
            value = draft.op("LayerNormalization", value, gain, shift, **norm)
        draft.value = value
    return draft.model("tokens")


def outputs(model: ModelProto, feeds: dict[str, Array], *, plain: bool = False) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers)
    return np.asarray(session.run(None, feeds)[0])


def samples_of(model: ModelProto) -> list[dict[str, Array]]:
    shape = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(7)
    return [{"x": rng.standard_normal(shape, np.float32)} for _ in range(SAMPLES)]


def quantized(model: ModelProto, data: list[dict[str, Array]], **options: Any) -> qdqc.Quantized:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return qdqc.quantize(model, data, **options)


def every(model: ModelProto, data: list[dict[str, Array]], *, plain: bool = False) -> Array:
    """The output on all samples in a row."""
    return np.concatenate([outputs(model, feeds, plain=plain).ravel() for feeds in data])


INTEGER = {
    *("ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"),
    *("QGemm", "QLinearConv", "QLinearMatMul"),
}


def integer_kernels(model: ModelProto, path: Path) -> int:
    """Kernels that multiply integers in the file that onnxruntime writes of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    nodes = onnx.load(path).graph.node
    rounding = [n for n in nodes for a in n.attribute if a.name == "accuracy_level" and a.i == 4]
    return sum(n.op_type in INTEGER for n in nodes) + len(rounding)


def deploys(model: ModelProto, mode: str, **options: Any) -> None:
    """Quantize a network on noise and hold the result to all that is promised of one."""
    data = samples_of(model)
    found = quantized(model, data, mode=mode, **options)
    onnx.checker.check_model(found.model, full_check=True)
    assert found.report.proof.bad_fusions == []
    if options.get("target") != "openvino":
        with tempfile.TemporaryDirectory() as folder:
            count = integer_kernels(found.model, Path(folder) / "optimised.onnx")
        assert len(found.report.audit.products("integer")) == count
    if mode == "int8" and options.get("target") != "openvino":
        rows = found.report.entries()["audit"]["ops"]
        assert not [r for r in rows if r["reason"].startswith(("laid for", "planned in float"))]
    exact, fast, slow = (
        every(model, data),
        every(found.model, data),
        every(found.model, data, plain=True),
    )
    assert exact @ fast / np.linalg.norm(exact) / np.linalg.norm(fast) > LEAST[mode]
    assert np.abs(fast - slow).max() <= 0.04 * np.ptp(exact), "kernels compute what casts say"


SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("symmetric", [False, True])
@SETTINGS
@given(model=image_networks())
def test_image_networks_in_static_integers(model: ModelProto, symmetric: bool) -> None:
    deploys(model, "int8", symmetric=symmetric)


@SETTINGS
@given(model=image_networks(), mode=st.sampled_from(["dyn8", "w8", "w4", "f16"]))
def test_image_networks_in_other_modes(model: ModelProto, mode: str) -> None:
    deploys(model, mode)


@SETTINGS
@given(model=token_networks(), mode=st.sampled_from(sorted(LEAST)))
def test_token_networks_in_every_mode(model: ModelProto, mode: str) -> None:
    deploys(model, mode)


@SETTINGS
@given(model=image_networks(), target=st.sampled_from(["ort-cpu-avx2", "openvino"]))
def test_image_networks_for_other_targets(model: ModelProto, target: str) -> None:
    deploys(model, "int8", target=target)


EITHER = st.one_of(image_networks(), token_networks())


@SETTINGS
@given(model=EITHER)
def test_simplification_keeps_the_function(model: ModelProto) -> None:
    module = qdqc.run(qdqc.import_onnx(model), "@transform")
    data = samples_of(model)
    exact, found = every(model, data, plain=True), every(qdqc.export_onnx(module), data)
    assert np.abs(found - exact).max() <= 1e-4 * np.abs(exact).max()


@SETTINGS
@given(model=EITHER)
def test_a_deployed_network_comes_back_and_is_laid_as_it_was(model: ModelProto) -> None:
    """Scales of a file are taken over: laying it anew moves nothing by more than few roundings."""
    data = samples_of(model)
    once = quantized(model, data)
    again = quantized(once.model, data)
    assert again.report.entries()["audit"]["integer"] == once.report.entries()["audit"]["integer"]
    first, second = every(once.model, data), every(again.model, data)
    assert np.abs(second - first).max() <= 0.04 * np.ptp(first)


@SETTINGS
@given(model=image_networks(), symmetric=st.booleans())
def test_integers_in_and_out_are_those_of_the_casts(model: ModelProto, symmetric: bool) -> None:
    data = samples_of(model)
    held = {"symmetric": symmetric}
    whole = quantized(model, data, **held)
    bare = quantized(model, data, quant_input=True, quant_output=True, **held)
    assert bare.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert bare.model.graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8
    cast = next(n for n in whole.model.graph.node if n.op_type == "QuantizeLinear")
    constants = {t.name: numpy_helper.to_array(t) for t in whole.model.graph.initializer}
    scale, zero = (constants[n] for n in cast.input[1:3])
    for feeds in data[:2]:
        stored = np.clip(np.rint(feeds["x"] / scale) + zero, 0, 255).astype(np.uint8)
        integers = outputs(bare.model, {"x": stored}).astype(np.float64)
        floats = outputs(whole.model, feeds).astype(np.float64)
        if np.ptp(floats) > 0:  # one scale and zero point lie between them
            step, offset = np.polyfit(integers.ravel(), floats.ravel(), 1)
            assert np.abs(integers * step + offset - floats).max() <= 1.01 * abs(step)


@SETTINGS
@given(model=EITHER)
def test_a_deployed_module_survives_its_text(model: ModelProto) -> None:
    data = samples_of(model)
    deployed = qdqc.import_onnx(quantized(model, data).model)
    text = qdqc.to_text(deployed)
    again = qdqc.from_text(text, weights=deployed)
    assert qdqc.to_text(again) == text
    np.testing.assert_array_equal(
        every(qdqc.export_onnx(again), data), every(qdqc.export_onnx(deployed), data)
    )
