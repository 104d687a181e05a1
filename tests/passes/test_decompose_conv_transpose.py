"""decompose-conv-transpose: the same numbers as onnxruntime's ConvTranspose, in any form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import ConvTranspose
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner

WIDE = Range(-9.0, 9.0, 9.0)


def made(op: ConvTranspose, x: tuple[Any, ...], kernel: tuple[int, ...], outputs: int) -> Module:
    rng = np.random.default_rng(0)
    module = Module("m", {"": 17})
    source = module.graph.add_input("x", TensorType(Elem.F32, x, range=WIDE))
    weight = rng.normal(size=(x[1], outputs, *kernel)).astype(np.float32)
    w = module.add_constant("w", Data.of(weight))
    b = module.add_constant("b", Data.of(rng.normal(size=outputs).astype(np.float32)))
    node = module.graph.insert(op, [source, w, b], None, ["y"], mode="INT8")
    node.result.type = node.result.tensor.with_range(WIDE)
    module.graph.set_outputs([node.result])
    return module


def same_numbers(module: Module, shape: tuple[int, ...]) -> Module:
    after = run(module, "decompose-conv-transpose")
    assert "conv_transpose" not in [n.op.name for n in after.graph.nodes()]
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    wanted, got = (Runner(m, optimise="off", threads=1).run(feeds)["y"] for m in (module, after))
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()))
    return after


@st.composite
def settings_of(draw: st.DrawFn, rank: int) -> tuple[ConvTranspose, tuple[int, ...]]:
    """A ConvTranspose whose result is a whole number of strides, and its kernel."""
    kernel, strides, dilations, extra, before, after = [], [], [], [], [], []
    for _ in range(rank):
        stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        taps, pad = draw(st.integers(1, 5)), draw(st.integers(0, 2))
        more = draw(st.integers(0, stride - 1))  # as onnxruntime allows
        size = more + (taps - 1) * dilation + 1 - pad
        kernel.append(taps)
        strides.append(stride)
        dilations.append(dilation)
        extra.append(more)
        before.append(pad)
        after.append(size % stride + stride * draw(st.integers(0, 1)))
    op = ConvTranspose(
        pads=(*before, *after),
        strides=tuple(strides),
        dilations=tuple(dilations),
        output_padding=tuple(extra),
        clamp=draw(st.sampled_from([None, (0.0, math.inf), (0.0, 1.0)])),
    )
    return op, tuple(kernel)


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_form_of_known_size(rank: int, data: st.DataObject) -> None:
    op, kernel = data.draw(settings_of(rank))
    x = (2, data.draw(st.integers(1, 3)), *(data.draw(st.integers(2, 5)) for _ in range(rank)))
    outputs = data.draw(st.integers(1, 3))
    try:
        module = made(op, x, kernel, outputs)
    except ValueError:  # the pads leave nothing
        assume(False)
        return
    shape = module.graph.outputs[0].tensor.static_shape
    assume(shape is not None and min(shape) > 0)
    same_numbers(module, x)


@settings(max_examples=20, deadline=None)
@given(form=settings_of(2), known=st.sampled_from(["none", "rows", "columns"]))
def test_any_form_of_unknown_size(form: tuple[ConvTranspose, tuple[int, ...]], known: str) -> None:
    sizes = {"none": ("H", "W"), "rows": (4, "W"), "columns": ("H", 4)}[known]
    dims = tuple(symbol(s) if isinstance(s, str) else s for s in sizes)
    op, kernel = form
    try:
        same_numbers(made(op, (symbol("N"), 2, *dims), kernel, 3), (2, 2, 4, 4))
    except ValueError:
        assume(False)


@pytest.mark.parametrize("extra", [{}, {"pads": (1, 1, 1, 1)}])
def test_zeros_in_the_window_cost_no_accuracy(extra: dict[str, Any]) -> None:
    """Of a kernel of 2 nothing is added; of one of 4 each phase has its four taps of nine."""
    kernel = (4, 4) if extra else (2, 2)
    after = same_numbers(
        made(ConvTranspose(strides=(2, 2), **extra), (1, 3, 4, 4), kernel, 2), (1, 3, 4, 4)
    )
    weight = after.constants["w_phases"].data.array()
    assert weight.shape == (8, 3, *((3, 3) if extra else (1, 1)))
    assert (weight.reshape(8, 3, -1) != 0).sum(axis=2).tolist() == [[4 if extra else 1] * 3] * 8
