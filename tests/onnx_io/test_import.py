"""What comes in: values, names, constants of every kind, nested graphs, old spellings."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_graph, make_node, make_opsetid
from protos import info, model, ops, same, tensor

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant
from qdqc.ir.dims import symbol
from qdqc.ir.types import Elem
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.shapes import parse_dim
from qdqc.onnx_io.tensors import TensorReader

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def test_names_and_locations_survive():
    weight = tensor("w", np.ones((4, 3, 1, 1), np.float32))
    nodes = [
        make_node("Conv", ["x", "w"], ["c"], name="/conv/Conv"),
        make_node("Relu", ["c"], ["y"]),
    ]
    module = same(model(nodes, [info("x", ["N", 3, 8, 8])], [info("y", None)], [weight]), {"x": X})
    conv, relu = module.graph.nodes()
    assert (conv.name, conv.loc.names) == ("c", ("/conv/Conv",))
    assert (relu.name, relu.loc.names) == ("y", ("y",))
    assert conv.result.tensor.shape == (symbol("N"), 4, 8, 8)
    assert list(module.constants) == ["w"]


def test_the_models_own_protobuf_is_left_alone():
    proto = model([make_node("Relu", ["x"], ["y"])], [info("x", ["N"])], [info("y", None)])
    before = proto.SerializeToString()
    import_onnx(proto, input_shapes={"x": [3]})
    assert proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("elem", "dtype"),
    [
        (TensorProto.INT4, ml_dtypes.int4),
        (TensorProto.UINT4, ml_dtypes.uint4),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT16, np.uint16),
        (TensorProto.UINT32, np.uint32),
        (TensorProto.INT64, np.int64),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.COMPLEX64, np.complex64),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_every_type(elem, dtype, raw):
    numbers = np.array([0, 1, 1, 0, 1]).astype(dtype)
    if raw:
        made = numpy_helper.from_array(numbers, "t")
    else:
        made = helper.make_tensor("t", elem, [5], numbers.tolist())
        assert not made.HasField("raw_data")
    assert made.data_type == elem
    data = TensorReader(None, None).read(made, "t")
    assert data.elem.dtype == np.dtype(dtype)
    assert data.array().tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 1.5, np.float32(1.5)),
        ("value_floats", [1.5, 2.0], np.array([1.5, 2.0], np.float32)),
        ("value_int", 3, np.int64(3)),
        ("value_ints", [3, 4], np.array([3, 4])),
        ("value_string", "a", np.array("a", object)),
        ("value_strings", ["a", "b"], np.array(["a", "b"], object)),
        ("value", tensor("v", np.eye(2)), np.eye(2)),
    ],
)
def test_constant_nodes(attribute, value, expected):
    nodes = [
        make_node("Constant", [], ["c"], **{attribute: value}),
        make_node("Identity", ["c"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(expected).dtype)
    module = same(model(nodes, [], [info("y", None, kind)]), {})
    constant = module.constants["c"]
    assert constant.data.array().tolist() == np.asarray(expected).tolist()
    assert ops(module) == ["identity"]


def test_sparse_initializer():
    values = tensor("s", np.array([2.0, 3.0], np.float32))
    indices = tensor("i", np.array([[0, 1], [2, 2]], np.int64))
    proto = model([make_node("Identity", ["s"], ["y"])], [], [info("y", [3, 3])])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3, 3]))
    array = import_onnx(proto).constants["s"].data.array()
    assert array.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 3]]


def test_initializers_that_are_inputs_too_and_unused_ones():
    held = [tensor("w", np.ones(3, np.float32)), tensor("unused", np.ones(3, np.float32))]
    nodes = [make_node("Add", ["x", "w"], ["y"])]
    inputs = [info("x", [3]), info("w", [3])]
    module = import_onnx(model(nodes, inputs, [info("y", [3])], held))
    assert [v.name for v in module.graph.inputs] == ["x"]
    assert list(module.constants) == ["w"]


def test_unsorted_nodes_are_sorted():
    nodes = [make_node("Relu", ["a"], ["y"]), make_node("Neg", ["x"], ["a"])]
    module = import_onnx(model(nodes, [info("x", [2])], [info("y", [2])]))
    assert ops(module) == ["neg", "relu"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("N", "N"),
        ("past + 1", "past+1"),
        ("(H + 1) // 2", "(H+1)//2"),
        ("batch size", '"batch size"'),
        ("2 ** N", '"2 ** N"'),
        ("N // 0", '"N // 0"'),
        ("7", "7"),
        ("?", "None"),
        ("", "None"),
        ("-1", "None"),
    ],
)
def test_dim_params(text, expected):
    assert str(parse_dim(text)) == expected


def test_opaque_nodes_keep_everything():
    body = make_graph([make_node("Relu", ["x"], ["r"])], "b", [], [info("r", [2])])
    nodes = [
        make_node(
            "Thing", ["x", "", "x"], ["y", "", "z"], domain="com.foo", type="T", k=[1.0], g=body
        )
    ]
    proto = model(nodes, [info("x", [2])], [info("y", [2]), info("z", [4])])
    proto.opset_import.append(make_opsetid("com.foo", 3))
    module = import_onnx(proto)
    (node,) = module.graph.nodes()
    assert node.op.version == 3
    assert dict(node.op.attrs) == {"type": "T", "k": (1.0,)}
    assert node.op.graph_names == ("g",)
    assert [v.name for v in node.captures()] == ["x"]
    out = export_onnx(module).graph.node[0]
    assert (list(out.input), list(out.output)) == (["x", "", "x"], ["y", "", "z"])
    assert {a.name for a in out.attribute} == {"type", "k", "g"}


def test_types_that_only_onnxruntime_knows():
    nodes = [
        make_node("QuickGelu", ["x"], ["g"], domain="com.microsoft", alpha=1.0),
        make_node("Add", ["g", "g"], ["y"]),
    ]
    proto = model(nodes, [info("x", [2, 4], TensorProto.FLOAT16)], [info("y", None, 10)])
    proto.opset_import.append(make_opsetid("com.microsoft", 1))
    gelu, add = import_onnx(proto).graph.nodes()
    assert gelu.result.tensor.elem is Elem.F16
    assert add.result.tensor.shape == (2, 4)


def test_nested_graphs_capture_and_are_qualified():
    branches = {
        f"{name}_branch": make_graph(
            [make_node(op, ["a"], ["t"]), make_node("Add", ["t", "w"], ["r"])],
            name,
            [],
            [info("r", [2])],
            [tensor("w", np.full(2, fill, np.float32))],
        )
        for name, op, fill in (("then", "Relu", 1), ("else", "Neg", 2))
    }
    nodes = [
        make_node("Abs", ["x"], ["a"]),
        make_node("If", ["c"], ["y"], name="if_3", **branches),
    ]
    inputs = [info("x", [2]), info("c", [], TensorProto.BOOL)]
    proto = model(nodes, inputs, [info("y", None)])
    feed = {"x": np.array([-1, 2], np.float32), "c": np.array(False)}
    module = same(proto, feed)
    _, node = module.graph.nodes()
    assert node.op.name == "if"
    assert [v.name for v in node.captures()] == ["a"]
    assert sorted(n.name for g in node.graphs for n in g.nodes()) == [
        "if_3/then/r",
        "if_3/then/t",
        "r",
        "t",
    ]
    assert set(module.constants) == {"w", "if_3/then/w"}
    assert node.result.tensor.shape == (2,)


def test_loop_round_trip():
    body = make_graph(
        [
            make_node("Add", ["acc", "x"], ["next"]),
            make_node("Identity", ["cond_in"], ["cond_out"]),
        ],
        "body",
        [
            info("i", [], TensorProto.INT64),
            info("cond_in", [], TensorProto.BOOL),
            info("acc", [2]),
        ],
        [info("cond_out", [], TensorProto.BOOL), info("next", [2]), info("acc", [2])],
    )
    nodes = [make_node("Loop", ["n", "", "x"], ["y", "s"], body=body)]
    proto = model(nodes, [info("x", [2])], [info("y", [2]), info("s", None)])
    proto.graph.initializer.append(tensor("n", np.int64(3)))
    assert ops(same(proto, {"x": np.ones(2, np.float32)}))[0] == "loop"


def test_model_local_functions_are_inlined():
    function = helper.make_function(
        "f", "Twice", ["a"], ["b"], [make_node("Add", ["a", "a"], ["b"])], [make_opsetid("", 17)]
    )
    node = make_node("Twice", ["x"], ["y"], domain="f", name="t")
    proto = model([node], [info("x", [2])], [info("y", [2])])
    proto.functions.append(function)
    proto.opset_import.append(make_opsetid("f", 1))
    assert ops(same(proto, {"x": np.ones(2, np.float32)})) == ["add"]


def test_input_shapes_reach_every_value():
    nodes = [make_node("Relu", ["x"], ["r"]), make_node("Add", ["r", "b"], ["y"])]
    inputs = [info("x", ["N", 3]), info("b", ["N", 3])]
    proto = model(nodes, inputs, [info("y", ["N", 3])], value_info=[info("r", ["N", 3])])
    module = import_onnx(proto, input_shapes={"x": [4, 3]})
    assert [v.tensor.shape for v in module.graph.inputs] == [(4, 3), (4, 3)]
    assert module.graph.outputs[0].tensor.shape == (4, 3)
    renamed = import_onnx(proto, input_shapes={"x": ["B", 3]})
    assert renamed.graph.outputs[0].tensor.shape == (symbol("B"), 3)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": [1, 2, 3]}, "3 dimensions, but the model's has 2"),
        ({"xx": [1, 3]}, "no input 'xx'; did you mean 'x'"),
        ({"x": [1, 3], "b": [2, 3]}, "both 1 and 2"),
        ({"x": [-1, 3]}, "can't be -1"),
    ],
)
def test_wrong_input_shapes(shapes, message):
    node = make_node("Add", ["x", "b"], ["y"])
    proto = model([node], [info("x", ["N", 3]), info("b", ["N", 3])], [info("y", None)])
    with pytest.raises(QdqcError) as caught:
        import_onnx(proto, input_shapes=shapes)
    text = str(caught.value)
    assert message in text
    assert "input %x : f32[N,3]" in text
    assert "note: give a size" in text


def test_output_names_cut_the_graph():
    nodes = [make_node("Add", ["x", "b"], ["a"]), make_node("Relu", ["a"], ["y"])]
    nodes.append(make_node("Neg", ["z"], ["n"]))
    inputs = [info(n, [3]) for n in "xbz"]
    proto = model(nodes, inputs, [info("y", [3]), info("n", [3])])
    module = import_onnx(proto, output_names=["a"])
    assert ops(module) == ["add"]
    assert [v.name for v in module.graph.inputs] == ["x", "b"]
    with pytest.raises(QdqcError, match="no value 'aa'"):
        import_onnx(proto, output_names=["aa"])


def test_quantize_and_dequantize_move_into_types():
    scale = np.array([0.1, 0.2], np.float32)
    held = [
        tensor("s", np.float32(0.5)),
        tensor("z", np.uint8(3)),
        tensor("w", np.array([[1, -2], [3, 4]], np.int8)),
        tensor("ws", scale),
        tensor("wz", np.zeros(2, np.int8)),
    ]
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"]),
        make_node("DequantizeLinear", ["x_q", "s", "z"], ["x_d"]),
        make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_d"], axis=0),
        make_node("MatMul", ["x_d", "w_d"], ["y"]),
    ]
    proto = model(nodes, [info("x", [3, 2])], [info("y", None)], held)
    module = same(proto, {"x": np.linspace(-9, 9, 6, dtype=np.float32).reshape(3, 2)})
    assert ops(module) == ["quantize", "dequantize", "dequantize", "matmul"]
    stored = module.value("x_q").tensor
    assert (stored.elem, float(stored.quant.scale), int(stored.quant.zero_point)) == (
        Elem.U8,
        0.5,
        3,
    )
    weight = module.constants["w"]
    assert isinstance(weight, Constant)
    assert weight.tensor.quant.axis == 0
    assert weight.tensor.quant.scale.tolist() == scale.tolist()


def test_integers_that_others_read_keep_their_plain_type():
    held = [tensor("s", np.float32(0.5)), tensor("z", np.uint8(3))]
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        make_node("Cast", ["q"], ["c"], to=TensorProto.INT32),
    ]
    outputs = [info("d", None), info("c", None, TensorProto.INT32)]
    module = same(
        model(nodes, [info("x", [4])], outputs, held), {"x": np.arange(4, dtype=np.float32)}
    )
    assert ops(module) == ["onnx", "onnx", "cast"]
    assert module.value("q").tensor.quant is None


def test_sequences_are_opaque_types():
    nodes = [
        make_node("SequenceConstruct", ["x", "x"], ["s"]),
        make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    module = same(model(nodes, [info("x", [2])], [info("y", None)]), {"x": np.ones(2, np.float32)})
    assert type(module.value("s").type).__name__ == "SequenceType"


def test_the_exported_model_is_valid():
    proto = export_onnx(
        import_onnx(
            model([make_node("Relu", ["x"], ["y"])], [info("x", ["N", 2])], [info("y", None)])
        )
    )
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert proto.producer_name == "qdqc"
