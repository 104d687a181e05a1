"""Files whose tensors stay where they are: read, written, and handed to onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.onnx_io import light, reader, saver
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.light import OWN_FILE, WireError, light_bytes
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.rooted import rooted_file
from qdqc.onnx_io.saver import file_bytes, onnx_bytes, save_onnx
from qdqc.runtime.sessions.session import open_session

W = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
X = np.ones((1, 32), np.float32)


def net() -> ModelProto:
    """A weight as an initializer, one in a Constant node, and one inside a branch."""
    branch = helper.make_graph(
        [helper.make_node("Mul", ["m", "inner"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(W[0], "inner")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["m"], ["o"])],
        "other",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 64])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(W[:1] + 1)),
        helper.make_node("Add", ["p", "c"], ["m"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(np.array(True), "yes")],
        doc_string="behind the tensors",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="k", value="v")
    return model


EXPECTED = (X @ W + W[:1] + 1) * W[0]


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and tensor counts as large."""
    monkeypatch.setattr(reader, "_MAPPED_FROM", 0)
    monkeypatch.setattr(light, "_LARGE", 200)


@pytest.mark.usefixtures("low")
def test_large_tensors_stay_in_the_models_own_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(net(), path)
    model = read_model(path)
    assert model.ByteSize() < path.stat().st_size - W.nbytes
    assert [t.data_location for t in model.graph.initializer] == [TensorProto.EXTERNAL, 0]
    whole = path.read_bytes()
    (place,) = (t for t in model.graph.initializer if t.name == "w")
    entries = {e.key: e.value for e in place.external_data}
    assert entries["location"] == OWN_FILE
    begin = int(entries["offset"])
    assert whole[begin : begin + int(entries["length"])] == W.tobytes()
    module, expected = import_onnx(path), import_onnx(net())
    module.name, module.header = expected.name, expected.header
    assert module == expected
    for session in (open_session(str(path)), open_session(rooted_file(path))):
        np.testing.assert_allclose(session.run(None, {"x": X})[0], EXPECTED, rtol=1e-5)


@pytest.mark.usefixtures("low")
def test_a_model_behind_a_link_is_read_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    onnx.save(net(), tmp_path / "blobs" / "b")
    (tmp_path / "m.onnx").symlink_to(tmp_path / "blobs" / "b")
    module = import_onnx(tmp_path / "m.onnx")
    np.testing.assert_array_equal(module.constants["w"].data.array(), W)
    assert open_session(str(tmp_path / "m.onnx")).run(None, {"x": X})[0].shape == (1, 64)


def test_light_bytes_are_the_model_but_for_what_is_external(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(light, "_LARGE", 1 << 20)
    whole = net().SerializeToString()
    assert light_bytes(memoryview(whole)) == whole


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused_or_taken_over(blob: bytes) -> None:
    try:
        assert light_bytes(memoryview(blob)) == blob
    except WireError:
        with pytest.raises(Exception, match=r"parsing|wire|Error"):
            ModelProto().ParseFromString(blob)


def test_a_streamed_file_is_what_protobuf_writes(tmp_path: Path) -> None:
    model, path = net(), tmp_path / "m.onnx"
    save_onnx(model, path)
    assert path.read_bytes() == model.SerializeToString()
    module = import_onnx(path)
    save_onnx(module, path)
    assert path.read_bytes() == export_onnx(module).SerializeToString()
    assert onnx_bytes(module) == file_bytes(path) == path.stat().st_size


def test_above_the_limit_weights_go_beside_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(saver, "_INLINE_LIMIT", 1000)
    module, path = import_onnx(net()), tmp_path / "m.onnx"
    save_onnx(module, path)
    assert path.stat().st_size < 3000
    assert file_bytes(path) == path.stat().st_size + (tmp_path / "m.onnx.data").stat().st_size
    np.testing.assert_array_equal(import_onnx(path).constants["w"].data.array(), W)
    np.testing.assert_allclose(open_session(str(path)).run(None, {"x": X})[0], EXPECTED, rtol=1e-5)


def external(tmp_path: Path, location: str, length: int) -> Path:
    model = net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_session_reads_no_file_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(W.tobytes())
    with pytest.raises(QdqcError, match="points outside the model's folder"):
        open_session(str(external(tmp_path / "in", "../secret", W.nbytes)))


def test_external_data_cut_short_are_named_before_onnxruntime_maps_them(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(W.tobytes()[:-4])
    with pytest.raises(QdqcError, match=r"tensor 'w' lies in 'w\.data', which is cut short"):
        open_session(str(external(tmp_path, "w.data", W.nbytes)))
