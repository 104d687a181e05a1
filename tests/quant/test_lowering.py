"""Names in quantized and lowered modules, and integers against a simulation in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.ir.core import Value
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Quant
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Add, Conv, Dequantize, HardSwish, Quantize
from qdqc.pipeline.manager import run
from qdqc.quant.lowering import is_lowered
from qdqc.runtime.sessions.session import Runner, open_session
from qdqc.text.parser import parse_module

RELU = (0.0, math.inf)


def residual(net: Any) -> Any:
    """x -> a (relu) -> b; y = a + b, a float output; z = conv(y)."""
    made = net()
    x = made.input("x", 1, 3, 5, 5)
    a = made.op("a", Conv(clamp=RELU), x, made.weight("wa", 4, 3, 1, 1), made.weight("ba", 4))
    b = made.op("b", Conv(pads=(1,) * 4), a, made.weight("wb", 4, 4, 3, 3), made.weight("bb", 4))
    s = made.op("s", Add(), a, b)
    z = made.op("z", Conv(), s, made.weight("wz", 2, 4, 1, 1))
    return made.returns(z)


def names(module: Module) -> dict[str, str]:
    return {n.name: n.op.name for n in module.graph.nodes()}


def test_names_in_the_typed_module(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    assert names(done.typed) == {
        "x_q": "quantize", "a": "conv", "b": "conv", "s": "add", "z_i": "conv", "z": "dequantize",
    }  # fmt: skip
    assert {"wa", "ba", "wb", "bb", "wz"} == set(done.typed.constants)
    assert done.typed.constants["wa"].tensor.elem is Elem.I8
    assert done.typed.constants["ba"].tensor.elem is Elem.I32


def test_names_in_the_lowered_module(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    casts = {"quantize", "dequantize"}
    assert names(done.lowered) == {
        "x_q": "quantize", "x_dq": "dequantize", "wa": "dequantize", "ba": "dequantize",
        "a_f": "conv", "a_q": "quantize", "a": "dequantize",
        "wb": "dequantize", "bb": "dequantize",
        "b_f": "conv", "b_q": "quantize", "b": "dequantize",
        "s_f": "add", "s_q": "quantize", "s": "dequantize",
        "wz": "dequantize", "z_i_f": "conv", "z_i": "quantize", "z": "dequantize",
    }  # fmt: skip
    assert is_lowered(done.lowered)
    assert not is_lowered(done.typed)
    assert {"wa_q", "ba_q", "wb_q", "bb_q", "wz_q"} == set(done.lowered.constants)
    for node in done.lowered.graph.nodes():
        if node.op.name not in casts:
            assert all(v.tensor.quant is None for v in (*node.present_operands, node.result))


def test_every_lowered_node_has_a_location(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    found = {n.name: n.loc.names for n in done.lowered.graph.nodes()}
    assert all(found.values())
    assert found["a"] == found["a_q"] == found["a_f"] == ("/a",)


def test_names_keep_their_meaning(net: Any, quantized: Any) -> None:
    """A tap on a name gives the float value within a few steps, in every stage."""
    done = quantized(residual(net))
    taps = ["a", "b", "s", "x", "z"]
    runs = [
        Runner(m, taps, optimise="off").run(done.feeds[0])
        for m in (done.float, done.typed, done.lowered)
    ]
    for name in taps:
        held = done.ranges[name]
        step = (held.max - min(held.min, 0)) / 255
        np.testing.assert_array_equal(runs[1][name], runs[2][name])
        assert np.abs(runs[0][name] - runs[2][name]).max() <= 8 * step, name


def test_taps_cost_no_integer_kernel(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    plain = Runner(done.lowered).run(done.feeds[0])
    tapped = Runner(done.lowered, ["a", "b", "s"]).run(done.feeds[0])
    np.testing.assert_array_equal(plain["z"], tapped["z"])


def test_a_border_inside_the_graph(net: Any, quantized: Any) -> None:
    """A float op between two convolutions: the value keeps its float name beside its view."""
    made = net()
    a = made.op("a", Conv(), made.input("x", 1, 3, 5, 5), made.weight("wa", 4, 3, 1, 1))
    h = made.op("h", HardSwish(), a)
    done = quantized(made.returns(made.op("z", Conv(), h, made.weight("wz", 2, 4, 1, 1))))
    found = names(done.lowered)
    assert [n for n in found if n.startswith(("a", "h"))] == ["a_f", "a_q", "a", "h", "h_q", "h_dq"]
    assert found["h"] == "hard_swish"


def test_taken_names_are_left_alone(net: Any, quantized: Any) -> None:
    """The user's own %a_q and %a_f are other values: they keep their names and numbers."""
    made = net()
    x = made.input("a_q", 1, 3, 5, 5)
    a = made.op("a", Conv(), x, made.weight("a_f", 4, 3, 1, 1))
    done = quantized(made.returns(made.op("z", Conv(), a, made.weight("z_q", 2, 4, 1, 1))))
    assert done.lowered.graph.inputs[0].name == "a_q"
    assert done.lowered.value("a_f").producer.op == Dequantize()  # type: ignore[union-attr]


def test_lowering_twice_changes_nothing(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    again = run(done.lowered, "lower-to-qdq")
    assert names(again) == names(done.lowered)
    before = run(done.float, "lower-to-qdq")
    assert names(before) == names(done.float)


def test_quantizing_twice_changes_nothing(net: Any, quantized: Any) -> None:
    done = quantized(residual(net))
    again = run(done.typed, "assign-precision,quantize")
    assert names(again) == names(done.typed)


def test_integers_at_the_models_border_keep_their_names() -> None:
    """A u8 input and a u8 output; the output is read inside the graph as well."""
    module = parse_module("""
module @m {
  const %c : u8[] q(scale = 0.5) = dense[3]
  graph (%x : u8[4] q(scale = 0.5, zero_point = 128)) -> (%y, %z) {
    %y = add(%x, %c) : u8[4] q(scale = 1, zero_point = 100)
    %d = dequantize(%y) : f32[4]
    %z = tanh(%d) : f32[4]
  }
}""")
    lowered = run(module, "lower-to-qdq")
    assert names(lowered) == {
        "x_dq": "dequantize", "c": "dequantize", "y_f": "add", "y": "quantize",
        "y_dq": "dequantize", "z": "tanh",
    }  # fmt: skip
    for optimise in ("off", "all"):
        x = np.array([0, 127, 128, 255], np.uint8)
        y, z = open_session(export_onnx(lowered), optimise=optimise).run(None, {"x": x})
        real = np.rint((x.astype(np.int64) - 128) * 0.5 + 1.5)
        np.testing.assert_array_equal(y, (real + 100).astype(np.uint8))
        np.testing.assert_allclose(z, np.tanh(real), rtol=1e-5)
        got = Runner(module, optimise=optimise).run({"x": x})  # as the IR's numbers are
        np.testing.assert_array_equal(got["y"], real)


def stored(array: npt.NDArray[Any], quant: Quant) -> npt.NDArray[np.int64]:
    """q = clamp(round(real / s) + zp, 0, 255), in float64."""
    real = array.astype(np.float64) / float(quant.scale)
    return np.clip(np.rint(real) + int(quant.zero_point), 0, 255).astype(np.int64)


def convolve(x: npt.NDArray[Any], w: npt.NDArray[Any], pad: int) -> npt.NDArray[np.int64]:
    """A convolution of integers, window by window."""
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("ncijkl,ockl->noij", windows.astype(np.int64), w.astype(np.int64))


def simulate(module: Module, node: str, x: npt.NDArray[np.int64], pad: int) -> npt.NDArray[Any]:
    """The stored result of an integer convolution: sums of integers, then one rounding."""
    value = module.value(node)
    assert value is not None
    assert value.producer is not None
    source, weight, bias = (*value.producer.operands, None)[:3]
    assert source is not None
    held: Any = weight
    sums = convolve(x - int(source.tensor.quant.zero_point), held.data.array(), pad)
    if bias is not None:
        numbers: Any = bias
        sums = sums + numbers.data.array().astype(np.int64)[None, :, None, None]
    scale = float(source.tensor.quant.scale) * held.tensor.quant.scale.astype(np.float64)
    return stored(sums * scale[None, :, None, None], value.tensor.quant)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimise", ["off", "all"])
def test_integers_against_a_simulation(net: Any, quantized: Any, optimise: str) -> None:
    """Convolution, convolution, add, convolution: within one step at each rounding."""
    done = quantized(residual(net))
    typed = done.typed

    def quant(name: str) -> Quant:
        value: Value | None = typed.value(name)
        assert value is not None
        assert value.tensor.quant is not None
        return value.tensor.quant

    taps = ["a", "b", "s"]
    for feed in done.feeds:
        got = Runner(typed, taps, optimise=optimise).run(feed)
        x = stored(feed["x"], quant("x_q"))
        real = {n: stored(got[n], quant(n)) for n in taps}
        # Each stage starts from what onnxruntime made of the one before: steps don't add up.
        a = simulate(typed, "a", x, 0)
        b = simulate(typed, "b", real["a"], 1)
        numbers = [(real[n] - int(quant(n).zero_point)) * float(quant(n).scale) for n in ("a", "b")]
        s = stored(numbers[0] + numbers[1], quant("s"))
        z = simulate(typed, "z_i", real["s"], 0)
        found = {**real, "z": stored(got["z"], quant("z_i"))}
        for name, wanted in (("a", a), ("b", b), ("s", s), ("z", z)):
            off = np.abs(found[name] - wanted)
            assert off.max() <= 1, name
            assert (off > 0).mean() < 0.02, name


def test_casts_of_one_value_are_made_once(net: Any, quantized: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 5, 5)
    h = made.op("h", HardSwish(), x)
    outs = [made.op(f"y{i}", Conv(), h, made.weight(f"w{i}", 2, 3, 1, 1)) for i in range(3)]
    done = quantized(made.returns(*outs))
    kinds = [n.op for n in done.typed.graph.nodes()]
    assert kinds.count(Quantize()) == 1
    assert kinds.count(Dequantize()) == 3
