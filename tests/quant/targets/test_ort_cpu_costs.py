"""Where the costs of ort-cpu say that float is faster, and where integers are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import (
    Abs,
    Add,
    AveragePool,
    Conv,
    Gemm,
    HardSigmoid,
    MatMul,
    MaxPool,
    Mul,
    Relu,
    Sigmoid,
)
from qdqc.quant.targets.ort_cpu_costs import OrtCpuCosts

COSTS = OrtCpuCosts()


class Net:
    """A graph on one image, and the costs of its nodes."""

    def __init__(self, *shape: int) -> None:
        self.module = Module("net", {"": 17})
        self.x = self.module.graph.add_input("x", TensorType(Elem.F32, shape))

    def op(self, op: Op, *operands: Value) -> Value:
        name = self.module.fresh_name(op.name)
        return self.module.graph.insert(op, list(operands), None, [name]).result

    def weight(self, *shape: int) -> Value:
        name = self.module.fresh_name("w")
        return self.module.add_constant(name, Data.of(np.ones(shape, np.float32)))

    def conv(self, x: Value, out: int, size: int, group: int = 1) -> Value:
        channels = (x.tensor.static_shape or ())[1]
        op = Conv(pads=(size // 2,) * 4, group=group)
        return self.op(op, x, self.weight(out, channels // group, size, size))

    def sizes(self) -> dict[str, tuple[int, ...]]:
        graph = self.module.graph
        values = [*graph.inputs, *(r for n in graph.nodes() for r in n.present_results)]
        return {v.name: v.tensor.static_shape for v in values if v.tensor.static_shape is not None}

    def cost(self, value: Value) -> tuple[float, float]:
        """In float and in integers."""
        found = COSTS.node(maker(value), self.sizes())
        assert found is not None
        assert all(math.isfinite(cost) and cost >= 0 for cost in found)
        return found


def maker(value: Value) -> Node[Any]:
    assert value.producer is not None
    return value.producer


def conv_cost(channels: int, out: int, size: int, side: int, group: int = 1) -> tuple[float, float]:
    net = Net(1, channels, side, side)
    return net.cost(net.conv(net.x, out, size, group))


@pytest.mark.parametrize(
    ("channels", "out", "size", "side", "group"),
    [
        (3, 16, 3, 224, 1),  # the first of an image
        (1, 8, 3, 128, 1),  # of one channel
        (1, 1, 3, 224, 1),
        (88, 88, 3, 28, 88),  # channels that fill no blocks of 16
        (64, 64, 3, 28, 32),  # groups of two
    ],
)
def test_thin_convolutions_are_faster_in_float(
    channels: int, out: int, size: int, side: int, group: int
) -> None:
    exact, integer = conv_cost(channels, out, size, side, group)
    assert integer > 1.2 * exact


@pytest.mark.parametrize(
    ("channels", "out", "size", "side", "group"),
    [(64, 64, 1, 56, 1), (256, 256, 1, 14, 1), (64, 64, 3, 56, 1), (256, 256, 3, 28, 4)],
)
def test_wide_convolutions_are_faster_in_integers(
    channels: int, out: int, size: int, side: int, group: int
) -> None:
    exact, integer = conv_cost(channels, out, size, side, group)
    assert integer < exact / 2


def test_depthwise_convolutions_pay_for_channels_that_fill_no_block() -> None:
    odd, even = conv_cost(88, 88, 3, 28, 88), conv_cost(96, 96, 3, 28, 96)
    assert odd[0] == even[0], "float rounds up to whole blocks"
    assert odd[1] > 1.5 * even[1]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_more_work_takes_longer(size: int) -> None:
    channels = [conv_cost(c, 64, size, 28) for c in (16, 32, 64, 128)]
    outs = [conv_cost(64, o, size, 28) for o in (16, 32, 64, 128)]
    sides = [conv_cost(64, 64, size, s) for s in (7, 14, 28, 56)]
    depthwise = [conv_cost(c, c, size, 28, c) for c in (16, 32, 64, 128)]
    for costs in (channels, outs, sides, depthwise):
        for kind in (0, 1):
            every = [cost[kind] for cost in costs]
            assert every == sorted(set(every))


def test_wider_groups_gain_more() -> None:
    ratios = [np.divide(*conv_cost(128, 128, 3, 28, 128 // each)) for each in (2, 4, 8, 32, 64)]
    assert ratios == sorted(ratios)
    assert ratios[0] < 1 < ratios[-1]


def test_products_gain_by_their_work_on_each_element() -> None:
    net = Net(64, 512)
    exact, integer = net.cost(net.op(Gemm(), net.x, net.weight(512, 512)))
    assert integer < exact / 2
    net = Net(1, 4096, 4)
    exact, integer = net.cost(net.op(MatMul(), net.x, net.weight(4, 4)))
    assert integer > exact, "what is quantized is read no more often than it is cast"


def test_a_max_pool_alone_has_a_slow_integer_kernel() -> None:
    alone, within = Net(1, 64, 56, 56), Net(1, 64, 56, 56)
    pool = MaxPool(kernel_shape=(2, 2), strides=(2, 2))
    lonely = alone.op(pool, alone.x)
    alone.conv(lonely, 64, 1)
    chained = within.op(pool, within.conv(within.x, 64, 1))
    within.conv(chained, 64, 1)
    assert alone.cost(lonely)[0] == within.cost(chained)[0]
    assert alone.cost(lonely)[1] > 5 * alone.cost(lonely)[0]
    assert within.cost(chained)[1] == within.cost(chained)[0]


def test_what_a_pool_costs_is_what_it_reads() -> None:
    pool = AveragePool(kernel_shape=(4, 4))
    small, large = Net(1, 16, 16, 16), Net(1, 16, 128, 128)
    less, more = (net.cost(net.op(pool, net.x)) for net in (small, large))
    assert more[1] > 5 * more[0], "an average pool is slow in integers"
    assert more[0] > 3 * less[0]
    exact, integer = large.cost(large.op(Sigmoid(), large.x))
    assert integer < exact


def test_an_activation_behind_a_convolution_is_free_in_float() -> None:
    net = Net(1, 16, 32, 32)
    a = net.conv(net.x, 16, 3)
    taken = net.op(Relu(), a)
    assert net.cost(taken)[0] == 0
    other = net.op(Relu(), net.x)
    assert net.cost(other)[0] > 0
    net.op(Abs(), a)
    assert net.cost(taken)[0] > 0, "the convolution has another reader"


def test_a_line_is_another_scale_in_integers() -> None:
    net = Net(1, 16, 32, 32)
    scaled = net.op(Mul(), net.x, net.module.add_constant("two", Data.of(np.float32(2.0))))
    assert net.cost(scaled)[1] == 0
    both = net.op(Mul(), net.x, net.x)
    assert net.cost(both)[1] > net.cost(both)[0]


def test_a_product_of_an_image_and_a_gate_leaves_the_layout_of_images() -> None:
    net = Net(1, 16, 32, 32)
    a = net.conv(net.x, 16, 3)
    gate = net.op(HardSigmoid(), net.conv(net.op(AveragePool(kernel_shape=(32, 32)), a), 16, 1))
    gated, whole = net.op(Mul(), a, gate), net.op(Mul(), a, a)
    assert net.cost(gated)[0] > 2 * net.cost(whole)[0]
    assert net.cost(gated)[1] == net.cost(whole)[1]


def test_casts_beside_convolutions_change_the_layout() -> None:
    net = Net(1, 16, 32, 32)
    a = net.conv(net.x, 16, 3)
    s = net.op(Abs(), net.op(Abs(), a))
    shape = (1, 16, 32, 32)
    for cast in (COSTS.quantized, COSTS.dequantized):
        assert cast(a, shape) > 1.5 * cast(s, shape) > 0
        assert cast(s, (1, 16, 64, 64)) > 2 * cast(s, shape)


def test_what_is_not_known_has_no_cost() -> None:
    net = Net(1, 16, 32, 32)
    a, s = net.conv(net.x, 16, 3), net.op(Add(), net.x, net.x)
    sizes = net.sizes()
    for value in (a, s):
        assert COSTS.node(maker(value), sizes) is not None
        for name in ("x", value.name):
            assert COSTS.node(maker(value), {n: z for n, z in sizes.items() if n != name}) is None
    assert COSTS.node(maker(net.op(Abs(), net.x)), net.sizes()) is None, "an op without a figure"
    dynamic = net.op(MatMul(), net.x, net.x)
    assert COSTS.node(maker(dynamic), net.sizes()) is None, "a product of two activations"
    kernel = net.module.graph.add_input("k", TensorType(Elem.F32, (16, 16, 1, 1)))
    assert COSTS.node(maker(net.op(Conv(), net.x, kernel)), net.sizes()) is None
