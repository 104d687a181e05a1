"""Which nodes become integer, and the reasons that the others are given."""

from __future__ import annotations

from typing import Any

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Value
from qdqc.ops import (
    Add,
    Clip,
    Conv,
    ConvTranspose,
    Flatten,
    Gemm,
    GlobalAveragePool,
    HardSwish,
    MatMul,
    MaxPool,
    Softmax,
    Tanh,
    Transpose,
)
from qdqc.pipeline.manager import run
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import target_named

ORT = target_named("ort-cpu")
NO_CASTS = "casts would cost more than they save"


@pytest.fixture
def placed(calibrated: Any) -> Any:
    """The decisions on a network by name, with all nodes INT8 save those named."""

    def apply(made: Any, *floats: str) -> dict[str, Decision]:
        module = calibrated(made)
        for node in module.graph.nodes():
            node.mode = "F32" if node.name in floats else "INT8"
        return {n.name: d for n, d in decide(module.graph, ORT).items()}

    return apply


def conv(net: Any, name: str, x: Value, **op: Any) -> Value:
    return net.op(name, Conv(**op), x, net.weight(f"{name}.w", 4, 4, 1, 1))


def test_an_add_between_float_ops_stays_float(net: Any, placed: Any) -> None:
    made = net()
    x = made.input("x", 1, 4, 4, 4)
    t, h = made.op("t", Tanh(), x), made.op("h", HardSwish(), x)
    s = made.op("s", Add(), t, h)
    found = placed(made.returns(conv(made, "y", s)))
    assert found["y"].integer
    assert not found["s"].integer
    assert found["s"].reason == f"it reads no integer node: {NO_CASTS}"
    assert found["t"].reason == "ort-cpu has no integer kernel for 'tanh'"


def test_an_add_that_feeds_no_integers_stays_float(net: Any, placed: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    found = placed(made.returns(made.op("t", Tanh(), made.op("s", Add(), a, a))))
    assert found["s"].reason == f"it feeds no integer node: {NO_CASTS}"


def test_a_residual_add_is_integer_and_so_is_a_chain_of_them(net: Any, placed: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    s = made.op("s", Add(), a, conv(made, "b", a))
    t = made.op("t", Add(), s, made.op("h", Tanh(), a))  # one operand that is float will do
    found = placed(made.returns(conv(made, "y", t)))
    assert {n: d.integer for n, d in found.items()} == {
        "a": True, "b": True, "s": True, "h": False, "t": True, "y": True,
    }  # fmt: skip
    assert found["s"].result
    assert found["t"].result


def test_a_pool_before_a_classifier_is_integer(net: Any, placed: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    f = made.op("f", Flatten(), made.op("p", GlobalAveragePool(), a))
    found = placed(made.returns(made.op("y", Gemm(), f, made.weight("w", 4, 3))))
    assert all(d.integer for d in found.values())
    assert not found["y"].result


def test_a_mover_of_float_values_stays_float(net: Any, placed: Any) -> None:
    made = net()
    t = made.op("t", Transpose(perm=(0, 2, 1)), made.input("x", 1, 4, 4))
    found = placed(made.returns(made.op("y", MatMul(), t, made.weight("w", 4, 4))))
    assert found["y"].integer
    assert not found["t"].integer


def test_a_product_for_products_gives_integers_and_for_others_floats(net: Any, placed: Any) -> None:
    made = net()
    x, w = made.input("x", 3, 4), made.weight("w", 4, 4)
    a, b, c = (made.op(n, MatMul(), x, w) for n in "abc")
    u, v = (made.op(n, MatMul(), y, w) for n, y in (("u", a), ("v", b)))
    found = placed(made.returns(u, v, made.op("t", Tanh(), b), made.op("s", Softmax(), c)))
    assert [found[n].result for n in "abcuv"] == [True, False, False, False, False]


def test_a_product_is_not_rounded_for_a_float_reader(net: Any, placed: Any) -> None:
    made = net()
    x, w = made.input("x", 3, 4), made.weight("w", 4, 4)
    a = made.op("a", MatMul(), x, w)
    found = placed(made.returns(made.op("y", MatMul(), a, w)), "y")
    assert not found["a"].result
    made = net()
    a = made.op("a", MatMul(), made.input("x", 1, 3, 4), made.weight("w", 4, 4))
    s = made.op("s", Add(), a, made.weight("b", 4))
    found = placed(made.returns(made.op("y", MatMul(), s, made.weight("v", 4, 4))))
    assert (found["a"].result, found["s"].integer) == (False, False)


def test_a_qtable_makes_islands(net: Any, placed: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    m = made.op("m", MaxPool(kernel_shape=(2, 2)), a)
    found = placed(made.returns(conv(made, "y", m)), "y")
    assert found["y"].reason == "its mode is F32"
    assert found["m"].reason == f"it feeds no integer node: {NO_CASTS}"
    assert found["a"].integer


def test_no_mode_is_float(net: Any, calibrated: Any) -> None:
    made = net()
    made.returns(conv(made, "y", made.input("x", 1, 4, 4, 4)))
    (found,) = decide(calibrated(made).graph, ORT).values()
    assert found.reason == "its mode is F32"


def test_products_that_the_target_refuses(net: Any, placed: Any) -> None:
    made = net()
    x = made.input("x", 4, 4)
    w = made.weight("w", 4, 4)
    image = made.input("i", 1, 4, 2, 2)
    kernel = made.weight("k", 4, 4, 1, 1)
    dynamic = made.input("d", 4, 4, 1, 1)
    outs = [
        made.op("alpha", Gemm(alpha=2.0), x, w),
        made.op("trans_a", Gemm(trans_a=True), x, w),
        made.op("row", Gemm(), x, w, made.weight("c", 1, 4)),
        made.op("both", MatMul(), x, made.op("t", Tanh(), x)),
        made.op("three", MatMul(), image, image),
        made.op("deconv", ConvTranspose(), image, kernel),
        made.op("dynamic", Conv(), image, dynamic),
        made.op("clamped", Conv(clamp=(0.5, 1.0)), image, kernel),
        made.op("clip", Clip(min=0.0), image),
    ]
    found = placed(made.returns(*outs))
    assert found["three"].reason.startswith("products of two activations stay float")
    assert {v.name: found[v.name].reason for v in outs} == {
        "alpha": "alpha and beta are not 1",
        "trans_a": "the first operand is transposed",
        "row": "the bias is not one number per output",
        "both": "the weight is no constant",
        "three": found["three"].reason,
        "deconv": "ort-cpu has no integer kernel for 'conv_transpose'",
        "dynamic": "the weight is no constant",
        "clamped": "its clamp leaves out zero, which the integers must hold",
        "clip": "it reads no integer node: casts would cost more than they save",
    }


def test_a_value_without_a_range_leaves_its_readers_float(net: Any, placed: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    made.returns(conv(made, "y", a))
    x, y = made.module.value("x"), made.module.value("y")
    found = placed(made)
    assert found["y"].integer
    for value, user, told in ((x, "a", "%x"), (y, "y", "%y")):
        held, value.type = value.type, value.tensor.with_range(None)
        decisions = {n.name: d for n, d in decide(made.module.graph, ORT).items()}
        assert decisions[user].reason == f"{told} has no calibrated range"
        value.type = held


def test_a_product_that_may_give_floats_needs_no_range_of_its_own(net: Any, placed: Any) -> None:
    made = net()
    a = made.op("a", MatMul(), made.input("x", 3, 4), made.weight("w", 4, 4))
    made.returns(made.op("y", Gemm(), a, made.weight("v", 4, 4)))
    assert placed(made)["a"].result, "the next product takes its integers"
    for name in ("a", "y"):
        value = made.module.value(name)
        held, value.type = value.type, value.tensor.with_range(None)
        found = {n.name: d for n, d in decide(made.module.graph, ORT).items()}
        assert found[name].integer
        assert not found[name].result
        value.type = held


def test_a_what_if_asks_for_other_modes_and_changes_none(net: Any, calibrated: Any) -> None:
    made = net()
    a = conv(made, "a", made.input("x", 1, 4, 4, 4))
    graph = calibrated(made.returns(conv(made, "y", a))).graph
    nodes = {n.name: n for n in graph.nodes()}
    for node in nodes.values():
        node.mode = "INT8"
    asked = {n.name: d for n, d in decide(graph, ORT, {nodes["a"]: "F16"}).items()}
    assert asked["a"].reason == "its mode is F16"
    assert asked["y"].integer
    assert [n.mode for n in nodes.values()] == ["INT8", "INT8"]
    assert all(d.integer for d in decide(graph, ORT, {}).values())


def test_an_unknown_target_names_the_known() -> None:
    with pytest.raises(
        QdqcError, match="unknown target 'ort-gpu'; did you mean 'ort-cpu'"
    ) as caught:
        target_named("ort-gpu")
    assert "known: openvino, ort-cpu, ort-cpu-avx2" in str(caught.value)


def test_without_ranges_nothing_is_quantized(net: Any) -> None:
    made = net()
    made.returns(conv(made, "y", made.input("x", 1, 4, 4, 4)))
    done = run(made.module, "assign-precision,quantize")
    assert [n.op.name for n in done.graph.nodes()] == ["conv"]


def test_an_unknown_scheme_is_told(net: Any) -> None:
    with pytest.raises(QdqcError, match="unknown scheme 'per-chanel'; did you mean 'per-channel'"):
        run(net().module, 'quantize{scheme="per-chanel"}')
