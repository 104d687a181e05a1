"""Lines a x + b behind integers are other scales and zero points: no kernel is left of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Value
from qdqc.ir.types import Elem, Quant
from qdqc.ops import Add, Conv, HardSwish, MaxPool, Mul
from qdqc.pipeline.manager import run
from qdqc.quant.arithmetic import dequantize
from qdqc.quant.lines import Line
from qdqc.runtime.sessions.session import Runner

PARTS = "assign-precision,decompose-activations"


def conv(made: Any, name: str, x: Value, inputs: int, outputs: int, **fields: Any) -> Value:
    weight = made.weight(f"w_{name}", outputs, inputs, 3, 3)
    return made.op(name, Conv(pads=(1, 1, 1, 1), **fields), x, weight)


def start(made: Any, **fields: Any) -> Value:
    return conv(made, "a", made.input("x", 1, 3, 8, 8), 3, 8, **fields)


def number(made: Any, name: str, value: float, rank: int = 1) -> Value:
    return made.const(name, np.full((1,) * rank, value, np.float32))


@pytest.mark.parametrize("factor", [0.03, 1.7, 250.0])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_a_positive_factor_is_a_scale(net: Any, quantized: Any, factor: float, rank: int) -> None:
    made = net()
    m = made.op("m", Mul(), number(made, "c", factor, rank), start(made))
    done = quantized(made.returns(conv(made, "y", m, 8, 4)))
    assert done.kernels["QLinearMul"] == done.kernels["Mul"] == 0
    assert done.kernels["Identity"] == 0
    assert done.kernels["QuantizeLinear"] == done.kernels["DequantizeLinear"] == 1
    before, after = (done.node(n).result.tensor.quant for n in ("a", "m"))
    assert before is not None
    assert after is not None
    assert float(after.scale) == pytest.approx(float(before.scale) * factor, rel=1e-6)
    assert after.zero_point == before.zero_point


@pytest.mark.parametrize("summand", [-1.3, -0.4, 0.4, 1.3])
def test_a_summand_is_a_zero_point(net: Any, quantized: Any, summand: float) -> None:
    made = net()
    m = made.op("m", Add(), start(made), number(made, "c", summand))
    done = quantized(made.returns(conv(made, "y", m, 8, 4)))
    assert done.kernels["QLinearAdd"] == done.kernels["Add"] == 0
    before, after = (done.node(n).result.tensor.quant for n in ("a", "m"))
    assert before is not None
    assert after is not None
    moved = float(after.scale) * (int(before.zero_point) - int(after.zero_point))
    assert moved == pytest.approx(summand, rel=1e-5)


def test_a_learned_line_behind_a_gate_leaves_the_two_kernels_of_the_gate(
    net: Any, quantized: Any
) -> None:
    """hard_swish(x) * a + b, through what only moves values, and to several readers."""
    made = net()
    g = made.op("g", HardSwish(), start(made))
    m = made.op("m", Mul(), number(made, "c", 0.6), g)
    p = made.op("p", MaxPool(kernel_shape=(2, 2), strides=(2, 2)), m)
    s = made.op("s", Add(), p, number(made, "d", -0.45))
    y = conv(made, "y", s, 8, 4)
    z = conv(made, "z", s, 8, 4)
    done = quantized(made.returns(y, z), precision=PARTS)
    assert done.kernels["QLinearAdd"] == done.kernels["QLinearMul"] == 1
    assert done.kernels["QuantizeLinear"] == 1


def test_the_result_is_no_worse_than_with_kernels(net: Any, quantized: Any) -> None:
    """Each rounding that goes is one less: held against the float model."""
    made = net(4)
    g = made.op("g", HardSwish(), start(made))
    s = made.op("s", Add(), made.op("m", Mul(), g, number(made, "c", 0.6)), number(made, "d", 0.2))
    done = quantized(made.returns(conv(made, "y", s, 8, 4)), precision=PARTS)
    kept = run(done.float, PARTS)
    for value in (kept.value("m"), kept.value("s")):  # a clamp that never acts keeps the kernels
        assert value is not None
        assert value.producer is not None
        value.producer.op = type(value.producer.op)(clamp=(-1e6, 1e6))
    kernels = run(kept, "quantize,lower-to-qdq")

    def noise(module: Any) -> float:
        runs = [Runner(m, threads=1) for m in (done.float, module)]
        errors = [np.square(np.subtract(*(r.run(f)["y"] for r in runs))).mean() for f in done.feeds]
        return float(np.mean(errors))

    assert noise(done.lowered) < noise(kernels)


@pytest.mark.parametrize(
    ("op", "constant"),
    [
        (Mul(), np.float32(-0.5)),
        (Mul(), np.linspace(0.5, 2, 8).reshape(8, 1, 1)),
        (Mul(clamp=(0.0, math.inf)), np.float32(0.5)),
        (Add(), np.linspace(0.5, 2, 8).reshape(8, 1, 1)),
        (Add(), np.float32(400.0)),
        (Add(), np.float32(-0.01)),
    ],
)
def test_what_is_no_line_of_whole_steps_keeps_its_kernel(
    net: Any, quantized: Any, op: Any, constant: Any
) -> None:
    made = net()
    m = made.op("m", op, start(made), made.const("c", np.asarray(constant, np.float32)))
    done = quantized(made.returns(conv(made, "y", m, 8, 4)))
    name = f"QLinear{op.name.capitalize()}"
    assert done.kernels[name] == 1


def test_with_fixed_zero_points_only_factors_are_scales(net: Any, quantized: Any) -> None:
    made = net()
    m = made.op("m", Mul(), start(made), number(made, "c", 0.7))
    s = made.op("s", Add(), m, number(made, "d", 0.5))
    done = quantized(made.returns(conv(made, "y", s, 8, 4)), quantize="quantize{symmetric=true}")
    assert (done.kernels["QLinearAdd"], done.kernels["QLinearMul"]) == (1, 0)


def test_a_relu_keeps_its_zero_point(net: Any, quantized: Any) -> None:
    """Adding a positive number would want integers below the Relu's zero."""
    made = net()
    x = start(made, clamp=(0.0, math.inf))
    done = quantized(
        made.returns(conv(made, "y", made.op("s", Add(), x, number(made, "d", 0.5)), 8, 4))
    )
    assert done.kernels["QLinearAdd"] == 1


@pytest.mark.parametrize("offset", [0.0, -2.5, 7.25])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_restated_integers_are_the_line(factor: float, offset: float) -> None:
    quant = Quant.make(0.25 / factor, 40)
    made = Line(None, factor, offset).restated(quant, Elem.U8)  # type: ignore[arg-type] - not read
    assert made is not None
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(
        dequantize(every, made), factor * dequantize(every, quant) + offset, atol=1e-5
    )
