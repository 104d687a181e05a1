"""Activation functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import TensorType
from qdqc.ops.elementwise import Add, Div, Mul, Pow
from qdqc.ops.inference import axis_in, broadcast_shapes, same_elem, traits
from qdqc.ops.pointwise import Pointwise
from qdqc.ops.unary import Erf

if TYPE_CHECKING:
    from qdqc.ir.core import Value
    from qdqc.ir.expansion import Parts

__all__ = [
    "Celu",
    "Clip",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "LeakyRelu",
    "LogSoftmax",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
]


class Relu(Pointwise):
    """max(x, 0)."""

    name = "relu"
    onnx = Onnx("Relu")
    not_negative = True
    kind = Kind.ARITHMETIC

    def live(self) -> tuple[float, float]:
        return 0.0, math.inf


class Clip(Pointwise):
    """x limited to [min, max]."""

    name = "clip"
    onnx = Onnx("Clip", attr_inputs={"min": (11, 1), "max": (11, 2)})
    kind = Kind.ARITHMETIC

    min: float = -math.inf
    max: float = math.inf

    def live(self) -> tuple[float, float]:
        return self.min, self.max


class LeakyRelu(Pointwise):
    """x where x >= 0, else alpha * x."""

    name = "leaky_relu"
    onnx = Onnx("LeakyRelu")
    kind = Kind.ARITHMETIC

    alpha: float = 0.01


class PRelu(Op):
    """x where x >= 0, else slope * x; the slope broadcasts to x."""

    name = "prelu"
    operands = ("x", "slope")
    elementwise = True
    onnx = Onnx("PRelu")

    def infer(self, x: TensorType, slope: TensorType) -> tuple[TensorType]:
        same_elem(x=x, slope=slope)
        # ONNX lets the slope broadcast to x only, onnxruntime each to the other.
        known = slope.shape is not None
        return (TensorType(x.elem, broadcast_shapes(x.shape, slope.shape) if known else x.shape),)


class Sigmoid(Pointwise):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"
    onnx = Onnx("Sigmoid")
    kind = Kind.ARITHMETIC
    fixed = (0.0, 1.0)


class HardSigmoid(Pointwise):
    """alpha * x + beta limited to [0, 1]."""

    name = "hard_sigmoid"
    onnx = Onnx("HardSigmoid")
    kind = Kind.ARITHMETIC
    fixed = (0.0, 1.0)

    alpha: float = 0.2
    beta: float = 0.5

    def live(self) -> tuple[float, float] | None:
        if self.alpha == 0:
            return None
        ends = (-self.beta / self.alpha, (1 - self.beta) / self.alpha)
        return min(ends), max(ends)


class HardSwish(Pointwise):
    """x * hard_sigmoid(x) with alpha 1/6 and beta 1/2."""

    name = "hard_swish"
    onnx = Onnx("HardSwish", since=14)

    def live(self) -> tuple[float, float]:
        return -3.0, math.inf

    def expand(self, parts: Parts, x: Value) -> Value:
        return parts.op(Mul(), x, parts.op(HardSigmoid(alpha=1 / 6, beta=0.5), x))


class Swish(Pointwise):
    """x * sigmoid(alpha * x)."""

    name = "swish"
    onnx = Onnx("Swish", since=24)

    alpha: float = 1.0

    def expand(self, parts: Parts, x: Value) -> Value:
        scaled = x if self.alpha == 1 else parts.op(Mul(), x, parts.number(self.alpha, "alpha"))
        return parts.op(Mul(), x, parts.op(Sigmoid(), scaled))


class Tanh(Pointwise):
    """Hyperbolic tangent."""

    name = "tanh"
    onnx = Onnx("Tanh")
    fixed = (-1.0, 1.0)


class Gelu(Pointwise):
    """x * Phi(x) with the normal distribution Phi; ``approximate`` is ``none`` or ``tanh``."""

    name = "gelu"
    onnx = Onnx("Gelu", since=20)

    approximate: Literal["none", "tanh"] = "none"

    def expand(self, parts: Parts, x: Value) -> Value:
        """As PyTorch writes it, which runtimes look for.

        none: x * (1 + erf(x / sqrt(2))) * 0.5;
        tanh: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
        """
        one, half = parts.number(1.0, "one"), parts.number(0.5, "half")
        if self.approximate == "none":
            erf = parts.op(Erf(), parts.op(Div(), x, parts.number(math.sqrt(2), "sqrt2")))
            return parts.op(Mul(), parts.op(Mul(), x, parts.op(Add(), erf, one)), half)
        cube = parts.op(Pow(), x, parts.number(3.0, "three"))
        inner = parts.op(Add(), x, parts.op(Mul(), cube, parts.number(0.044715, "cubic")))
        tanh = parts.op(
            Tanh(), parts.op(Mul(), inner, parts.number(math.sqrt(2 / math.pi), "slope"))
        )
        return parts.op(Mul(), parts.op(Mul(), x, half), parts.op(Add(), tanh, one))


class Elu(Pointwise):
    """x where x >= 0, else alpha * (exp(x) - 1)."""

    name = "elu"
    onnx = Onnx("Elu")

    alpha: float = 1.0


class Selu(Pointwise):
    """gamma * elu(x)."""

    name = "selu"
    onnx = Onnx("Selu")

    alpha: float = 1.6732632
    gamma: float = 1.050701


class Celu(Pointwise):
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""

    name = "celu"
    onnx = Onnx("Celu", since=12)

    alpha: float = 1.0


class Softplus(Pointwise):
    """log(1 + exp(x))."""

    name = "softplus"
    onnx = Onnx("Softplus")
    not_negative = True


class Softsign(Pointwise):
    """x / (1 + abs(x))."""

    name = "softsign"
    onnx = Onnx("Softsign")
    fixed = (-1.0, 1.0)


class Mish(Pointwise):
    """x * tanh(softplus(x))."""

    name = "mish"
    onnx = Onnx("Mish", since=18)

    def expand(self, parts: Parts, x: Value) -> Value:
        return parts.op(Mul(), x, parts.op(Tanh(), parts.op(Softplus(), x)))


class ThresholdedRelu(Pointwise):
    """x where x > alpha, else 0."""

    name = "thresholded_relu"
    onnx = Onnx("ThresholdedRelu", since=10)

    alpha: float = 1.0


class Shrink(Pointwise):
    """x + bias below -lambd, x - bias above lambd, 0 between."""

    name = "shrink"
    onnx = Onnx("Shrink", since=9)

    lambd: float = 0.5
    bias: float = 0.0


class _AlongAxis(Pointwise):
    """What the functions along one axis share."""

    elementwise = False

    axis: int = -1

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is not None:
            axis_in(self.axis, len(x.shape))
        return (TensorType(x.elem, x.shape),)


class Softmax(_AlongAxis):
    """exp(x) over its sum along ``axis``."""

    name = "softmax"
    onnx = Onnx("Softmax", since=13)
    kind = Kind.ARITHMETIC
    fixed = (0.0, 1.0)


class LogSoftmax(_AlongAxis):
    """Logarithm of the softmax along ``axis``."""

    name = "log_softmax"
    onnx = Onnx("LogSoftmax", since=13)


class Hardmax(_AlongAxis):
    """1 at the first maximum along ``axis``, else 0."""

    name = "hardmax"
    onnx = Onnx("Hardmax", since=13)

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, fixed=(0.0, 1.0))
