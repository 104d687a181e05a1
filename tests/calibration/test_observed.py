from __future__ import annotations

import numpy as np

from qdqc.calibration.observed import plan_of
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv, Flatten, Gemm, Relu, Reshape, Transpose

F32 = TensorType(Elem.F32, (1, 4, 2, 2))


class Opaque(Op):
    """Stands for any op; it is not registered."""


def test_float_values_of_the_top_graph_are_looked_at() -> None:
    module = Module()
    graph = module.graph
    x = graph.add_input("x", F32)
    graph.add_input("ids", TensorType(Elem.I64, (2,)))
    graph.add_input("half", TensorType(Elem.F16, (2,)))
    w = module.add_constant("w", Data.of(np.ones((1, 4, 2, 2), np.float32)))
    inner = Graph(module)
    inner.insert(Opaque(), [x], [F32], ["inner"])
    types = [F32, TensorType(Elem.I64, (2,))]
    node = graph.insert(Opaque(), [x, w], types, ["y", "index"], graphs=[inner])
    graph.set_outputs([node.results[0] or x])
    plan = plan_of(graph)
    assert plan.names == plan.taps == ("x", "y")
    assert plan.integers == ("ids",)
    assert plan.channels == ()


def test_values_with_the_same_elements_share_a_tap() -> None:
    module = Module()
    graph = module.graph
    x = graph.add_input("x", F32)
    shape = module.add_constant("shape", Data.of(np.array([1, 16], np.int64)))
    first = graph.insert(Transpose(perm=(0, 2, 3, 1)), [x], names=["turned"]).result
    second = graph.insert(Reshape(), [first, shape], names=["flat"]).result
    third = graph.insert(Relu(), [second], names=["clamped"]).result
    fourth = graph.insert(Flatten(), [third], names=["flat_again"]).result
    graph.set_outputs([fourth])
    plan = plan_of(graph)
    assert plan.names == ("x", "turned", "flat", "clamped", "flat_again")
    assert plan.taps == ("x", "clamped")
    assert plan.shared == {"turned": "x", "flat": "x", "flat_again": "clamped"}


def test_values_with_channels_have_a_tap_of_their_own() -> None:
    module = Module()
    graph = module.graph
    x = graph.add_input("x", F32)
    w = module.add_constant("w", Data.of(np.ones((4, 4, 1, 1), np.float32)))
    v = module.add_constant("v", Data.of(np.ones((16, 3), np.float32)))
    b, c = (
        module.add_constant(n, Data.of(np.ones(s, np.float32))) for n, s in (("b", 4), ("c", 3))
    )
    y = graph.insert(Conv(), [x, w, b], names=["y"]).result
    flat = graph.insert(Flatten(), [y], names=["flat"]).result
    graph.set_outputs([graph.insert(Gemm(), [flat, v, c], names=["z"]).result])
    plan = plan_of(graph)
    assert plan.channels == ("x", "flat")
    assert not plan.shared


def test_what_has_the_elements_of_a_constant_has_a_tap() -> None:
    module = Module()
    w = module.add_constant("w", Data.of(np.ones((2, 3), np.float32)))
    made = module.graph.insert(Transpose(perm=(1, 0)), [w], names=["turned"]).result
    module.graph.set_outputs([made])
    assert plan_of(module.graph).taps == ("turned",)
