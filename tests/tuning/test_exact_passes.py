"""Passes that scale channels keep the float function: a property over random networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.verify import verify
from qdqc.ops import (
    Add,
    AveragePool,
    Conv,
    Flatten,
    Gelu,
    Gemm,
    GlobalAveragePool,
    LayerNormalization,
    LeakyRelu,
    MatMul,
    MaxPool,
    Mul,
    PRelu,
    Relu,
    Reshape,
    RMSNormalization,
    Softmax,
    Transpose,
)
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner

TOLERANCE = 1e-4


class Net:
    """A module that grows at its last value; its weights spread over four orders of magnitude."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.module = Module("net", {"": 23})
        self.rng = np.random.default_rng(seed)
        self.last: Value = self.module.graph.add_input("x", TensorType(Elem.F32, shape))
        self.held: list[Value] = [self.last]

    def constant(self, *shape: int) -> Value:
        spread = 10 ** self.rng.uniform(-1, 1, shape[:1] + (1,) * (len(shape) - 1))
        array = self.rng.normal(size=shape) * spread / math.sqrt(max(1, math.prod(shape[1:])))
        name = self.module.fresh_name("c")
        return self.module.add_constant(name, Data.of(array.astype(np.float32)))

    def op(self, op: Any, *operands: Value) -> None:
        self.last = self.module.graph.insert(op, operands).result
        self.held.append(self.last)

    @property
    def size(self) -> tuple[int, ...]:
        shape = self.last.tensor.static_shape
        assert shape is not None
        return shape

    def done(self, *further: Value) -> Module:
        self.module.graph.set_outputs([self.last, *further])
        return self.module


def add_image_layer(net: Net, kind: str, data: st.DataObject) -> None:
    channels = net.size[1]
    made = data.draw(st.integers(1, 6))
    clamp = data.draw(st.sampled_from([None, (0.0, math.inf), (0.0, 6.0)]))
    pads = (1, 1, 1, 1)
    match kind:
        case "conv":
            op = Conv(pads=pads, clamp=clamp)
            net.op(op, net.last, net.constant(made, channels, 3, 3), net.constant(made))
        case "depthwise":
            op = Conv(group=channels, pads=pads, clamp=clamp)
            net.op(op, net.last, net.constant(channels, 1, 3, 3))
        case "relu":
            net.op(data.draw(st.sampled_from([Relu(), LeakyRelu(alpha=0.1)])), net.last)
        case "prelu":
            net.op(PRelu(), net.last, net.constant(channels, 1, 1))
        case "pool":
            pool = data.draw(st.sampled_from([MaxPool, AveragePool]))
            net.op(pool(kernel_shape=(2, 2), pads=(1, 1, 0, 0)), net.last)
        case "mul":
            net.op(Mul(), net.last, net.constant(channels, 1, 1))
        case _:
            same = [v for v in net.held if v.tensor.static_shape == net.size]
            net.op(Add(), net.last, data.draw(st.sampled_from(same)))


IMAGE = ["conv", "depthwise", "relu", "prelu", "pool", "mul", "residual"]


@st.composite
def image_networks(draw: Any) -> Module:
    data: Any = draw(st.data())
    net = Net((2, draw(st.integers(1, 5)), 6, 5), draw(st.integers(0, 10**6)))
    for kind in draw(st.lists(st.sampled_from(IMAGE), min_size=2, max_size=7)):
        add_image_layer(net, kind, data)
    net.op(GlobalAveragePool(), net.last)
    net.op(Flatten(), net.last)
    net.op(Gemm(), net.last, net.constant(net.size[1], 3), net.constant(3))
    seen = draw(st.sampled_from(net.held[1:]))
    return net.done(*([seen] if draw(st.booleans()) else []))


def add_token_layer(net: Net, kind: str, data: st.DataObject) -> None:
    batch, tokens, width = net.size
    match kind:
        case "layer":
            net.op(LayerNormalization(), net.last, net.constant(width), net.constant(width))
        case "rms":
            net.op(RMSNormalization(), net.last, net.constant(width))
        case "matmul":
            made = data.draw(st.sampled_from([4, 8]))
            net.op(MatMul(), net.last, net.constant(width, made), net.constant(made))
        case "gelu":
            net.op(Gelu(), net.last)
        case "mul":
            net.op(Mul(), net.last, net.constant(width))
        case "attention":
            x, sides = net.last, []
            shape = net.module.add_constant(
                net.module.fresh_name("s"), Data.of(np.array([batch, tokens, 2, width // 2]))
            )
            for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
                net.op(MatMul(), x, net.constant(width, width), net.constant(width))
                net.op(Reshape(), net.last, shape)
                net.op(Transpose(perm=perm), net.last)
                sides.append(net.last)
            net.op(MatMul(), sides[0], sides[1])
            net.op(Softmax(), net.last)
            net.op(MatMul(), net.last, sides[2])
            net.op(Transpose(perm=(0, 2, 1, 3)), net.last)
            flat = net.module.add_constant(
                net.module.fresh_name("s"), Data.of(np.array([batch, tokens, width]))
            )
            net.op(Reshape(), net.last, flat)
            net.op(MatMul(), net.last, net.constant(width, width), net.constant(width))
        case _:
            same = [v for v in net.held if v.tensor.static_shape == net.size]
            net.op(Add(), net.last, data.draw(st.sampled_from(same)))


TOKENS = ["layer", "rms", "matmul", "gelu", "mul", "attention", "residual"]


@st.composite
def token_networks(draw: Any) -> Module:
    data: Any = draw(st.data())
    net = Net((2, 5, 8), draw(st.integers(0, 10**6)))
    for kind in draw(st.lists(st.sampled_from(TOKENS), min_size=2, max_size=6)):
        add_token_layer(net, kind, data)
    net.op(LayerNormalization(), net.last, net.constant(net.size[-1]))
    return net.done()


def samples_of(module: Module, count: int) -> list[dict[str, Any]]:
    shape = module.graph.inputs[0].tensor.static_shape
    assert shape is not None
    rng = np.random.default_rng(7)
    reach = 10 ** rng.uniform(-1, 1, (1, shape[1], *[1] * (len(shape) - 2)))
    return [{"x": (rng.normal(size=shape) * reach).astype(np.float32)} for _ in range(count)]


def assert_same_function(module: Module, changed: Module) -> None:
    """``max|a-b| <= 1e-4 max|b|`` for every output, onnxruntime's optimisations off."""
    assert not verify(changed)
    before, after = Runner(module, optimise="off"), Runner(changed, optimise="off")
    for sample in samples_of(module, 4):
        expected, found = before.run(sample), after.run(sample)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            worst = float(np.abs(found[name] - array).max())
            assert worst <= TOLERANCE * float(np.abs(array).max()) + 1e-30, name


@settings(max_examples=120, deadline=None)
@given(image_networks())
def test_equalize_channels_keeps_images(module: Module) -> None:
    assert_same_function(module, run(module, "equalize-channels"))


@settings(max_examples=40, deadline=None)
@given(token_networks())
def test_equalize_channels_keeps_tokens(module: Module) -> None:
    assert_same_function(module, run(module, "equalize-channels"))


@settings(max_examples=60, deadline=None)
@given(token_networks(), st.booleans())
def test_smooth_activations_keeps_tokens(module: Module, insert: bool) -> None:
    """Whatever strength is chosen, and where it gains nothing as well."""
    given_ = f"smooth-activations{{worth=100.0 insert={str(insert).lower()}}}"
    assert_same_function(module, run(module, given_, samples=samples_of(module, 3)))


@settings(max_examples=40, deadline=None)
@given(image_networks())
def test_smooth_activations_keeps_images(module: Module) -> None:
    done = run(module, "smooth-activations{worth=100.0}", samples=samples_of(module, 3))
    assert_same_function(module, done)


@settings(max_examples=80, deadline=None)
@given(image_networks())
def test_equalize_activations_keeps_images(module: Module) -> None:
    done = run(module, "equalize-activations", samples=samples_of(module, 3))
    assert_same_function(module, done)
