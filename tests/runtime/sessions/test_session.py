"""Running modules of any stage, with taps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.rooted import rooted_file
from qdqc.quant.arithmetic import dequantize
from qdqc.quant.lowering import is_lowered
from qdqc.runtime.sessions.session import Runner, first_line, open_session
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.runtime.sessions.taps import observable
from qdqc.text.parser import parse_module

Samples = list[dict[str, Any]]


def test_the_float_stage_gives_what_onnxruntime_gives(
    tiny: Module, tiny_onnx: Path, samples: Samples
) -> None:
    session = ort.InferenceSession(str(tiny_onnx), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, samples[0])
    found = Runner(tiny).run(samples[0])
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-5)


def test_all_taps_come_in_graph_order(tiny: Module, samples: Samples) -> None:
    found = Runner(tiny, None).run(samples[0])
    assert list(found) == ["x", "r1", "c2", "r2", "c3", "p", "f", "y"]
    np.testing.assert_array_equal(found["x"], samples[0]["x"])
    np.testing.assert_allclose(found["p"], found["c3"].mean((2, 3), keepdims=True), atol=1e-5)
    np.testing.assert_allclose(found["r2"], np.maximum(found["c2"] + found["r1"], 0), atol=1e-5)


def test_a_quantized_module_runs_as_its_lowered_form(
    quantized: Module, lowered: Module, samples: Samples
) -> None:
    assert not is_lowered(quantized)
    before = export_onnx(lowered)
    one = Runner(quantized, None).run(samples[0])
    other = Runner(lowered, None).run(samples[0])
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
    assert not is_lowered(quantized), "the module itself is not lowered"
    assert export_onnx(lowered) == before


def test_taps_are_the_integers_dequantized(quantized: Module, samples: Samples) -> None:
    fixed = Runner(quantized, ["r1", "c3"], fixed=True).run(samples[0])
    floats = Runner(quantized, ["r1", "c3"]).run(samples[0])
    for name in ("r1", "c3"):
        value = quantized.value(name)
        assert value is not None
        quant = value.tensor.quant
        assert quant is not None
        assert fixed[name].dtype == np.uint8
        assert floats[name].dtype == np.float32
        np.testing.assert_array_equal(floats[name], dequantize(fixed[name], quant))
        # Independent of our arithmetic: real = scale * (stored - zero_point).
        real = (fixed[name].astype(np.float64) - int(quant.zero_point)) * float(quant.scale)
        np.testing.assert_allclose(floats[name], real, rtol=1e-6)


def test_taps_do_not_change_the_outputs(lowered: Module, samples: Samples) -> None:
    for feeds in samples:
        np.testing.assert_array_equal(
            Runner(lowered).run(feeds)["y"], Runner(lowered, None).run(feeds)["y"]
        )


QUANTIZED_OUTPUT = """\
module @m {opsets = {"" = 17}} {
  graph (%x : f32[4]) -> (%y) {
    %y = quantize(%x) : u8[4] q(scale = 0.5, zero_point = 10)
  }
}
"""


def test_an_integer_output_is_dequantized_unless_fixed() -> None:
    module = parse_module(QUANTIZED_OUTPUT)
    x = np.array([-1, 0, 0.6, 3], np.float32)
    found = Runner(module).run({"x": x})["y"]
    np.testing.assert_array_equal(found, np.array([-1, 0, 0.5, 3], np.float32))
    fixed = Runner(module, fixed=True).run({"x": x})["y"]
    np.testing.assert_array_equal(fixed, np.array([8, 10, 11, 16], np.uint8))


def test_an_input_may_be_an_output() -> None:
    module = parse_module("module @m { graph (%x : f32[2]) -> (%x) { } }")
    x = np.ones(2, np.float32)
    assert Runner(module).run({"x": x})["x"] is x


def test_a_quantized_value_is_seen_once_under_its_own_name(lowered: Module) -> None:
    taps = observable(lowered)
    assert {"r1", "c2", "r2", "c3", "y", "x"} <= taps.keys()
    assert not [n for n in taps if n.endswith(("_q", "_f"))]
    assert taps["r1"].fetched == "r1_q"
    assert taps["x"].fetched == "x"
    assert not {"w1", "w2"} & taps.keys(), "weights are no activations"


def test_what_is_missing_is_named(tiny: Module, samples: Samples) -> None:
    with pytest.raises(QdqcError, match=r"no value '%r11' to look at; did you mean 'r1'\?"):
        Runner(tiny, ["r11"])
    with pytest.raises(QdqcError, match=r"the input 'x' is not given(.|\n)*inputs are x"):
        Runner(tiny).run({"y": samples[0]["x"]})
    with pytest.raises(QdqcError, match="onnxruntime can't run the model"):
        Runner(tiny).run({"x": np.ones((1, 5, 8, 8), np.float32)})


def test_what_onnxruntime_says_is_told_without_its_noise(tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    onnx.save(onnx.ModelProto(ir_version=99, graph=onnx.GraphProto(name="g")), path)
    with pytest.raises(QdqcError, match="onnxruntime can't load the model") as caught:
        open_session(str(path))
    assert "[ONNXRuntimeError]" not in str(caught.value)
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/onnxruntime_src/"
        "onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(int&&) It is too new\nmore"
    )
    assert first_line(RuntimeError(text)) == "It is too new"
    assert first_line(RuntimeError("")) == "RuntimeError"


def test_external_data_are_found_from_memory(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_onnx))
    target = tmp_path / "big.onnx"
    onnx.save(model, str(target), save_as_external_data=True, size_threshold=0)
    session = open_session(rooted_file(target))
    assert session.get_outputs()[0].name == "y"


@pytest.mark.parametrize("stage", ["tiny", "quantized", "lowered"])
@pytest.mark.parametrize("lean", [False, True])
def test_a_cut_runner_gives_the_values_of_the_whole(
    stage: str, lean: bool, samples: Samples, request: pytest.FixtureRequest
) -> None:
    module: Module = request.getfixturevalue(stage)
    whole = Runner(module, None, threads=1).run(samples[0])
    for name in ("r1", "c3", "y"):
        found = Runner(module, [name], cut=True, lean=lean, threads=1).run(samples[0])
        assert list(found) == [name]
        np.testing.assert_allclose(found[name], whole[name], atol=1e-5)


def test_runners_that_share_weights_give_the_same_numbers(
    tiny: Module, lowered: Module, samples: Samples
) -> None:
    weights = Weights()
    for module in (tiny, lowered, tiny):
        alone = Runner(module, threads=1).run(samples[0])["y"]
        shared = Runner(module, threads=1, weights=weights).run(samples[0])["y"]
        np.testing.assert_array_equal(shared, alone)


QUANTIZED_INPUT = """\
module @m {opsets = {"" = 17}} {
  graph (%x : u8[4] q(scale = 0.5, zero_point = 10)) -> (%y) {
    %d = dequantize(%x) : f32[4]
    %y = neg(%d) : f32[4]
  }
}
"""


def test_a_quantized_input_takes_integers_or_floats_that_are_rounded() -> None:
    runner = Runner(parse_module(QUANTIZED_INPUT))
    floats = np.array([-1, 0.2, 0.3, 500], np.float32)
    stored = np.array([8, 10, 11, 255], np.uint8)
    wanted = -(stored.astype(np.float32) - 10) * 0.5
    np.testing.assert_array_equal(runner.run({"x": stored})["y"], wanted)
    np.testing.assert_array_equal(runner.run({"x": floats})["y"], wanted)


def test_levels_of_optimisation_agree(lowered: Module, samples: Samples) -> None:
    off = Runner(lowered, optimise="off", threads=1).run(samples[0])["y"]
    for level in ("basic", "extended", "all"):
        found = Runner(lowered, optimise=level, threads=1).run(samples[0])["y"]
        np.testing.assert_allclose(found, off, atol=0.02 * float(np.ptp(off)))
