"""Products as rows and columns, against onnxruntime and against unrolling by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Constant
from qdqc.ir.op import Op
from qdqc.ops import Conv, Gemm, MatMul, Relu
from qdqc.runtime.sessions.session import Runner
from qdqc.tuning.columns import Product, columns_of_conv, product_of

RNG = np.random.default_rng(5)
EVERY = 1 << 20

CASES: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...]]] = {
    "conv": (Conv(), (2, 3, 6, 5), (4, 3, 3, 2)),
    "pads": (Conv(pads=(1, 0, 2, 1)), (2, 3, 6, 5), (4, 3, 3, 2)),
    "strides": (
        Conv(strides=(2, 3), dilations=(2, 1), pads=(1, 1, 1, 1)),
        (1, 2, 9, 8),
        (5, 2, 3, 3),
    ),
    "groups": (Conv(group=2), (2, 4, 5, 5), (6, 2, 3, 3)),
    "depthwise": (Conv(group=4, pads=(1, 1, 1, 1)), (2, 4, 5, 5), (8, 1, 3, 3)),
    "1-d": (Conv(strides=(2,), pads=(0, 3)), (2, 3, 9), (4, 3, 4)),
    "3-d": (Conv(pads=(1, 0, 1, 0, 1, 1)), (2, 2, 3, 4, 3), (4, 2, 2, 2, 2)),
    "gemm": (Gemm(), (6, 5), (5, 4)),
    "gemm, transposed": (Gemm(trans_b=True), (6, 5), (4, 5)),
    "matmul": (MatMul(), (2, 3, 5), (5, 4)),
    "matmul of a vector": (MatMul(), (5,), (5, 4)),
}


def products(net: Any, case: str) -> tuple[Product, npt.NDArray[Any], npt.NDArray[Any]]:
    """The product, what it reads and what onnxruntime gives."""
    op, x, w = CASES[case]
    module, node = net(op, x, RNG.normal(size=w).astype(np.float32))
    found = product_of(node)
    assert isinstance(found, Product)
    given_ = RNG.normal(size=x).astype(np.float32)
    return found, given_, Runner(module, optimise="off").run({"x": given_})["y"]


@pytest.mark.parametrize("case", CASES)
def test_rows_times_columns_are_the_results(net: Any, case: str) -> None:
    found, x, y = products(net, case)
    rows, columns = found.rows(found.weight.data.array()), found.columns.picked(x, EVERY)
    out = rows @ columns.transpose(0, 2, 1)  # [G,O,n]
    is_conv = bool(found.columns.kernel)
    expected = np.moveaxis(y, 1 if is_conv else -1, 0).reshape(*out.shape)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert rows.shape == found.rows_shape


@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_all_columns(net: Any, case: str) -> None:
    found, x, _ = products(net, case)
    columns = found.columns.picked(x, EVERY)
    sums, count = found.columns.sums(x)
    assert count == columns.shape[1]
    np.testing.assert_allclose(sums, columns.sum(axis=1, dtype=np.float64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_go_back_to_the_weight(net: Any, case: str) -> None:
    found, _, _ = products(net, case)
    weight = found.weight.data.array()
    np.testing.assert_array_equal(found.as_weight(found.rows(weight)), weight)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    """Sums need no columns, columns no sums: they agree for any strides, dilations and pads."""
    draw = data.draw
    rank, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    op = Conv(
        group=group,
        strides=tuple(draw(st.integers(1, 3)) for _ in kernel),
        dilations=tuple(draw(st.integers(1, 2)) for _ in kernel),
        pads=tuple(draw(st.integers(0, 2)) for _ in range(2 * rank)),
    )
    columns = columns_of_conv(op, kernel)
    size = [draw(st.integers(5, 9)) for _ in kernel]
    x = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(2, 2 * group, *size))
    picked = columns.picked(x.astype(np.float32), EVERY)
    sums, count = columns.sums(x.astype(np.float32))
    assert picked.shape[:2] == (group, count)
    np.testing.assert_allclose(sums, picked.sum(axis=1), rtol=1e-4, atol=1e-4)


def test_columns_are_drawn_evenly_and_each_once(net: Any) -> None:
    _, node = net(MatMul(), (100, 1), np.ones((1, 1), np.float32))
    found = product_of(node)
    assert isinstance(found, Product)
    x = np.arange(100, dtype=np.float32).reshape(100, 1)
    drawn = found.columns.picked(x, 40)[0, :, 0]
    assert len(set(drawn.tolist())) == 40
    assert 30 < drawn.mean() < 70


def test_no_columns_may_be_drawn(net: Any) -> None:
    for case in ("pads", "matmul"):
        found, x, _ = products(net, case)
        groups, _, depth = found.rows_shape
        assert found.columns.picked(x, 0).shape == (groups, 0, depth)


REFUSED = {
    "SAME_UPPER": (Conv(auto_pad="SAME_UPPER"), (1, 2, 4, 4), (2, 2, 3, 3)),
    "transposes": (Gemm(trans_a=True), (5, 6), (5, 4)),
    "scales": (Gemm(alpha=0.5), (6, 5), (5, 4)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_product_says_why(net: Any, reason: str) -> None:
    op, x, w = REFUSED[reason]
    _, node = net(op, x, np.ones(w, np.float32))
    found = product_of(node)
    assert isinstance(found, str)
    assert reason in found


def test_a_product_of_two_activations_has_no_weight(net: Any) -> None:
    module, node = net(MatMul(), (3, 3), np.ones((3, 3), np.float32))
    node.set_operand(1, module.graph.inputs[0])
    assert product_of(node) == "its weight is not a constant"
    relu = module.graph.insert(Relu(), [node.result], None, ["r"])
    assert product_of(relu) == "it is not a product with a weight"


@pytest.mark.parametrize(
    ("case", "bias", "takes"),
    [
        ("conv", None, True),
        ("conv", (4,), True),
        ("gemm", None, True),
        ("gemm", (4,), True),
        ("gemm", (6, 4), False),
        ("gemm", (1,), False),
        ("matmul", None, False),
        ("matmul", (4,), True),
        ("matmul", (1, 4), True),
    ],
)
def test_who_takes_a_bias(net: Any, case: str, bias: tuple[int, ...] | None, takes: bool) -> None:
    """A matmul without one would pay an Add for it."""
    op, x, w = CASES[case]
    held = None if bias is None else np.ones(bias, np.float32)
    _, node = net(op, x, RNG.normal(size=w).astype(np.float32), held)
    found = product_of(node)
    assert isinstance(found, Product)
    assert found.takes_bias is takes
    if not takes:
        return
    found.add_to_bias(np.arange(4.0))
    made = node.at(2)
    assert isinstance(made, Constant)
    expected = np.arange(4.0) + (0 if bias is None else 1)
    np.testing.assert_array_equal(made.data.array(), expected.reshape(bias or (4,)))
