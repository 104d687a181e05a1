"""Random graphs through the named pipelines: the outputs stay, and so does every kept name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import (
    Add,
    AveragePool,
    BatchNormalization,
    Clip,
    Concat,
    Conv,
    Div,
    Exp,
    Gather,
    Identity,
    Mul,
    Pad,
    Relu,
    Reshape,
    Shape,
    Sigmoid,
    Slice,
    Sub,
    Transpose,
    Unsqueeze,
)
from qdqc.pipeline.manager import run
from qdqc.quant.placement import decide
from qdqc.quant.targets.target import target_named
from qdqc.runtime.audit.audit import audit
from qdqc.runtime.sessions.session import Runner, open_session
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module


class RandomNet:
    """Grows a module by steps that a random generator chooses; shapes stay small.

    Every value has shape [1, C, H, W]; what a step can't use it leaves as it is.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.module = Module("random", {"": 17})
        self.count = 0
        shape = (1, self.random.choice([1, 2, 4]), 4, self.random.choice([4, 5]))
        self.values = [self.module.graph.add_input("x", TensorType(Elem.F32, shape))]
        for _ in range(steps):
            self.values.append(self.random.choice(STEPS)(self, self.pick()))
        self.module.graph.set_outputs(self.outputs())

    def outputs(self) -> list[Value]:
        made = [v for v in self.values if v.producer is not None]
        last = made[-1:] or [self.op(Identity(), self.values[0])]
        others = self.random.sample(made, k=min(len(made), self.random.choice([0, 0, 1, 2])))
        return list(dict.fromkeys([*last, *others]))

    def pick(self) -> Value:
        """Late values more often, so that chains grow long and some branches die."""
        back = min(len(self.values), self.random.choice([1, 1, 1, 2, 3, 9]))
        return self.values[-back]

    def op(self, op: Op, *operands: Value | None) -> Value:
        self.count += 1
        name = f"v{self.count}"
        node = self.module.graph.insert(op, list(operands), None, [name], loc=Loc((f"/{name}",)))
        return node.result

    def const(self, array: Any) -> Value:
        self.count += 1
        held = np.asarray(array)
        held = held.astype(np.float32) if held.dtype == np.float64 else held
        return self.module.add_constant(f"c{self.count}", Data.of(held))

    def normal(self, *shape: int) -> Value:
        return self.const(self.rng.normal(0, 0.5, shape))


def sizes(value: Value) -> tuple[int, ...]:
    found = value.tensor.static_shape
    assert found is not None
    return found


def conv(net: RandomNet, x: Value) -> Value:
    channels = sizes(x)[1]
    out = net.random.choice([1, 2, 4])
    group = channels if out % channels == 0 and net.random.random() < 0.3 else 1
    size = net.random.choice([1, 3])
    bias = net.normal(out) if net.random.random() < 0.5 else None
    op = Conv(pads=(size // 2,) * 4, group=group)
    return net.op(op, x, net.normal(out, channels // group, size, size), bias)


def batchnorm(net: RandomNet, x: Value) -> Value:
    n = sizes(x)[1]
    var = net.const(net.rng.uniform(0.2, 2, n))
    return net.op(BatchNormalization(), x, net.normal(n), net.normal(n), net.normal(n), var)


def activation(net: RandomNet, x: Value) -> Value:
    return net.op(net.random.choice([Relu(), Sigmoid(), Clip(min=0.0, max=1.0), Clip()]), x)


def arithmetic(net: RandomNet, x: Value) -> Value:
    op = net.random.choice([Add(), Mul(), Sub(), Div()])
    numbers = net.random.choice([0.0, 1.0, 2.0, 0.3])
    c = net.const(np.full(net.random.choice([(), (1,), (sizes(x)[1], 1, 1)]), numbers or 1.5))
    if not numbers and isinstance(op, Add | Sub):
        c = net.const(np.zeros(()))
    return net.op(op, x, c) if net.random.random() < 0.7 else net.op(Mul(), c, x)


def combine(net: RandomNet, x: Value) -> Value:
    same = [v for v in net.values if sizes(v) == sizes(x)]
    return net.op(net.random.choice([Add(), Mul()]), x, net.random.choice(same))


def concat(net: RandomNet, x: Value) -> Value:
    fits = [v for v in net.values if sizes(v)[2:] == sizes(x)[2:] and sizes(v)[1] < 6]
    return net.op(Concat(axis=1), x, *net.random.sample(fits, k=min(len(fits), 1)))


def pad(net: RandomNet, x: Value) -> Value:
    if max(sizes(x)[2:]) > 7:
        return net.op(Identity(), x)
    amounts = [0, 0, *net.random.choices([0, 1], k=2), 0, 0, *net.random.choices([0, 1], k=2)]
    padded = net.op(Pad(), x, net.const(np.array(amounts)))
    return conv(net, padded) if net.random.random() < 0.6 else pool(net, padded)


def pool(net: RandomNet, x: Value) -> Value:
    return net.op(AveragePool(kernel_shape=(2, 2)), x) if min(sizes(x)[2:]) > 2 else x


def transpose(net: RandomNet, x: Value) -> Value:
    perm = net.random.choice([(0, 1, 3, 2), (0, 1, 2, 3), (0, 1, 3, 2)])
    return net.op(Transpose(perm=perm), x)


def crop(net: RandomNet, x: Value) -> Value:
    if sizes(x)[3] < 3:
        return x
    ends = (net.const(np.array([n])) for n in (1, sizes(x)[3], 3))
    return net.op(Slice(), x, *ends)


def reshape(net: RandomNet, x: Value) -> Value:
    """There and back: [1,C,H*W], then to the shape that a Shape node tells."""
    flat = net.op(Reshape(), x, net.const(np.array([0, 0, -1])))
    return net.op(Reshape(), flat, net.op(Shape(), x))


def by_shape(net: RandomNet, x: Value) -> Value:
    """A target put together from dimensions, as exporters leave it behind."""
    shape = net.op(Shape(), x)
    parts = [
        net.op(Unsqueeze(axes=(0,)), net.op(Gather(), shape, net.const(np.array(i))))
        for i in (0, 1, 2)
    ]
    target = net.op(Concat(axis=0), *parts, net.const(np.array([-1])))
    return net.op(Reshape(), x, target)


def again(net: RandomNet, x: Value) -> Value:
    """The same node once more."""
    node = x.producer
    return x if node is None else net.op(node.op, *node.operands)


def nothing(net: RandomNet, x: Value) -> Value:
    return net.op(Identity(), x)


def dead(net: RandomNet, x: Value) -> Value:
    net.op(Exp(), x)
    return x


Step = Callable[[RandomNet, Value], Value]
STEPS: list[Step] = [
    conv, conv, batchnorm, batchnorm, activation, activation, arithmetic, combine, concat, pad,
    pool, transpose, crop, reshape, by_shape, again, again, nothing, dead,
]  # fmt: skip
ANY_ORDER = (
    "fold-shapes",
    "fold-constants",
    "canonicalize",
    "fuse-pad",
    "fuse-batchnorm",
    "fuse-activation",
    "eliminate-dead-code",
    "eliminate-common-subexpressions",
)
SLOW = [HealthCheck.function_scoped_fixture]


@given(seed=st.integers(0, 2**20), steps=st.integers(1, 16))
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
def test_the_transform_keeps_the_outputs(
    same: Any, all_locations: Any, seed: int, steps: int
) -> None:
    before = RandomNet(seed, steps).module
    after = run(before, "@transform")
    same(before, after, seeds=1)
    assert all_locations(after) <= all_locations(before)
    assert len(list(after.walk())) <= len(list(before.walk()))
    text = print_module(after, elide=True)
    assert print_module(parse_module(text), elide=True) == text


@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_the_transform_is_a_fixed_point_of_itself(seed: int) -> None:
    once = run(RandomNet(seed, 14).module, "@transform")
    twice = run(once, "@transform")
    once.header.clear()
    twice.header.clear()
    assert print_module(twice) == print_module(once)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_passes_may_come_in_any_order(same: Any, seed: int) -> None:
    """Each pass keeps the numbers by itself, whatever came before it."""
    before = RandomNet(seed, 12).module
    passes = list(ANY_ORDER)
    random.Random(seed).shuffle(passes)
    same(before, run(before, ",".join(passes)), seeds=1)


def give_ranges(module: Module, feeds: list[dict[str, Any]]) -> None:
    """The extremes of every float value over the given inputs."""
    results = (r for n in module.walk() for r in n.present_results)
    values = [v for v in (*module.graph.inputs, *results) if v.tensor.elem is Elem.F32]
    runner = Runner(module, [v.name for v in values], optimise="off", threads=1)
    runs = [runner.run(feed) for feed in feeds]
    for value in values:
        held = np.concatenate([r[value.name].reshape(-1) for r in runs])
        low, high = float(held.min(initial=0)), float(held.max(initial=0))
        value.type = value.tensor.with_range(Range(low, high, max(-low, high)))


@given(seed=st.integers(0, 2**20), symmetric=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_int8_survives_onnxruntimes_optimisations(
    tmp_path: Path, seed: int, symmetric: bool
) -> None:
    """The plan is what runs, and the fused integer kernels mean what the casts spell."""
    module = run(RandomNet(seed, 16).module, "@transform,assign-precision")
    feeds = [make_feeds(module, s) for s in range(3)]
    give_ranges(module, feeds)
    decisions = {n.name: d for n, d in decide(module.graph, target_named("ort-cpu")).items()}
    how = f"quantize{{symmetric={str(symmetric).lower()}}}"
    lowered = run(module, f"{how},lower-to-qdq")
    proto = export_onnx(lowered)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert not audit(lowered, decisions, path).findings
    plain, fast = (open_session(proto, optimise=o, threads=1) for o in ("off", "all"))
    for feed in feeds:
        pairs = zip(plain.run(None, feed), fast.run(None, feed), strict=True)
        for value, (wanted, got) in zip(module.graph.outputs, pairs, strict=True):
            held = value.tensor.range
            assert held is not None
            worst = np.abs(np.asarray(got) - np.asarray(wanted)).max(initial=0)
            assert worst <= 3 * (held.max - held.min) / 255, value


@given(seed=st.integers(0, 2**20), symmetric=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_import_qdq_is_the_inverse_of_lower_to_qdq(seed: int, symmetric: bool) -> None:
    module = run(RandomNet(seed, 16).module, "@transform,assign-precision")
    give_ranges(module, [make_feeds(module, s) for s in range(2)])
    typed = run(module, f"quantize{{symmetric={str(symmetric).lower()}}}")
    lowered = run(typed, "lower-to-qdq")
    again = run(lowered, "import-qdq")
    for stage in (typed, again):
        stage.header.clear()
    assert print_module(again) == print_module(typed)


def make_feeds(module: Module, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    inputs = module.graph.inputs
    return {v.name: rng.normal(0, 1, sizes(v)).astype(np.float32) for v in inputs}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pipeline_makes_the_same_text_every_time(seed: int) -> None:
    texts = {print_module(run(RandomNet(seed, 16).module, "@transform")) for _ in range(3)}
    assert len(texts) == 1
