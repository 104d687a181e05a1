"""Files and models that can't be used: each is one located error that says what to do."""

from __future__ import annotations

import io
import random
import zipfile

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from onnx import ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from qdqc.diagnostics import QdqcError
from qdqc.onnx_io.importer import import_onnx


def info(name, shape=(2,)):
    return make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes, inputs=("x",), outputs=("y",), held=(), opset=17):
    graph = make_graph(nodes, "g", [info(n) for n in inputs], [info(n) for n in outputs], held)
    return make_model(graph, opset_imports=[make_opsetid("", opset)])


def refused(source):
    with pytest.raises(QdqcError) as caught:
        import_onnx(source)
    text = str(caught.value)
    assert "note: " in text, "an error names the next step"
    return text


RELU = [make_node("Relu", ["x"], ["y"])]


def zipped(name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b'{"a": 1}', "JSON"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-LFS"),
        (b"hello there, this is a note\n", "a text file"),
        (b"module @main {opsets = {}} {\n}\n", "qdqc's own text form"),
        (zipped("model/data.pkl"), "PyTorch"),
        (zipped("x.npy"), "npz"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ],
)
def test_other_formats_are_named(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    text = refused(path)
    assert message in text
    assert str(path) in text


def test_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "model.onnx").write_bytes(model(RELU).SerializeToString())
    assert "did you mean 'model.onnx'" in refused(tmp_path / "modle.onnx")
    assert "folder" in refused(tmp_path)
    assert import_onnx(tmp_path / "model.onnx").header["source"] == "model.onnx"


def test_every_truncation_is_refused_or_whole(tmp_path):
    held = [numpy_helper.from_array(np.arange(2, dtype=np.float32), "w")]
    whole = model([make_node("Add", ["x", "w"], ["y"])], held=held).SerializeToString()
    path = tmp_path / "m.onnx"
    import_onnx_ok = 0
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            import_onnx(path)
            import_onnx_ok += 1
        except QdqcError as error:
            named = str(path) in str(error)
            assert named
    assert import_onnx_ok <= 1


def test_no_graph():
    proto = model(RELU)
    proto.ClearField("graph")
    assert "no graph" in refused(proto)


def test_cycles_are_named():
    nodes = [
        make_node("Add", ["x", "b"], ["a"], name="first"),
        make_node("Relu", ["a"], ["b"], name="second"),
        make_node("Neg", ["b"], ["y"]),
    ]
    text = refused(model(nodes))
    assert "cycle" in text
    assert "'first'" in text
    assert "'second'" in text


def test_a_node_that_reads_itself_through_a_branch():
    body = make_graph([make_node("Relu", ["y"], ["r"])], "b", [], [info("r")])
    node = make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    assert "cycle" in refused(model([node]))


def test_recursive_functions():
    def function(name, other):
        nodes = [make_node(other, ["a"], ["b"], domain="f")]
        return helper.make_function("f", name, ["a"], ["b"], nodes, [make_opsetid("", 17)])

    proto = model([make_node("A", ["x"], ["y"], domain="f")])
    proto.functions.extend([function("A", "B"), function("B", "A")])
    proto.opset_import.append(make_opsetid("f", 1))
    assert "calls itself" in refused(proto)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([make_node("Relu", ["xx"], ["y"])], "'xx' is defined nowhere; did you mean 'x'"),
        ([*RELU, make_node("Neg", ["x"], ["y"])], "defined twice"),
        ([make_node("Neg", ["x"], ["x"])], "defined twice"),
        ([make_node("Relu", ["x"], ["z"])], "made by no node"),
        ([make_node("Foo", ["x"], ["y"], domain="bar")], "does not say which opset of 'bar'"),
        ([make_node("Constant", [], ["y"])], "Constant"),
        ([make_node("MatMul", ["x", "x"], ["m"]), make_node("Concat", [], ["y"], axis=0)], ""),
    ],
)
def test_broken_wiring(nodes, message):
    assert message in refused(model(nodes))


def test_operands_that_do_not_fit_are_located():
    held = [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")]
    proto = make_model(
        make_graph(
            [make_node("Conv", ["x", "w"], ["y"], name="/c/Conv")],
            "g",
            [info("x", [1, 3, 8, 8])],
            [info("y", None)],
            held,
        ),
        opset_imports=[make_opsetid("", 17)],
    )
    text = refused(proto)
    assert "weight takes 4 input channels, but x has 3" in text
    assert '"/c/Conv"' in text


@pytest.mark.parametrize("opset", [1, 6, 999])
def test_opsets_out_of_reach(opset):
    assert f"opset {opset}" in refused(model(RELU, opset=opset))


ADD = [make_node("Add", ["x", "w"], ["y"])]


def weight(**fields):
    return TensorProto(name="w", data_type=TensorProto.FLOAT, **fields)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (weight(dims=[2], raw_data=b"\0" * 7), "declares f32[2], 8 bytes, but holds 7"),
        (weight(dims=[2], float_data=[1.0]), "holds 4"),
        (weight(dims=[1 << 40, 1 << 40], raw_data=b""), "overflows"),
        (weight(dims=[1 << 62, 4, 0], raw_data=b""), "overflows"),
        (weight(dims=[-2], raw_data=b""), "negative"),
        (TensorProto(name="w", data_type=99, dims=[2]), "element type 99"),
        (TensorProto(name="w", data_type=TensorProto.STRING, dims=[2]), "holds 0"),
    ],
)
def test_tensors_that_are_not_whole(tensor, message):
    assert message in refused(model(ADD, held=[tensor]))


def test_sparse_indices_outside_the_shape():
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.array([9], np.int64), "i")
    proto = model(ADD)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))
    assert "outside its shape" in refused(proto)


@pytest.mark.parametrize("name", ["block_size", "saturate"])
def test_a_cast_whose_attribute_is_no_number(name):
    """It comes in as any other node does: what is wrong with it is onnxruntime's to say."""
    held = [numpy_helper.from_array(np.ones((2, 1), np.int8), "w")]
    held += [numpy_helper.from_array(np.ones(2, np.float32), "s")]
    node = make_node("DequantizeLinear", ["w", "s"], ["y"], **{name: "zero"})
    (read,) = import_onnx(model([node], held=held)).graph.nodes()
    assert read.op.name == "onnx"


def test_names_that_are_no_text():
    whole = model(RELU).SerializeToString()
    proto = ModelProto()
    proto.ParseFromString(whole.replace(b"Relu", b"Re\xffu"))
    assert "no UTF-8 text" in refused(proto)


def test_a_node_on_which_native_inference_hangs():
    opaque = make_node("Thing", ["x"], ["t"], domain="com.foo")
    einsum = make_node("Einsum", ["t"], ["y"], equation=b"\xd2>")
    proto = model([opaque, einsum])
    proto.opset_import.append(make_opsetid("com.foo", 1))
    with pytest.raises(QdqcError, match="Einsum"):
        import_onnx(proto)


def test_mutated_models_are_imported_or_refused():
    """Bytes are changed, dropped and added; nothing but a QdqcError may come of it."""
    held = [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")]
    body = make_graph([make_node("Abs", ["c"], ["r"])], "b", [], [info("r", None)])
    nodes = [
        make_node("Conv", ["x", "w"], ["c"], pads=[0, 0, 0, 0]),
        make_node("If", ["k"], ["i"], then_branch=body, else_branch=body),
        make_node("Softmax", ["i"], ["y"], axis=-1),
    ]
    inputs = [info("x", ["N", 3, 4, 4]), make_tensor_value_info("k", TensorProto.BOOL, [])]
    graph = make_graph(nodes, "g", inputs, [info("y", None)], held)
    whole = make_model(graph, opset_imports=[make_opsetid("", 17)]).SerializeToString()
    rng = random.Random(7)
    counts = {"imported": 0, "refused": 0}
    for _ in range(1500):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutated))
            if rng.random() < 0.7:
                mutated[at] = rng.randrange(256)
            else:
                del mutated[at]
        proto = ModelProto()
        try:
            proto.ParseFromString(bytes(mutated))
        except DecodeError:
            continue
        try:
            import_onnx(proto)
        except QdqcError:
            counts["refused"] += 1
        else:
            counts["imported"] += 1
    assert min(counts.values()) > 50


@pytest.mark.parametrize(
    ("op", "name", "value"),
    [
        ("Softmax", "axis", float("inf")),
        ("Softmax", "axis", "last"),
        ("Softmax", "axis", [1]),
        ("Transpose", "perm", [0.0, 1.0]),
        ("LeakyRelu", "alpha", 1),
        ("Cast", "to", "FLOAT"),
        ("DequantizeLinear", "axis", "zero"),
    ],
)
def test_attributes_of_another_type(op, name, value):
    node = make_node(op, ["x"] * (2 if op == "DequantizeLinear" else 1), ["y"], **{name: value})
    text = refused(model([node]))
    assert f"'{op}': attribute '{name}' is " in text
    assert f", but '{op}' takes " in text


def test_attributes_that_must_be_stated():
    text = refused(model([make_node("Concat", ["x", "x"], ["y"])]))
    assert "attribute 'axis' is missing" in text


def test_absent_results_that_are_not_optional():
    """onnxruntime itself dies of a Split like this."""
    text = refused(model([make_node("Split", ["x"], ["", "y"], axis=0)]))
    assert "its result 0 has no name, but 'outputs' is not optional" in text


def sparse(values, indices, dims):
    made = SparseTensorProto(dims=dims)
    made.values.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), "s"))
    made.indices.CopyFrom(numpy_helper.from_array(np.asarray(indices, np.int64), "i"))
    return made


def squared(tensor):
    source = model([make_node("Mul", ["s", "s"], ["y"])])
    source.graph.sparse_initializer.append(tensor)
    return source


@pytest.mark.parametrize(
    ("values", "indices", "dims", "dense"),
    [
        ([1, 2], [1, 5], [2, 3], [[0, 1, 0], [0, 0, 2]]),
        ([1, 2], [[0, 1], [1, 2]], [2, 3], [[0, 1, 0], [0, 0, 2]]),
        ([1, 2], [[1], [0]], [2], [2, 1]),
        ([], np.zeros((0, 2)), [1, 2], [[0, 0]]),
        ([3], [0], [], 3),
    ],
)
def test_layouts_of_sparse_tensors(values, indices, dims, dense):
    module = import_onnx(squared(sparse(values, indices, dims)))
    np.testing.assert_array_equal(module.constants["s"].data.array(), dense)


@pytest.mark.parametrize(
    ("values", "indices"),
    [
        ([1, 2], [[1], [5]]),
        ([1, 2], [1]),
        ([[1, 2]], [1, 5]),
        ([[1], [2]], [[0, 1], [1, 2]]),
        ([1, 2], [[[0, 1]]]),
        ([1, 2], [-1, 0]),
        ([1, 2], [[0, 0], [1, 3]]),
    ],
)
def test_sparse_tensors_of_no_layout(values, indices):
    assert "tensor 's' ha" in refused(squared(sparse(values, indices, [2, 3]))).replace(
        "holds", "has"
    )


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"k": [1, 4, 16]}, "in different layouts: q has rank 4, k has rank 3"),
        ({"q": [1, 3, 4, 8]}, "q has 3 heads, which is no multiple of the 2 of k"),
        ({"k": [1, 2, 4, 7]}, "the width of q and k differs: 8 and 7"),
        ({"v": [1, 2, 5, 8]}, "the length of k and v differs: 4 and 5"),
        ({"past": [1, 2, 16]}, "past_key has rank 3, but rank 4 is needed"),
        ({"mask": [1, 1, 1, 4, 6]}, "mask has rank 5"),
    ],
)
def test_attention_of_wrong_ranks_and_sizes(shapes, reason):
    given = {n: [1, 2, 4, 8] for n in "qkv"} | {"mask": [4, 6], "past": [1, 2, 2, 8]} | shapes
    node = make_node("Attention", [*"qkv", "mask", "past", "past"], ["y", "a", "b"], q_num_heads=2)
    node.attribute.append(helper.make_attribute("kv_num_heads", 2))
    inputs = [info(n, s) for n, s in given.items()]
    graph = make_graph([node], "g", inputs, [info("y", None)])
    text = refused(make_model(graph, opset_imports=[make_opsetid("", 23)]))
    assert reason in text
    assert 'ONNX node "y"' in text
