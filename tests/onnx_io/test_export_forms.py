"""Forms of one meaning at several opsets, names, and files with external data."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from protos import opset_of, run

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.loc import Loc
from qdqc.ir.types import Elem, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.onnx_io.schemas import NEWEST
from qdqc.ops.activation import Clip, Relu
from qdqc.ops.conv import Conv
from qdqc.ops.elementwise import Add
from qdqc.ops.pool import AveragePool, LpPool, MaxPool
from qdqc.ops.shape import Squeeze

INF = math.inf


def one(op, shape=(2, 3), elem=Elem.F32):
    """One op on x."""
    module = Module()
    x = module.graph.add_input("x", TensorType(elem, shape))
    module.graph.set_outputs([module.graph.insert(op, [x], names=["y"]).result])
    return module


def parts(proto):
    """Op, attributes and inputs of the nodes, initializers by their contents."""
    held = {t.name: numpy_helper.to_array(t).tolist() for t in proto.graph.initializer}
    return [
        (
            n.op_type,
            {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute},
            [held.get(i, i) for i in n.input],
        )
        for n in proto.graph.node
    ]


@pytest.mark.parametrize(
    ("op", "opset", "attrs", "inputs"),
    [
        (Clip(min=-1.0, max=2.0), 7, {"min": -1.0, "max": 2.0}, ["x"]),
        (Clip(min=-1.0, max=2.0), 10, {"min": -1.0, "max": 2.0}, ["x"]),
        (Clip(min=-1.0, max=2.0), 11, {}, ["x", -1.0, 2.0]),
        (Clip(min=-1.0, max=2.0), NEWEST, {}, ["x", -1.0, 2.0]),
        (Clip(max=2.0), 10, {"min": -INF, "max": 2.0}, ["x"]),
        (Clip(max=2.0), 13, {}, ["x", "", 2.0]),
        (Clip(min=-1.0), 10, {"min": -1.0, "max": INF}, ["x"]),
        (Clip(min=-1.0), 13, {}, ["x", -1.0]),
        (Clip(), 10, {"min": -INF, "max": INF}, ["x"]),
        (Clip(), 13, {}, ["x"]),
    ],
)
def test_a_clip_has_attributes_and_then_inputs(op, opset, attrs, inputs):
    """Infinite bounds are stated: without them the old Clip ends at the largest float32."""
    proto = export_onnx(one(op), opset=opset)
    onnx.checker.check_model(proto, full_check=True)
    ((type, found, read),) = parts(proto)
    assert (type, found, read) == ("Clip", attrs, inputs)
    if opset <= 24:
        x = np.array([[-5, 0.5, 5], [-1, 1, 2]], np.float32)
        np.testing.assert_array_equal(run(proto, {"x": x})[0], np.clip(x, op.min, op.max))
    (node,) = import_onnx(proto).graph.nodes()
    assert node.op == op


@pytest.mark.parametrize("elem", [Elem.F16, Elem.F32, Elem.F64])
def test_bounds_have_the_type_of_what_they_bound(elem):
    proto = export_onnx(one(Clip(min=0.0, max=6.0), elem=elem), opset=13)
    onnx.checker.check_model(proto, full_check=True)
    assert {t.data_type for t in proto.graph.initializer} == {
        proto.graph.input[0].type.tensor_type.elem_type
    }
    x = np.array([[-5, 0.5, 50], [-1, 1, 2]], elem.dtype)
    (found,) = run(proto, {"x": x})
    assert found.dtype == elem.dtype
    np.testing.assert_array_equal(found, np.clip(x, 0, 6))


def test_integers_are_clipped_from_opset_12_on():
    module = one(Clip(min=0.0, max=6.0), elem=Elem.I8)
    assert opset_of(export_onnx(module)) == 12
    with pytest.raises(QdqcError, match="opset 11 can't spell it"):
        export_onnx(module, opset=11)


def clamped(clamp, elem=Elem.F32):
    module = Module()
    x = module.graph.add_input("x", TensorType(elem, (1, 1, 2, 2)))
    w = module.add_constant("w", Data.of(np.full((1, 1, 1, 1), 2, elem.dtype)))
    loc = Loc(("conv", "act"))
    node = module.graph.insert(Conv(clamp=clamp), [x, w], names=["y"], loc=loc)
    module.graph.set_outputs([node.result])
    return module


@pytest.mark.parametrize(
    ("clamp", "opset", "form"),
    [
        ((0.0, INF), 7, ("Relu", {}, ["y_preact"])),
        ((0.0, INF), 13, ("Relu", {}, ["y_preact"])),
        ((0.0, 6.0), 7, ("Clip", {"min": 0.0, "max": 6.0}, ["y_preact"])),
        ((0.0, 6.0), 11, ("Clip", {}, ["y_preact", 0.0, 6.0])),
        ((-INF, 6.0), 10, ("Clip", {"min": -INF, "max": 6.0}, ["y_preact"])),
        ((-INF, 6.0), 11, ("Clip", {}, ["y_preact", "", 6.0])),
        ((-1.0, INF), 11, ("Clip", {}, ["y_preact", -1.0])),
        ((-0.0, INF), 11, ("Relu", {}, ["y_preact"])),
    ],
)
def test_clamps_by_opset(clamp, opset, form):
    proto = export_onnx(clamped(clamp), opset=opset)
    onnx.checker.check_model(proto, full_check=True)
    assert parts(proto)[1] == form
    assert [n.name for n in proto.graph.node] == ["conv", "act"]
    x = np.array([[[[-3, -0.25], [0.25, 30]]]], np.float32)
    np.testing.assert_array_equal(run(proto, {"x": x})[0], np.clip(2 * x, *clamp))


def test_equal_bounds_are_one_initializer():
    module = clamped((0.0, 6.0))
    y = module.value("y")
    w = module.constants["w"]
    node = module.graph.insert(Conv(clamp=(0.0, 6.0)), [y, w], names=["z"])
    module.graph.set_outputs([node.result])
    proto = export_onnx(module, opset=13)
    assert len(proto.graph.initializer) == 3
    assert len({tuple(n.input[1:]) for n in proto.graph.node if n.op_type == "Clip"}) == 1


@pytest.mark.parametrize("make", [AveragePool, LpPool, MaxPool])
@pytest.mark.parametrize(
    ("size", "ceil", "kernel", "opset"),
    [(2, True, 1, 22), (3, True, 1, None), (2, False, 1, 7), (4, True, 2, None)],
)
def test_a_window_that_onnx_once_counted_needs_opset_22(make, size, ceil, kernel, opset):
    op = make(kernel_shape=(kernel,), strides=(2,), ceil_mode=ceil)
    proto = export_onnx(one(op, (1, 1, size)))
    onnx.checker.check_model(proto, full_check=True)
    lowest = {AveragePool: 10, LpPool: 18, MaxPool: 10}[make]
    assert opset_of(proto) == (opset or lowest)
    if opset == 22:
        with pytest.raises(QdqcError, match="a window that starts in the padding needs opset 22"):
            export_onnx(one(op, (1, 1, size)), opset=21)
        shape = run(proto, {"x": np.ones((1, 1, size), np.float32)})[0].shape
        assert shape == one(op, (1, 1, size)).value("y").tensor.shape == (1, 1, 1)


def test_axes_are_attributes_and_then_an_input():
    module = one(Squeeze(axes=(1,)), (2, 1))
    assert parts(export_onnx(module, opset=11)) == [("Squeeze", {"axes": [1]}, ["x"])]
    assert parts(export_onnx(module, opset=13)) == [("Squeeze", {}, ["x", [1]])]


@pytest.mark.parametrize("name", ["a b", "/x/y:0", "%", 'q"', "層", "\t", "y_preact", "\\n"])
def test_names_go_out_as_they_are(name):
    module = clamped((0.0, 6.0))
    module.value("y").rename(name)
    proto = export_onnx(module)
    onnx.checker.check_model(proto)
    assert proto.graph.output[0].name == name
    made = [o for n in proto.graph.node for o in n.output]
    assert made[-1] == name
    assert len(set(made)) == 2
    assert import_onnx(proto).graph.outputs[0].name == name


def test_nodes_of_one_location_have_names_of_their_own():
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (2,)))
    for _ in range(3):
        x = module.graph.insert(Relu(), [x], loc=Loc(("same",))).result
    module.graph.set_outputs([x])
    names = [n.name for n in export_onnx(module).graph.node]
    assert len(set(names)) == 3
    assert names[0] == "same"


def weighty(*sizes):
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (1,)))
    for index, size in enumerate(sizes):
        data = Data.of(np.arange(size, dtype=np.float32) + index)
        w = module.add_constant(f"w{index}", data)
        x = module.graph.insert(Add(), [x, w]).result if size == sizes[0] else x
    module.graph.set_outputs([x])
    return module


@pytest.mark.parametrize(("size", "moved"), [(255, False), (256, True), (257, True)])
def test_what_is_small_stays_inline(tmp_path, size, moved):
    path = tmp_path / "m.onnx"
    save_onnx(weighty(size), path, external=True)
    assert (tmp_path / "m.onnx.data").exists() == moved
    (tensor,) = onnx.load(path, load_external_data=False).graph.initializer
    assert (tensor.data_location == TensorProto.EXTERNAL) == moved
    x = np.ones(1, np.float32)
    np.testing.assert_array_equal(run(str(path), {"x": x})[0], np.arange(size) + 1)


def test_external_data_are_as_onnx_reads_them(tmp_path):
    path = tmp_path / "m.onnx"
    module = weighty(3000, 3000, 3000)
    save_onnx(module, path, external=True)
    onnx.checker.check_model(str(path), full_check=True)
    loaded = onnx.load(path)
    for tensor in loaded.graph.initializer:
        held = module.constants[tensor.name].data.array()
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), held)
    light = onnx.load(path, load_external_data=False)
    entries = [{e.key: e.value for e in t.external_data} for t in light.graph.initializer]
    assert {e["location"] for e in entries} == {"m.onnx.data"}
    offsets = [int(e["offset"]) for e in entries]
    assert all(o % 4096 == 0 for o in offsets)
    assert len(set(offsets)) == 3


def test_the_same_module_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_onnx(weighty(3000, 3000), tmp_path / folder / "m.onnx", external=True)
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failed_write_leaves_the_old_pair_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    save_onnx(weighty(3000), path, external=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qdqc.files.os.fsync", full)
    with pytest.raises(QdqcError, match="can't write the file: No space left"):
        save_onnx(weighty(4000), path, external=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
