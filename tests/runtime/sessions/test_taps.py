"""What can be looked at, and under which name."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.sessions.taps import Tap, observable, tap_of
from qdqc.text.parser import parse_module

LOWERED = """module @m {opsets = {"" = 17}} {
  graph (%x : f32[4]) -> (%y) {
    %x_q = quantize(%x) : u8[4] q(scale = 0.5, zero_point = 8)
    %x_dq = dequantize(%x_q) : f32[4]
    %r_f = relu(%x_dq) : f32[4]
    %r_q = quantize(%r_f) : u8[4] q(scale = 0.25)
    %r = dequantize(%r_q) : f32[4]
    %t = tanh(%r) : f32[4]
    %y = neg(%t) : f32[4]
  }
}"""


@pytest.fixture
def module() -> Module:
    return parse_module(LOWERED)


def test_each_value_has_one_name_and_integers_stand_behind_it(module: Module) -> None:
    taps = observable(module)
    fetched = {"x": "x", "x_dq": "x_q", "r": "r_q", "t": "t", "y": "y"}
    assert {name: tap.fetched for name, tap in taps.items()} == fetched
    assert [name for name, tap in taps.items() if tap.quant is not None] == ["x_dq", "r"]


def test_a_tap_is_found_by_the_name_of_the_float_value(module: Module) -> None:
    assert tap_of(module, "r").fetched == "r_q"
    assert tap_of(module, "r_q").fetched == "r_q"
    assert tap_of(module, "x_dq").fetched == "x_q"
    assert tap_of(module, "t") == Tap("t")
    quant = tap_of(module, "r").quant
    assert quant is not None
    assert float(quant.scale) == 0.25
    with pytest.raises(QdqcError, match="no value '%rr' to look at; did you mean"):
        tap_of(module, "rr")


def test_numbers_are_scale_times_distance_from_the_zero_point(module: Module) -> None:
    x = np.array([-9.0, -0.3, 0.3, 700.0], np.float32)
    stored = np.clip(np.rint(x / np.float32(0.5)) + 8, 0, 255)
    seen = Runner(module, ["x_dq"]).run({"x": x})["x_dq"]
    np.testing.assert_array_equal(seen, ((stored - 8) * 0.5).astype(np.float32))
    fixed = Runner(module, ["x_dq"], fixed=True).run({"x": x})["x_dq"]
    assert fixed.dtype == np.uint8
    np.testing.assert_array_equal(fixed, stored)
    assert Tap("x").shown(x) is x


def test_taps_compute_as_the_model_does_alone(module: Module) -> None:
    x = np.linspace(-5, 5, 4, dtype=np.float32)
    alone = Runner(module).run({"x": x})["y"]
    every = Runner(module, None).run({"x": x})
    np.testing.assert_array_equal(every["y"], alone)
    np.testing.assert_allclose(every["y"], -np.tanh(every["r"]), rtol=1e-6)
    stored = np.clip(np.rint(x / np.float32(0.5)) + 8, 0, 255)
    np.testing.assert_array_equal(every["r"], np.maximum((stored - 8) * 0.5, 0))
