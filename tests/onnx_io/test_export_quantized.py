"""QuantizeLinear and DequantizeLinear as they go out, against the formula in numpy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from protos import opset_of

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.ops.elementwise import Add
from qdqc.ops.quant import Dequantize, Quantize
from qdqc.text.printer import print_module

X = np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 3, 2)
LIMITS = {"u8": (0, 255), "i8": (-128, 127), "u16": (0, 65535), "i16": (-32768, 32767)}


def run(proto, feed):
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, feed)


def quantized(elem, quant, shape=(2, 3, 2)):
    """x -> quantize -> dequantize -> y."""
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, shape))
    stored = TensorType(Elem.named(elem), shape, quant)
    q = module.graph.insert(Quantize(), [x], [stored], ["y_q"]).result
    y = module.graph.insert(Dequantize(), [q], names=["y"]).result
    module.graph.set_outputs([y])
    return module


def by_formula(x, quant, elem):
    low, high = LIMITS[elem]
    shape = [1] * x.ndim
    if quant.axis is not None:
        shape[quant.axis] = -1
    scale, zero = (a.reshape(shape) for a in (quant.scale, quant.zero_point))
    return ((np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize(
    ("elem", "quant", "opset"),
    [
        ("u8", Quant.make(0.05, 128), 13),
        ("u8", Quant.make(0.01, 0), 13),
        ("i8", Quant.make(0.05, -3), 13),
        ("u8", Quant.make([0.05, 0.02], [3, 250], axis=0), 13),
        ("i8", Quant.make([0.05, 0.02, 0.001], [1, 0, -1], axis=1), 13),
        ("i8", Quant.make([0.05, 0.02], 0, axis=2), 13),
        ("u16", Quant.make(0.001, 30000), 21),
        ("i16", Quant.make([0.0001, 0.001], 0, axis=0), 21),
    ],
)
def test_numbers_and_the_lowest_opset(elem, quant, opset):
    module = quantized(elem, quant)
    proto = export_onnx(module)
    assert opset_of(proto) == opset
    (found,) = run(proto, {"x": X})
    np.testing.assert_allclose(found, by_formula(X, quant, elem), rtol=1e-6)
    with pytest.raises(QdqcError, match=f"opset {opset - 1} can't spell it"):
        export_onnx(module, opset=opset - 1)
    for newer in (opset, 21, 24):
        (again,) = run(export_onnx(module, opset=newer), {"x": X})
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("elem", ["u8", "i8", "u16", "i16"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_types_come_back(elem, axis):
    count = 1 if axis is None else (2, 3, 2)[axis]
    scales = np.arange(1, count + 1) / 100
    quant = Quant.make(scales[0] if axis is None else scales, 1, axis)
    module = quantized(elem, quant)
    module.name = "main"
    again = import_onnx(export_onnx(module))
    assert again.value("y_q").type == module.value("y_q").type
    module.opsets = again.opsets
    for node in module.walk():
        node.loc = next(n.loc for n in again.walk() if n.name == node.name)
    assert print_module(again) == print_module(module)


def weight(quant, elem=Elem.I8, axis=None, shape=(2, 3)):
    """A constant behind a dequantize, added to x."""
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, shape))
    codes = np.arange(np.prod(shape)).reshape(shape) - (0 if elem.limits[0] == 0 else 3)
    data = Data.of(codes.astype(elem.dtype), elem)
    held = module.add_constant("w", data, TensorType(elem, shape, quant))
    w = module.graph.insert(Dequantize(axis=axis), [held], names=["w_f"]).result
    module.graph.set_outputs([module.graph.insert(Add(), [x, w], names=["y"]).result])
    return module, codes


def initializers(proto):
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


@pytest.mark.parametrize("axis", [0, 1])
def test_dequantize_with_an_axis_writes_one_scale_for_each_channel(axis):
    module, codes = weight(Quant.make(0.5, 2), axis=axis)
    proto = export_onnx(module)
    assert opset_of(proto) == 13
    node = proto.graph.node[0]
    assert [(a.name, a.i) for a in node.attribute] == [("axis", axis)]
    held = initializers(proto)
    count = (2, 3)[axis]
    assert held[node.input[1]].tolist() == [0.5] * count
    assert held[node.input[2]].tolist() == [2] * count
    assert held[node.input[2]].dtype == np.int8
    (found,) = run(proto, {"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(found, (codes - 2) * np.float32(0.5))


def test_dequantize_without_an_axis_writes_one():
    proto = export_onnx(weight(Quant.make(0.5, 2))[0])
    assert opset_of(proto) == 13
    held = initializers(proto)
    assert held["w_f_scale"].shape == held["w_f_zero_point"].shape == ()
    assert not proto.graph.node[0].attribute


def test_an_int32_bias_has_int32_zero_points():
    quant = Quant.make([0.5, 0.25, 2.0], 0, axis=0)
    module, codes = weight(quant, Elem.I32, shape=(3,))
    proto = export_onnx(module)
    held = {t.name: t for t in proto.graph.initializer}
    assert held["w"].data_type == TensorProto.INT32
    assert held["w_f_zero_point"].data_type == TensorProto.INT32
    (found,) = run(proto, {"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(found, codes * np.array([0.5, 0.25, 2], np.float32))
    again = import_onnx(proto)
    assert again.constants["w"].type == module.constants["w"].type


@pytest.mark.parametrize(("elem", "low"), [(Elem.I4, -8), (Elem.U4, 0)])
def test_four_bits_are_packed(elem, low):
    quant = Quant.make([0.5, 0.25], 0, axis=0)
    module, _ = weight(quant, elem)
    codes = np.array([[low, low + 1, low + 15], [low + 7, low + 8, low + 14]])
    module.constants["w"].data = Data.of(codes.astype(elem.dtype), elem)
    proto = export_onnx(module)
    assert opset_of(proto) == 21
    assert proto.ir_version == 10
    held = next(t for t in proto.graph.initializer if t.name == "w")
    assert len(held.raw_data) == 3
    (found,) = run(proto, {"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(found, codes * np.array([[0.5], [0.25]], np.float32))


def test_blocks_go_out_with_their_size():
    scales = np.array([[0.5, 0.25], [1.0, 2.0]], np.float32)
    quant = Quant.make(scales, 0, axis=1, block=2)
    module, codes = weight(quant, Elem.I8, shape=(2, 4))
    proto = export_onnx(module)
    attrs = {a.name: a.i for a in proto.graph.node[0].attribute}
    assert attrs == {"axis": 1, "block_size": 2}
    assert opset_of(proto) == 21
    (found,) = run(proto, {"x": np.zeros((2, 4), np.float32)})
    np.testing.assert_array_equal(found, codes * np.repeat(scales, 2, axis=1))
    assert import_onnx(proto).constants["w"].type == module.constants["w"].type


def chain(*quants):
    """x through as many pairs of quantize and dequantize."""
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (4,)))
    for index, (elem, quant) in enumerate(quants):
        stored = TensorType(elem, (4,), quant)
        q = module.graph.insert(Quantize(), [x], [stored], [f"v{index}_q"]).result
        x = module.graph.insert(Dequantize(), [q], names=[f"v{index}"]).result
    module.graph.set_outputs([x])
    return module


def test_equal_parameters_are_one_initializer():
    quant = Quant.make(0.5, 3)
    proto = export_onnx(chain((Elem.U8, quant), (Elem.U8, Quant.make(0.5, 3))))
    assert sorted(initializers(proto)) == ["v0_q_scale", "v0_q_zero_point"]
    assert {tuple(n.input[1:]) for n in proto.graph.node} == {("v0_q_scale", "v0_q_zero_point")}


def test_parameters_that_differ_in_type_or_number_are_not_shared():
    quant, other = Quant.make(0.5, 3), Quant.make(0.5, 4)
    proto = export_onnx(chain((Elem.U8, quant), (Elem.I8, quant), (Elem.U8, other)))
    held = initializers(proto)
    zeros = {n: (str(a.dtype), int(a)) for n, a in held.items() if "zero" in n}
    assert sorted(zeros.values()) == [("int8", 3), ("uint8", 3), ("uint8", 4)]
    assert sum("scale" in name for name in held) == 1


def test_names_of_parameters_avoid_those_that_are_taken():
    module = quantized("u8", Quant.make(0.5, 3))
    module.value("x").rename("y_q_scale")
    proto = export_onnx(module)
    names = [v.name for v in proto.graph.input] + [t.name for t in proto.graph.initializer]
    assert names == ["y_q_scale", "y_q_scale_1", "y_q_zero_point"]
    found = run(proto, {"y_q_scale": X})[0]
    np.testing.assert_allclose(found, by_formula(X, Quant.make(0.5, 3), "u8"), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_graph_output_may_stay_quantized(count):
    module = quantized("u8", Quant.make(0.5, 3))
    module.graph.set_outputs([module.value("y_q"), module.value("y")][:count])
    proto = export_onnx(module)
    assert proto.graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8
    found = run(proto, {"x": X})
    assert found[0].dtype == np.uint8
    np.testing.assert_array_equal(found[0], np.clip(np.rint(X / 0.5) + 3, 0, 255))
