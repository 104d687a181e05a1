"""Small networks through quantization: every one runs in integers under onnxruntime and means
the same as its typed form. The ``quantized`` fixture holds each network to that; the tests name
what is particular about it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Value
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    Gather,
    Gemm,
    GlobalAveragePool,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    MatMul,
    MaxPool,
    Mul,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Split,
    Swish,
    Tanh,
    Transpose,
)
from qdqc.pipeline.manager import run

Any3 = Any
PAD = (1, 1, 1, 1)
RELU = (0.0, math.inf)


def conv(
    net: Any, name: str, x: Value, out: int, size: int = 1, bias: bool = True, **op: Any
) -> Value:
    """A convolution with its own weight and bias; pads keep the image's size."""
    channels = x.tensor.static_shape[1] // op.get("group", 1)  # type: ignore[index]
    weight = net.weight(f"{name}.w", out, channels, size, size)
    held = net.weight(f"{name}.b", out) if bias else None
    pads = (size // 2,) * 4
    return net.op(name, Conv(pads=pads, **op), x, weight, held)


def test_a_chain_of_convolutions(net: Any, quantized: Any, integers: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 8, 8)
    a = conv(made, "a", x, 8, 3, clamp=RELU)
    b = conv(made, "b", a, 8, 3, clamp=(0.0, 6.0), strides=(2, 2))
    done = quantized(made.returns(conv(made, "y", b, 4)))
    assert integers(done.typed) == ["a", "b", "y_i"]
    assert done.kernels["QLinearConv"] == 3


def test_a_convolution_without_bias(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 3, 8, 8), 8, 3, bias=False)
    done = quantized(made.returns(conv(made, "y", a, 4, bias=False)))
    assert done.kernels["QLinearConv"] == 2


@pytest.mark.parametrize("group", [2, 8])
def test_a_grouped_convolution(net: Any, quantized: Any, group: int) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 8, 6, 6), 8, 3, group=group, clamp=RELU)
    done = quantized(made.returns(conv(made, "y", a, 4)))
    assert done.kernels["QLinearConv"] == 2


def test_two_convolutions_share_a_weight_and_a_bias(net: Any, quantized: Any) -> None:
    """Input scales differ, so the biases do; the weight's scales do where no floor is hit."""
    made = net()
    x, z = made.input("x", 1, 3, 6, 6), made.input("z", 1, 3, 6, 6)
    w, b = made.weight("w", 4, 3, 1, 1), made.weight("b", 4)
    z2 = made.op("z2", Conv(group=3), z, made.const("wz", np.full((3, 1, 1, 1), 5.0)))
    a = made.op("a", Conv(), x, w, b)
    c = made.op("c", Conv(), z2, w, b)
    done = quantized(made.returns(made.op("y", Add(), a, c)))
    first, second = done.node("a").operands[2], done.node("c").operands[2]
    assert first is not None
    assert second is not None
    assert {first.name, second.name} >= {"b"}
    assert first.tensor.quant != second.tensor.quant


def test_a_graph_input_read_by_two_convolutions_is_cast_once(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 6, 6)
    a, b = conv(made, "a", x, 4), conv(made, "b", x, 4, 3)
    done = quantized(made.returns(made.op("y", Concat(axis=1), a, b), a))
    assert done.node("a_i").operands[0] is done.node("b").operands[0]
    assert [n.op.name for n in done.typed.graph.nodes()].count("quantize") == 1


def test_a_graph_input_that_is_a_graph_output_stays_float(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 6, 6)
    quantized(made.returns(x, conv(made, "y", x, 4)))


def test_a_value_that_is_an_output_and_is_read(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 3, 6, 6), 4, clamp=RELU)
    done = quantized(made.returns(a, conv(made, "y", a, 4)))
    assert done.kernels["QLinearConv"] == 2


def test_a_value_with_integer_and_float_readers(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 3, 6, 6), 4)
    b, t = conv(made, "b", a, 4), made.op("t", Tanh(), a)
    done = quantized(made.returns(conv(made, "y", t, 2), made.op("u", HardSwish(), a), b))
    assert done.kernels["QLinearConv"] == 3


@pytest.mark.parametrize("clamp", [None, RELU, (0.0, 6.0)])
def test_a_residual_add(net: Any, quantized: Any, integers: Any, clamp: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4, clamp=RELU)
    b = conv(made, "b", a, 4, 3)
    s = made.op("s", Add(clamp=clamp), a, b)
    done = quantized(made.returns(conv(made, "y", s, 4)))
    assert integers(done.typed) == ["a", "b", "s", "y_i"]
    assert done.kernels["QLinearAdd"] == 1


def test_squeeze_and_excite(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4, clamp=RELU)
    p = made.op("p", GlobalAveragePool(), a)
    g = made.op("g", Sigmoid(), conv(made, "e", p, 4))
    m = made.op("m", Mul(), a, g)
    done = quantized(made.returns(conv(made, "y", m, 4)))
    assert done.kernels["QLinearGlobalAveragePool"] == 1
    assert done.kernels["QLinearSigmoid"] == 1
    assert done.kernels["QLinearMul"] == 1


def test_pools_between_convolutions(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 8, 8), 4)
    m = made.op("m", MaxPool(kernel_shape=(2, 2), strides=(2, 2)), a)
    b = conv(made, "b", m, 4, 3)
    v = made.op("v", AveragePool(kernel_shape=(2, 2), strides=(2, 2)), b)
    done = quantized(made.returns(conv(made, "y", v, 4)))
    assert done.node("m").result.tensor.quant == done.node("a").result.tensor.quant
    assert done.node("v").result.tensor.quant != done.node("b").result.tensor.quant
    assert done.kernels["QLinearAveragePool"] == 1
    assert done.kernels["MaxPool"] == 1


def test_a_max_pool_whose_indices_are_read(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 8, 8), 4)
    pool = made.node(["m", "i"], MaxPool(kernel_shape=(2, 2), strides=(2, 2)), a)
    m, i = pool.present_results
    done = quantized(made.returns(conv(made, "y", m, 4), i))
    assert done.typed.value("i").tensor.quant is None  # type: ignore[union-attr]


def test_a_classifier_behind_a_pool(net: Any, quantized: Any, integers: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 8, clamp=RELU)
    f = made.op("f", Flatten(), made.op("p", GlobalAveragePool(), a))
    done = quantized(
        made.returns(
            made.op("y", Gemm(trans_b=True), f, made.weight("w", 10, 8), made.weight("b", 10))
        )
    )
    assert integers(done.typed) == ["a", "p", "f", "y"]
    assert done.typed.value("y").tensor.quant is None  # type: ignore[union-attr]
    assert done.kernels["QGemm"] == 1


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("clamp", [None, RELU])
def test_gemms(net: Any, quantized: Any, trans_b: bool, bias: bool, clamp: Any) -> None:
    made = net()
    shape = (5, 7) if trans_b else (7, 5)
    held = made.weight("b1", 5) if bias else None
    w1 = made.weight("w1", *shape)
    a = made.op("a", Gemm(trans_b=trans_b, clamp=clamp), made.input("x", 2, 7), w1, held)
    b = made.op("b", Gemm(clamp=clamp), a, made.weight("w2", 5, 5))
    done = quantized(made.returns(made.op("y", Gemm(), b, made.weight("w3", 5, 3))))
    quant = done.node("a").operands[1].tensor.quant  # type: ignore[union-attr]
    assert quant.axis == (0 if trans_b else 1)  # type: ignore[union-attr]


def test_a_float_gemm_with_a_clamp_at_the_end(net: Any, quantized: Any) -> None:
    made = net()
    a = made.op(
        "y", Gemm(clamp=RELU), made.input("x", 2, 7), made.weight("w1", 7, 5), made.weight("b", 5)
    )
    quantized(made.returns(a))


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (2, 6, 8), (2, 3, 6, 8)])
@pytest.mark.parametrize("bias", [False, True])
def test_matmuls(net: Any, quantized: Any, shape: tuple[int, ...], bias: bool) -> None:
    made = net()
    a = made.op("a", MatMul(), made.input("x", *shape), made.weight("w1", 8, 8))
    if bias:
        a = made.op("ab", Add(), a, made.weight("b1", 8))
    t = made.op("t", Tanh(), a)
    made.returns(made.op("b", MatMul(), t, made.weight("w2", 8, 4)))
    made.module = run(made.module, "canonicalize")
    done = quantized(made)
    assert done.kernels["MatMulIntegerToFloat"] + done.kernels["QGemm"] == 2


def test_a_chain_of_matmuls_stays_in_integers(net: Any, quantized: Any) -> None:
    made = net()
    a = made.op("a", MatMul(), made.input("x", 6, 8), made.weight("w1", 8, 8))
    done = quantized(made.returns(made.op("b", MatMul(), a, made.weight("w2", 8, 4))))
    assert done.typed.value("a").tensor.quant is not None  # type: ignore[union-attr]
    assert done.kernels["QLinearMatMul"] == 1


@pytest.mark.parametrize("clamp", [None, RELU])
def test_matmul_bias_activation_matmul(net: Any, quantized: Any, clamp: Any) -> None:
    """The bias is added in float behind the integer kernel."""
    made = net()
    x, w, b = made.input("x", 1, 6, 8), made.weight("w1", 8, 8), made.weight("b1", 8)
    s = made.op("s", MatMul(clamp=clamp), x, w, b)
    done = quantized(made.returns(made.op("y", MatMul(), s, made.weight("w2", 8, 4))))
    product = done.typed.value("s").producer  # type: ignore[union-attr]
    assert product is not None
    assert [v.tensor.elem.text for v in product.present_operands] == ["u8", "i8", "f32"]


def test_attention(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 6, 8)
    q, k, v = (made.op(n, MatMul(), x, made.weight(f"w{n}", 8, 8)) for n in "qkv")
    kt = made.op("kt", Transpose(perm=(0, 2, 1)), k)
    s = made.op("p", Softmax(), made.op("s", MatMul(), q, kt))
    o = made.op("o", MatMul(), s, v)
    left = ["FusedMatMul", "MatMul"]
    done = quantized(made.returns(made.op("y", MatMul(), o, made.weight("wo", 8, 8))), floats=left)
    assert done.kernels["MatMulIntegerToFloat"] == 4


def test_concat_of_differing_scales(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 6, 6)
    a, b = conv(made, "a", x, 4), conv(made, "b", x, 4, 3, clamp=RELU)
    c = made.op("c", Concat(axis=1), a, b)
    done = quantized(made.returns(conv(made, "y", c, 4)))
    assert done.kernels["QLinearConcat"] == 1


def test_movers_share_the_scale_of_what_they_move(net: Any, quantized: Any, integers: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4), 8)
    i64 = np.int64
    halves = made.node(["h0", "h1"], Split(axis=1, num_outputs=2), a)
    h0, h1 = halves.present_results
    t = made.op("t", Transpose(perm=(0, 1, 3, 2)), h0)
    r = made.op("r", Reshape(), t, made.const("shape", np.array([1, 4, 2, 8], i64)))
    s = made.op(
        "s",
        Slice(),
        h1,
        *(made.const(n, np.array([v], i64)) for n, v in (("b", 1), ("e", 4), ("ax", 1))),
    )
    g = made.op("g", Gather(axis=1), a, made.const("ix", np.array([3, 1], i64)))
    outs = [conv(made, f"y{n}", v, 2) for n, v in zip("rsg", (r, s, g), strict=True)]
    done = quantized(made.returns(*outs))
    source = done.node("a").result.tensor.quant
    for name in ("h0", "t", "r", "s", "g"):
        assert done.typed.value(name).tensor.quant == source  # type: ignore[union-attr]


def test_an_addition_of_a_constant_between_convolutions(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4)
    s = made.op("s", Add(), a, made.weight("c", 4, 1, 1))
    m = made.op("m", Mul(), made.weight("d", 4, 1, 1), s)
    done = quantized(made.returns(conv(made, "y", m, 4)))
    assert done.kernels["QLinearAdd"] == done.kernels["QLinearMul"] == 1


def test_a_leaky_relu_between_convolutions(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4)
    r = made.op("r", LeakyRelu(alpha=0.1), a)
    done = quantized(made.returns(conv(made, "y", r, 4)))
    assert done.kernels["QLinearLeakyRelu"] == 1


def test_a_relu_that_could_not_be_fused(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4)
    r = made.op("r", Relu(), a)
    s = made.op("s", Add(), a, r)
    # A float relu between casts reads as an integer one, as onnxruntime runs it.
    quantized(made.returns(conv(made, "y", s, 4)), inverse=False)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clamp", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 2.0), (0.25, 1.0), (-2.0, -0.5)])
def test_clamps_of_all_kinds(net: Any, quantized: Any, clamp: Any, symmetric: bool) -> None:
    """onnxruntime drops a Clip only where the integers' ends clip at least as hard."""
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4, clamp=clamp)
    how = f"quantize{{symmetric={str(symmetric).lower()}}}"
    floats = ["FusedConv"] if not clamp[0] <= 0 <= clamp[1] else []
    quantized(made.returns(conv(made, "y", a, 4)), how, floats=floats)


@pytest.mark.parametrize("scheme", ["per-channel", "per-tensor"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_schemes(net: Any, quantized: Any, scheme: str, symmetric: bool) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 6, 6), 4, 3, clamp=RELU)
    b = conv(made, "b", a, 4)
    f = made.op("f", Flatten(), b)
    how = f'quantize{{scheme="{scheme}" symmetric={str(symmetric).lower()}}}'
    w = made.weight("w", 144, 5)
    done = quantized(made.returns(made.op("y", Gemm(), f, w, made.weight("c", 5))), how)
    held = done.node("a").operands[1].tensor.quant  # type: ignore[union-attr]
    assert (held.axis is None) == (scheme == "per-tensor")  # type: ignore[union-attr]
    assert done.node("a").result.tensor.quant.zero_point == 0  # type: ignore[union-attr]
    if symmetric:
        assert done.node("b").result.tensor.quant.zero_point == 128  # type: ignore[union-attr]


def test_a_dead_channel_keeps_its_bias(net: Any, quantized: Any) -> None:
    """Weights of 1e-9 with a bias of 1: the scale is raised until the bias fits int32."""
    made = net()
    w = made.rng.normal(0, 0.4, (4, 3, 1, 1))
    w[1], w[2] = 1e-9, 0.0
    b = np.array([0.1, 1.0, -2.0, 0.3])
    a = made.op("y", Conv(), made.input("x", 1, 3, 6, 6), made.const("w", w), made.const("b", b))
    done = quantized(made.returns(a))
    from qdqc.runtime.sessions.session import Runner

    got = Runner(done.lowered, optimise="all").run(done.feeds[0])["y"]
    step = (done.ranges["y"].max - done.ranges["y"].min) / 255
    assert np.abs(got[0, 1] - 1.0).max() <= step
    assert np.abs(got[0, 2] + 2.0).max() <= step


@pytest.mark.parametrize(
    ("op", "kernels"),
    [
        (HardSwish(), {"QLinearAdd": 1, "QLinearMul": 1}),
        (HardSigmoid(alpha=0.25, beta=0.4), {"QLinearAdd": 1}),
        (Swish(), {"QLinearSigmoid": 1, "QLinearMul": 1}),
    ],
)
def test_gates_between_convolutions_are_integers(
    net: Any, quantized: Any, op: Any, kernels: dict[str, int]
) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 3, 8, 8), 8, 3)
    y = conv(made, "y", made.op("g", op, a), 4)
    parts = "assign-precision,decompose-activations"
    done = quantized(made.returns(y), precision=parts)
    assert {k: done.kernels[k] for k in kernels} == kernels
    assert done.kernels["QuantizeLinear"] == done.kernels["DequantizeLinear"] == 1
    assert done.kernels["HardSigmoid"] == 0
    again = import_onnx(export_onnx(done.lowered))
    assert not [n for n in again.walk() if n.op.name == "onnx"], "it comes in typed again"


@pytest.mark.parametrize("op", [HardSwish(), Swish(), Swish(alpha=2.0)])
def test_a_gate_with_a_float_neighbour_stays_whole(net: Any, calibrated: Any, op: Any) -> None:
    made = net()
    y = conv(made, "y", made.op("g", op, made.input("x", 1, 3, 8, 8)), 4)
    module = run(calibrated(made.returns(y)), "assign-precision,decompose-activations")
    assert next(n.op for n in module.graph.nodes()) == op


def test_a_falling_line_stays_float(net: Any, quantized: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 3, 8, 8), 8, 3)
    g = made.op("g", HardSigmoid(alpha=-0.2), a)
    done = quantized(made.returns(conv(made, "y", g, 4)), inverse=False)
    assert done.kernels["HardSigmoid"] == 1
