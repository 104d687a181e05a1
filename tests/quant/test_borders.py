"""What a deployed graph takes and gives: floats, their integers, or the pixels of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Add, Conv, Gemm, Reshape
from qdqc.pipeline.manager import run
from qdqc.quant.arithmetic import dequantize, quantize
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.comparison.check import taken
from qdqc.runtime.sessions.session import Runner

BEFORE, AFTER = "assign-precision", "quantize,{},verify-target,lower-to-qdq"


@pytest.fixture
def network(net: Any, calibrated: Any) -> Module:
    """An image through a Conv to 5 numbers."""
    made = net()
    x = made.input("x", 1, 3, 8, 8)
    a = made.op("a", Conv(clamp=(0.0, np.inf)), x, made.weight("w", 4, 3, 8, 8))
    flat = made.op("f", Reshape(), a, made.const("shape", np.array([1, 4])))
    made.returns(made.op("y", Gemm(), flat, made.weight("v", 4, 5), made.weight("c", 5)))
    return calibrated(made)


def onnx_run(module: Module, feeds: dict[str, Any]) -> Any:
    session = ort.InferenceSession(export_onnx(module).SerializeToString())
    return session.run(None, feeds)[0]


def stripped(module: Module, how: str) -> Module:
    return run(module, f"{BEFORE},{AFTER.format(how)}")


def test_integers_at_both_ends_are_those_of_the_casts(network: Module) -> None:
    plain = stripped(network, "canonicalize")
    bare = stripped(network, "strip-casts{inputs=true outputs=true}")
    x, y = bare.graph.inputs[0], bare.graph.outputs[0]
    assert (x.name, y.name) == ("x", "y")
    assert (x.tensor.elem, y.tensor.elem) == (Elem.U8, Elem.U8)
    assert x.tensor.quant is not None
    assert y.tensor.quant is not None
    image = np.random.default_rng(1).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    stored = quantize(image, x.tensor.quant, Elem.U8)
    found = onnx_run(bare, {"x": stored})
    assert found.dtype == np.uint8
    floats = onnx_run(plain, {"x": image})
    np.testing.assert_array_equal(found, quantize(floats, y.tensor.quant, Elem.U8))
    # A runner takes the floats as well, and gives numbers.
    shown = Runner(bare).run({"x": image})["y"]
    np.testing.assert_allclose(shown, dequantize(found, y.tensor.quant), rtol=1e-6)


def test_an_output_behind_a_cast_is_its_integers(net: Any, calibrated: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 8, 8)
    made.returns(made.op("y", Conv(), x, made.weight("w", 4, 3, 3, 3)))
    bare = stripped(calibrated(made), "strip-casts{outputs=true}")
    assert [n.op.name for n in bare.graph.nodes()].count("quantize") == 2
    assert bare.graph.outputs[0].tensor.elem is Elem.U8
    assert bare.graph.outputs[0].name == "y"


def test_floats_that_others_read_come_from_the_integers(net: Any, calibrated: Any) -> None:
    made = net()
    x = made.input("x", 1, 3, 8, 8)
    y = made.op("y", Conv(), x, made.weight("w", 3, 3, 1, 1))
    made.returns(y, made.op("z", Add(), x, made.weight("b", 8)))
    table = run(calibrated(made), "assign-precision")
    table.value("z").producer.mode = "F32"  # pyright: ignore[reportOptionalMemberAccess]
    bare = run(table, AFTER.format("strip-casts{inputs=true}"))
    assert bare.graph.inputs[0].tensor.elem is Elem.U8
    image = made.feeds(1)["x"]
    quant = bare.graph.inputs[0].tensor.quant
    assert quant is not None
    stored = quantize(image, quant, Elem.U8)
    session = ort.InferenceSession(export_onnx(bare).SerializeToString())
    z = session.run(["z"], {"x": stored})[0]
    b = np.asarray(made.module.constants["b"].data.array())
    np.testing.assert_allclose(z, dequantize(stored, quant) + b, rtol=1e-5, atol=1e-5)


def test_an_input_that_is_read_in_float_is_quantized_by_its_range(
    net: Any, calibrated: Any, tmp_path: Path
) -> None:
    """The float product behind its cast stays one: onnxruntime rounds no weights of it."""
    made = net()
    x = made.input("x", 1, 3, 8, 8)
    a = made.op("a", Conv(), x, made.weight("w", 4, 3, 3, 3))
    made.returns(made.op("y", Conv(), a, made.weight("v", 4, 4, 1, 1)))
    named = run(calibrated(made), "assign-precision")
    named.value("a").producer.mode = "F32"  # pyright: ignore[reportOptionalMemberAccess]
    bare = run(named, AFTER.format("strip-casts{inputs=true}"))
    quant = bare.graph.inputs[0].tensor.quant
    assert quant is not None
    path = tmp_path / "bare.onnx"
    onnx.save(export_onnx(bare), path)
    kernels = [n.op_type for n in optimised_model(path).graph.node]
    assert (kernels.count("Conv"), kernels.count("QLinearConv")) == (1, 1)
    image = made.feeds(1)["x"]
    stored = quantize(image, quant, Elem.U8)
    plain = run(named, "quantize,lower-to-qdq")
    found = onnx_run(bare, {"x": stored})
    np.testing.assert_allclose(found, onnx_run(plain, {"x": dequantize(stored, quant)}), atol=1e-5)


def test_what_has_no_scale_stays_float(network: Module, capsys: pytest.CaptureFixture[str]) -> None:
    network.graph.inputs[0].type = network.graph.inputs[0].tensor.with_range(None)
    bare = run(network, "strip-casts{inputs=true}")
    assert bare.graph.inputs[0].tensor.elem is Elem.F32
    assert "input 'x' stays float: it has no calibrated range" in capsys.readouterr().err
    network.graph.outputs[0].type = network.graph.outputs[0].tensor.with_range(None)
    bare = run(network, "strip-casts{outputs=true}")
    assert bare.graph.outputs[0].tensor.elem is Elem.F32
    assert "output 'y' stays float: it has no calibrated range" in capsys.readouterr().err


PIXELS = np.random.default_rng(5).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize(
    ("stated", "direct"),
    [
        (Preprocess(mean=(127.0,) * 3, scale=(1 / 128,) * 3), True),
        (Preprocess(mean=(123.7, 116.3, 103.5), scale=(0.017, 0.018, 0.0174)), False),
        (Preprocess(mean=(127.5,) * 3, scale=(1 / 128,) * 3), False),
    ],
)
@pytest.mark.parametrize("mode", ["INT8", "F32"])
def test_pixels(network: Module, stated: Preprocess, direct: bool, mode: str) -> None:
    network.graph.input_attrs["x"] = stated.to_attrs()
    shape = (1, 3, 1, 1)
    mean, scale = (np.array(v, np.float32).reshape(shape) for v in (stated.mean, stated.scale))
    numbers = ((PIXELS - mean) * scale).astype(np.float32)
    before, after = f"assign-precision{{mode={mode}}}", "quantize,verify-target,lower-to-qdq"
    plain = run(network, f"{before},{after}")
    fused = run(network, f"{before},fuse-preprocess,{after}")
    assert fused.graph.inputs[0].tensor.elem is Elem.U8
    quant = fused.graph.inputs[0].tensor.quant
    assert (quant is not None) == (direct and mode == "INT8")
    found = onnx_run(fused, {"x": PIXELS})
    wanted = onnx_run(plain, {"x": numbers})
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())
    if quant is not None:
        # Nothing is rounded: pixels are the numbers.
        np.testing.assert_allclose(dequantize(PIXELS, quant), numbers, rtol=1e-6)
    back = taken(fused, network, {"x": numbers})["x"]
    np.testing.assert_array_equal(back, PIXELS)


def test_an_image_file_is_taken_by_either_graph(network: Module, tmp_path: Path) -> None:
    from PIL import Image

    from qdqc.data.dataset import open_dataset

    path = tmp_path / "a.png"
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(path)
    stated = Preprocess(mean=(127.0,) * 3, scale=(1 / 128,) * 3, pixel_format="rgb")
    network.graph.input_attrs["x"] = stated.to_attrs()
    direct = run(network, "assign-precision,fuse-preprocess,quantize,lower-to-qdq")
    spelt = run(network, "assign-precision{mode=F32},fuse-preprocess")
    shown = Runner(direct).run(next(iter(open_dataset(path, direct.graph))))["y"]
    np.testing.assert_array_equal(shown, onnx_run(direct, {"x": PIXELS}))
    sample = next(iter(open_dataset(path, spelt.graph)))["x"]
    np.testing.assert_array_equal(sample, PIXELS)


def test_no_image_is_told(network: Module) -> None:
    with pytest.raises(QdqcError, match="no input is an image whose preprocessing is known"):
        run(network, "fuse-preprocess")
