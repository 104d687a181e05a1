"""Sizes that windows give, against what onnxruntime computes on random settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import qdqc.ops as o
from qdqc.ir.dims import symbol
from qdqc.ir.merge import compatible
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType

AUTO_PADS = st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
IMAGE = st.tuples(st.integers(2, 9), st.integers(2, 9))


def run(type: str, shapes: list[tuple[int, ...]], **attributes: Any) -> tuple[int, ...] | None:
    """The shape that onnxruntime gives to a node on zeros; None where it refuses."""
    names = [f"x{i}" for i in range(len(shapes))]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
    ]
    node = helper.make_node(type, names, ["y"], **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [y])
    # Opset 22 has the formulas of ceil_mode as runtimes compute them.
    opsets = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    feeds = {n: np.zeros(s, np.float32) for n, s in zip(names, shapes, strict=True)}
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, feeds)
    except Exception:  # onnxruntime raises a class for each of its codes
        return None
    return np.asarray(found).shape


def infer(op: Op, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that the op infers, also from symbols; None where it declines."""
    types = [TensorType(Elem.F32, s) for s in shapes]
    try:
        found = op.infer(*types)[0]
    except ValueError:
        return None
    assert isinstance(found, TensorType)
    x = types[0]
    names = {f"s{i}": d for i, d in enumerate(shapes[0]) if i > 1}
    dims = (*shapes[0][:2], *(symbol(n) for n in names))
    (open_, *_) = op.infer(x.with_shape(dims), *types[1:])
    assert isinstance(open_, TensorType)
    assert compatible(open_.substitute(names), found)
    return found.static_shape


def spelt(**attributes: Any) -> dict[str, Any]:
    """Attributes as ONNX takes them: no pads beside auto_pad, no empty lists."""
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        attributes["pads"] = ()
    plain = {k: v for k, v in attributes.items() if v not in ((), "NOTSET")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


@given(
    image=IMAGE,
    kernel=PAIR,
    strides=PAIR,
    dilations=PAIR,
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    auto_pad=AUTO_PADS,
    group=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_conv(image, kernel, strides, dilations, pads, auto_pad, group):
    if auto_pad.startswith("SAME"):
        dilations = (1, 1)  # ONNX leaves open what SAME means with dilations
    shapes = [(1, 4, *image), (6, 4 // group, *kernel)]
    how = {"strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto_pad}
    op = o.Conv(group=group, **how)
    assert infer(op, shapes) == run("Conv", shapes, group=group, **spelt(**how))


@given(
    image=IMAGE,
    kernel=PAIR,
    strides=PAIR,
    dilations=PAIR,
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    auto_pad=AUTO_PADS,
    ceil=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_max_pool(image, kernel, strides, dilations, pads, auto_pad, ceil):
    if auto_pad != "NOTSET":
        dilations, ceil = (1, 1), False
        # Pixels that no window looks at would be negative padding: refused there.
        assume(auto_pad == "VALID" or all(k >= s for k, s in zip(kernel, strides, strict=True)))
    pads = tuple(min(p, kernel[i % 2] - 1) for i, p in enumerate(pads))
    shapes = [(1, 2, *image)]
    how = {"strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto_pad}
    op = o.MaxPool(kernel_shape=kernel, ceil_mode=ceil, **how)
    for i in range(2):
        # Where no window fits onnxruntime may count one: it rounds -1 / 2 toward zero.
        both = pads[i] + pads[2 + i] if auto_pad == "NOTSET" else 0
        assume(dilations[i] * (kernel[i] - 1) < image[i] + both)
    wanted = run("MaxPool", shapes, kernel_shape=list(kernel), ceil_mode=int(ceil), **spelt(**how))
    assert infer(op, shapes) == wanted


@given(
    image=IMAGE,
    kernel=PAIR,
    strides=PAIR,
    dilations=PAIR,
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "VALID"]),
    group=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_conv_transpose(image, kernel, strides, dilations, pads, auto_pad, group):
    shapes = [(1, 4, *image), (4, 3, *kernel)]
    how = {"strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto_pad}
    found = infer(o.ConvTranspose(group=group, **how), shapes)
    wanted = run("ConvTranspose", shapes, group=group, **spelt(**how))
    # Sizes of 0 are refused there and followed here.
    assert found == wanted or (found is not None and 0 in found)


@given(image=IMAGE, kernel=PAIR, strides=PAIR, upper=st.booleans())
@settings(max_examples=20, deadline=None)
def test_conv_transpose_to_the_same_size(image, kernel, strides, upper):
    how: dict[str, Any] = {"strides": strides}
    how["auto_pad"] = "SAME_UPPER" if upper else "SAME_LOWER"
    shapes = [(1, 2, *image), (2, 3, *kernel)]
    wanted = run("ConvTranspose", shapes, **spelt(**how))
    assert wanted is None or infer(o.ConvTranspose(**how), shapes) == wanted


@pytest.mark.parametrize(
    ("x", "weight", "attributes"),
    [
        ((1, 4, 8), (5, 2, 3), {"group": 2}),
        ((1, 4, 8), (8, 3, 3), {}),
        ((1, 4, 2), (8, 4, 3), {}),
        ((1, 4, 8), (8, 4, 3), {"pads": (1,)}),
        ((1, 4, 8), (8, 4, 3), {"strides": (1, 1)}),
    ],
)
def test_what_is_declined_is_refused_by_onnxruntime(x, weight, attributes):
    assert infer(o.Conv(**attributes), [x, weight]) is None
    assert run("Conv", [x, weight], **spelt(**attributes)) is None


@pytest.mark.parametrize("bias", [(3,), (8, 1)])
def test_a_bias_of_another_size_is_declined(bias):
    shapes = [(1, 4, 8), (8, 4, 3), bias]
    assert infer(o.Conv(), shapes) is None
    assert run("Conv", shapes) is None


@pytest.mark.parametrize(
    ("type", "op", "shapes", "attributes"),
    [
        ("ConvTranspose", o.ConvTranspose(), [(1, 4, 8), (3, 5, 3)], {}),
        ("ConvTranspose", o.ConvTranspose(group=3), [(1, 4, 8), (4, 5, 3)], {"group": 3}),
        ("ConvTranspose", o.ConvTranspose(), [(1, 4, 8), (4, 5, 3), (4,)], {}),
        ("Gemm", o.Gemm(), [(1, 3), (3, 4), (5, 4)], {}),
        ("LayerNormalization", o.LayerNormalization(), [(2, 4, 8), (4,)], {}),
        ("LayerNormalization", o.LayerNormalization(), [(1, 8), (2, 1, 8)], {}),
        ("RNN", o.RNN(hidden_size=4), [(5, 2, 3), (1, 4, 3), (1, 4, 5)], {"hidden_size": 4}),
        ("RNN", o.RNN(hidden_size=4), [(5, 2, 3), (2, 4, 3), (2, 4, 4)], {"hidden_size": 4}),
        ("GridSample", o.GridSample(), [(1, 1, 4, 4), (1, 2, 2, 3)], {}),
        ("LRN", o.LRN(size=2), [(1, 4, 2, 2)], {"size": 2}),
        ("PRelu", o.PRelu(), [(1, 4), (3,)], {}),
    ],
)
def test_operands_that_do_not_fit_fit_nowhere(type, op, shapes, attributes):
    """A model that runs is never declined."""
    with pytest.raises(ValueError, match=r"\w"):
        op.infer(*(TensorType(Elem.F32, s) for s in shapes))
    assert run(type, shapes, **attributes) is None


@pytest.mark.parametrize("slope", [(4,), (3, 4), (1, 1, 4), (1,), ()])
def test_slopes_broadcast_as_onnxruntime_has_it(slope):
    shapes = [(1, 4), slope]
    assert infer(o.PRelu(), shapes) == run("PRelu", shapes)


@pytest.mark.parametrize("scale", [(8,), (4, 8), (1, 1, 8), (1,), (2, 4, 8), (4, 1)])
def test_scales_of_layers_broadcast_as_onnxruntime_has_it(scale):
    shapes = [(2, 4, 8), scale]
    assert infer(o.LayerNormalization(), shapes) == run("LayerNormalization", shapes)
