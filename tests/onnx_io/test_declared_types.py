"""Types that come from outside: the file, onnx's inference, the operands of a Loop."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, ValueInfoProto
from onnx.helper import make_graph, make_node, make_opsetid
from protos import info, model, run, tensor

from qdqc.ir.dims import symbol
from qdqc.ir.types import Elem, SequenceType, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.text.printer import print_module

F, INT = TensorProto.FLOAT, TensorProto.INT64


def invented():
    """A model on which onnx's own inference names a size that it does not know."""
    nodes = [
        make_node("NonZero", ["x"], ["n"]),
        make_node("Cast", ["n"], ["c"], to=F),
        make_node("Unique", ["c"], ["y"], axis=1),
    ]
    return model(nodes, [info("x", [4, 4])], [info("y", None)])


def test_onnx_invents_symbols():
    """Should onnx stop doing so, the two tests below say nothing."""
    inferred = onnx.shape_inference.infer_shapes(invented(), data_prop=True)
    assert "unk__0" in str(inferred.graph)


def test_a_symbol_that_onnx_invents_is_unknown():
    text = print_module(import_onnx(invented()))
    assert "unk__" not in text
    shapes = [v.tensor.shape for n in import_onnx(invented()).graph.nodes() for v in n.results if v]
    assert shapes[0] == (2, None)


def test_symbols_that_were_written_into_the_file_are_unknown_too():
    """What an exporter ran onnx's inference on states them as the types of inner values."""
    proto = onnx.shape_inference.infer_shapes(invented())
    assert proto.graph.value_info
    assert "unk__" not in print_module(import_onnx(proto))


@pytest.mark.parametrize("given", [None, {"x": [5, 3]}])
def test_a_models_own_symbols_may_have_such_names(given):
    proto = model(
        [make_node("Relu", ["x"], ["r"]), make_node("Neg", ["r"], ["y"])],
        [info("x", ["unk__3", 3])],
        [info("y", ["unk__3", 3])],
        value_info=[info("r", ["unk__3", 3])],
    )
    module = import_onnx(proto, input_shapes=given)
    first = symbol("unk__3") if given is None else 5
    for node in module.graph.nodes():
        assert node.result.tensor.shape == (first, 3)


def test_sums_with_an_invented_symbol_are_unknown():
    node = make_node("Thing", ["x"], ["t"], domain="com.foo")
    proto = model(
        [node, make_node("Neg", ["t"], ["y"])],
        [info("x", ["N"])],
        [info("y", None)],
        value_info=[info("t", ["unk__1 + N", "N + 1", "unk__x"])],
    )
    proto.opset_import.append(make_opsetid("com.foo", 1))
    shape = import_onnx(proto).value("t").tensor.shape
    assert shape == (None, symbol("N") + 1, symbol("unk__x"))


def untyped(name):
    return ValueInfoProto(name=name)


@pytest.mark.parametrize(
    ("elem", "dtype"),
    [(TensorProto.INT32, np.int32), (TensorProto.DOUBLE, np.float64), (F, np.float32)],
)
def test_carried_values_of_a_loop_have_the_type_of_what_is_carried_in(elem, dtype):
    body = make_graph(
        [
            make_node("Add", ["carry", "x"], ["next"]),
            make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [untyped("i"), untyped("going"), untyped("carry")],
        [untyped("on"), untyped("next"), untyped("carry")],
    )
    node = make_node("Loop", ["trip", "", "x"], ["y", "s"], body=body)
    proto = model(
        [node],
        [info("x", [2], elem)],
        [info("y", [2], elem), info("s", [None, 2], elem)],
        [tensor("trip", np.int64(3))],
    )
    module = import_onnx(proto)
    (loop,) = module.graph.nodes()
    index, going, carry = loop.graphs[0].inputs
    assert index.type == TensorType(Elem.I64, ())
    assert going.type == TensorType(Elem.BOOL, ())
    assert carry.type == TensorType(Elem.of(dtype))
    assert [n.op.name for n in loop.graphs[0].nodes()] == ["add", "identity"]
    feed = {"x": np.array([1, 2], dtype)}
    exported = export_onnx(module)
    onnx.checker.check_model(exported)
    total, carried = run(exported, feed)
    assert total.dtype == carried.dtype == dtype
    assert total.tolist() == [4, 8]
    assert carried.tolist() == [[1, 2], [2, 4], [3, 6]]


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_a_scan_hands_on_its_states_and_slices_of_the_rest(axis):
    body = make_graph(
        [make_node("Add", ["s", "r"], ["t"]), make_node("Identity", ["t"], ["o"])],
        "body",
        [untyped("s"), untyped("r")],
        [untyped("t"), untyped("o")],
    )
    rows = axis in (None, 0)
    more = {} if axis is None else {"scan_input_axes": [axis]}
    inputs = ["begin", "x"]
    node = make_node("Scan", inputs, ["last", "y"], body=body, num_scan_inputs=1, **more)
    proto = model(
        [node],
        [info("x", ["N", 3], TensorProto.INT32)],
        [info("y", [None, None], TensorProto.INT32)],
        [tensor("begin", np.zeros(3 if rows else 2, np.int32))],
    )
    module = import_onnx(proto)
    (scan,) = module.graph.nodes()
    state, piece = (v.type for v in scan.graphs[0].inputs)
    assert state == TensorType(Elem.I32, (3 if rows else 2,))
    assert piece == TensorType(Elem.I32, (3 if rows else symbol("N"),))
    feed = {"x": np.arange(6, dtype=np.int32).reshape(2, 3)}
    wanted = np.cumsum(feed["x"] if rows else feed["x"].T, axis=0)
    assert run(export_onnx(module), feed)[0].tolist() == wanted.tolist()


def test_a_scan_over_a_tensor_whose_shape_old_opsets_do_not_infer():
    """onnxruntime wants to know shapes within a Scan; the export is of a lower opset."""
    body = make_graph(
        [make_node("Add", ["s", "r"], ["t"]), make_node("Identity", ["t"], ["o"])],
        "body",
        [untyped("s"), untyped("r")],
        [untyped("t"), untyped("o")],
    )
    nodes = [
        make_node("Reshape", ["x", "flat"], ["f"]),
        make_node("Shape", ["x"], ["shape"]),
        make_node("Reshape", ["f", "shape"], ["back"]),
        make_node("Scan", ["begin", "back"], ["last", "y"], body=body, num_scan_inputs=1),
    ]
    held = [tensor("flat", np.array([-1])), tensor("begin", np.zeros(3, np.float32))]
    proto = model(nodes, [info("x", ["N", 3])], [info("y", [None, 3])], held)
    exported = export_onnx(import_onnx(proto))
    assert exported.opset_import[0].version == 9
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run(exported, {"x": x})[0], np.cumsum(x, axis=0))


def test_a_carried_sequence_stays_one():
    body = make_graph(
        [
            make_node("SequenceInsert", ["carry", "x"], ["next"]),
            make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [untyped("i"), untyped("going"), untyped("carry")],
        [untyped("on"), untyped("next")],
    )
    nodes = [
        make_node("SequenceConstruct", ["x"], ["one"]),
        make_node("Loop", ["trip", "", "one"], ["many"], body=body),
        make_node("ConcatFromSequence", ["many"], ["y"], axis=0),
    ]
    proto = model(nodes, [info("x", [2])], [info("y", None)], [tensor("trip", np.int64(2))])
    module = import_onnx(proto)
    loop = next(n for n in module.graph.nodes() if n.graphs)
    assert loop.graphs[0].inputs[2].type == SequenceType(TensorType(Elem.F32, (2,)))


@pytest.mark.parametrize("stated", [True, False])
def test_what_the_body_states_comes_first(stated):
    carry = info("carry", [2]) if stated else untyped("carry")
    body = make_graph(
        [make_node("Neg", ["carry"], ["next"]), make_node("Identity", ["going"], ["on"])],
        "body",
        [info("i", [], INT), info("going", [], TensorProto.BOOL), carry],
        [untyped("on"), untyped("next")],
    )
    node = make_node("Loop", ["trip", "", "x"], ["y"], body=body)
    proto = model([node], [info("x", [2])], [info("y", [2])], [tensor("trip", np.int64(3))])
    (loop,) = import_onnx(proto).graph.nodes()
    assert loop.graphs[0].inputs[2].tensor.shape == ((2,) if stated else None)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (None, None),
        ([], ()),
        (["N", 2], (symbol("N"), 2)),
        ([None, 3], (None, 3)),
        (["?", 3], (None, 3)),
        ([0], (0,)),
    ],
)
def test_shapes_as_the_file_states_them(shape, expected):
    proto = model([make_node("Relu", ["x"], ["y"])], [info("x", shape)], [info("y", None)])
    module = import_onnx(proto)
    assert module.graph.inputs[0].tensor.shape == expected
    assert module.graph.outputs[0].tensor.shape == expected


def test_a_false_value_info_does_not_win_over_inference():
    proto = model(
        [make_node("Relu", ["x"], ["r"]), make_node("Neg", ["r"], ["y"])],
        [info("x", [2, 3])],
        [info("y", None)],
        value_info=[info("r", [7, 7])],
    )
    module = import_onnx(proto)
    assert [n.result.tensor.shape for n in module.graph.nodes()] == [(2, 3), (2, 3)]


def test_what_the_file_states_fills_what_inference_leaves_open():
    nodes = [make_node("Reshape", ["x", "s"], ["r"]), make_node("Neg", ["r"], ["y"])]
    inputs = [info("x", ["N", 6]), info("s", [3], INT)]
    proto = model(nodes, inputs, [info("y", None)], value_info=[info("r", ["N", 2, 3])])
    module = import_onnx(proto)
    assert module.value("y").tensor.shape == (symbol("N"), 2, 3)


@pytest.mark.parametrize("nested", [False, True])
def test_onnx_is_asked_about_nodes_in_order(nested):
    """Its inference takes nodes as they come; NonZero has a type that only it tells."""
    nodes = [
        make_node("Neg", ["n"], ["y"]),
        make_node("NonZero", ["x"], ["n"]),
    ]
    out = info("y", None, INT)
    if nested:
        branches = {
            name: make_graph(
                [
                    make_node("Neg", [f"n{name}"], [f"y{name}"]),
                    make_node("NonZero", ["x"], [f"n{name}"]),
                ],
                name,
                [],
                [untyped(f"y{name}")],
            )
            for name in ("then_branch", "else_branch")
        }
        nodes = [make_node("If", ["c"], ["y"], **branches)]
    inputs = [info("x", [2, 3]), info("c", [], TensorProto.BOOL)]
    module = import_onnx(model(nodes, inputs, [out]))
    assert module.graph.outputs[0].tensor == TensorType(Elem.I64, (2, None))
    feed = {"x": np.array([[0, 1, 0], [2, 0, 3]], np.float32), "c": np.array(True)}
    assert run(export_onnx(module), feed)[0].tolist() == [[0, -1, -1], [-1, 0, -2]]
