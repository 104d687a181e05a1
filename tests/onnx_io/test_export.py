"""What goes out: opsets, clamps, quantized types, external data."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from protos import opset_of, run

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.fields import Flat
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.ops.activation import Clip, Relu
from qdqc.ops.control import If
from qdqc.ops.conv import Conv
from qdqc.ops.elementwise import Add
from qdqc.ops.opaque import Opaque
from qdqc.ops.quant import Dequantize, Quantize
from qdqc.ops.unary import Neg

X = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)


def f32(*shape):
    return TensorType(Elem.F32, shape)


def conv(clamp=None):
    module = Module()
    x = module.graph.add_input("x", f32(1, 3, 4, 4))
    weight = np.random.default_rng(2).standard_normal((2, 3, 1, 1)).astype(np.float32)
    w = module.add_constant("w", Data.of(weight))
    loc = Loc(("/c/Conv", "/r/Relu")) if clamp else Loc(("/c/Conv",))
    node = module.graph.insert(Conv(clamp=clamp), [x, w], names=["y"], loc=loc)
    module.graph.set_outputs([node.result])
    return module, np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], X)


@pytest.mark.parametrize(
    ("clamp", "types"),
    [
        ((0.0, math.inf), ["Conv", "Relu"]),
        ((0.0, 0.5), ["Conv", "Clip"]),
        ((-math.inf, 0.5), ["Conv", "Clip"]),
        (None, ["Conv"]),
    ],
)
@pytest.mark.parametrize("opset", [7, 10, 11, 17])
def test_clamps_become_nodes_of_their_own(clamp, types, opset):
    module, wanted = conv(clamp)
    proto = export_onnx(module, opset=opset)
    onnx.checker.check_model(proto, full_check=True)
    assert [n.op_type for n in proto.graph.node] == types
    if clamp:
        assert [n.output[0] for n in proto.graph.node] == ["y_preact", "y"]
        assert [n.name for n in proto.graph.node] == ["/c/Conv", "/r/Relu"]
        wanted = np.clip(wanted, *clamp)
    np.testing.assert_allclose(run(proto, {"x": X})[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_taken_name_is_avoided():
    module, _ = conv((0.0, math.inf))
    extra = module.graph.insert(Relu(), [module.value("x")], names=["y_preact"])
    module.graph.set_outputs([*module.graph.outputs, extra.result])
    names = [o for n in export_onnx(module).graph.node for o in n.output]
    assert sorted(names) == ["y", "y_preact", "y_preact_1"]


def test_the_lowest_opset_that_suffices():
    assert opset_of(export_onnx(conv()[0])) == 7
    assert export_onnx(conv()[0]).ir_version == 4
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.I8, (2,)))
    node = module.graph.insert(Add(), [x, x], names=["y"])
    module.graph.set_outputs([node.result])
    assert opset_of(export_onnx(module)) == 14, "Add takes 8-bit integers from opset 14 on"
    with pytest.raises(QdqcError, match=r"opset 13 can't spell it.*\n.*\n?.*opset 14 to"):
        export_onnx(module, opset=13)
    with pytest.raises(QdqcError, match="opset 999"):
        export_onnx(module, opset=999)


def opaque(type, version, *more):
    module = Module()
    x = module.graph.add_input("x", f32(2, 3))
    loc = Loc(("/u/Node",))
    op = Opaque(type=type, version=version, attrs=Flat([("axis", 1)]))
    node = module.graph.insert(op, [x], [f32(2, 3)], ["y"], loc=loc)
    last = node
    for index, other in enumerate(more):
        last = module.graph.insert(other, [last.result], names=[f"z{index}"])
    module.graph.set_outputs([last.result])
    return module


def test_opaque_nodes_keep_the_opset_where_their_schema_changed_its_meaning():
    assert opset_of(export_onnx(opaque("Softmax", 1))) == 7
    assert opset_of(export_onnx(opaque("Softmax", 11))) == 11
    assert opset_of(export_onnx(opaque("Softmax", 13))) == 13
    with pytest.raises(QdqcError) as caught:
        export_onnx(opaque("Softmax", 11), opset=13)
    assert "ONNX changed 'Softmax'" in str(caught.value)
    assert '"/u/Node"' in str(caught.value)


def test_two_nodes_that_no_opset_spells_together():
    from qdqc.ops.activation import Gelu

    with pytest.raises(QdqcError, match="but the nodes before it need"):
        export_onnx(opaque("Softmax", 11, Gelu()))


def test_an_opaque_node_moves_to_an_opset_that_only_takes_more():
    module = opaque("Flatten", 9, Clip(max=1.0))
    assert opset_of(export_onnx(module, opset=17)) == 17


def quantized():
    """x -> q -> dq, and an int8 weight per channel, as a lowered module has them."""
    module = Module()
    x = module.graph.add_input("x", f32(1, 3, 4, 4))
    quant = Quant.make(0.05, 128)
    types = TensorType(Elem.U8, (1, 3, 4, 4), quant)
    stored = module.graph.insert(Quantize(), [x], [types], ["x_q"]).result
    real = module.graph.insert(Dequantize(), [stored], names=["x_d"]).result
    per_channel = Quant.make([0.1, 0.2], 0, axis=0)
    data = Data.of(np.arange(6, dtype=np.int8).reshape(2, 3, 1, 1))
    weight = module.add_constant("w", data, TensorType(Elem.I8, (2, 3, 1, 1), per_channel))
    w = module.graph.insert(Dequantize(), [weight], names=["w_d"]).result
    y = module.graph.insert(Conv(), [real, w], names=["y"]).result
    module.graph.set_outputs([y])
    return module


def test_types_become_scales_and_zero_points():
    proto = export_onnx(quantized())
    onnx.checker.check_model(proto, full_check=True)
    q, dq, dw, _ = proto.graph.node
    assert list(q.input) == ["x", "x_q_scale", "x_q_zero_point"]
    assert list(dq.input) == ["x_q", "x_q_scale", "x_q_zero_point"], "equal parameters are shared"
    assert list(dw.input) == ["w", "w_d_scale", "w_d_zero_point"]
    assert [(a.name, a.i) for a in dw.attribute] == [("axis", 0)]
    held = {t.name: t for t in proto.graph.initializer}
    assert held["x_q_zero_point"].data_type == TensorProto.UINT8
    assert list(held["x_q_scale"].dims) == []
    assert held["w_d_zero_point"].data_type == TensorProto.INT8
    x_d = (np.clip(np.rint(X / np.float32(0.05)) + 128, 0, 255) - 128) * np.float32(0.05)
    w_d = np.arange(6, dtype=np.float32).reshape(2, 3) * np.array([[0.1], [0.2]], np.float32)
    wanted = np.einsum("oi,nihw->nohw", w_d, x_d)
    np.testing.assert_allclose(run(proto, {"x": X})[0], wanted, rtol=1e-5, atol=1e-5)
    again = import_onnx(proto)
    assert [n.op.name for n in again.walk()] == [n.op.name for n in quantized().walk()]
    assert again.value("x_q").type == quantized().value("x_q").type
    assert again.constants["w"].type == quantized().constants["w"].type


def test_quantized_modules_must_be_lowered_first():
    module = quantized()
    (node,) = [n for n in module.walk() if isinstance(n.op, Conv)]
    node.set_operand(0, module.value("x_q"))
    with pytest.raises(QdqcError, match="lower the module first"):
        export_onnx(module)


def test_elided_weights_are_refused():
    module, _ = conv()
    module.constants["w"].data = Data.elided(Elem.F32, (2, 3, 1, 1), "abcd1234")
    with pytest.raises(QdqcError, match="%w was elided"):
        export_onnx(module)


def test_value_info_on_request():
    module = quantized()
    assert not export_onnx(module).graph.value_info
    shown = {v.name for v in export_onnx(module, value_info=True).graph.value_info}
    assert shown == {"x_q", "x_d", "w_d"}


def test_symbols_go_out_as_they_came():
    module = Module()
    dims = (symbol("N"), symbol("batch size"), symbol("past") + 1, None)
    x = module.graph.add_input("x", f32(*dims))
    module.graph.set_outputs([module.graph.insert(Relu(), [x], names=["y"]).result])
    shape = export_onnx(module).graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in shape] == ["N", "batch size", "past+1", ""]
    assert import_onnx(export_onnx(module)).graph.inputs[0].tensor.shape == dims


def weighty():
    module = Module()
    x = module.graph.add_input("x", f32(1000))
    for name in ("a", "b", "c"):
        array = np.full(1000, 2.0 if name == "c" else 1.0, np.float32)
        x = module.graph.insert(Add(), [x, module.add_constant(name, Data.of(array))]).result
    module.graph.set_outputs([x])
    return module


@pytest.mark.parametrize("as_proto", [False, True])
def test_external_data_out_and_in(tmp_path, as_proto):
    module = weighty()
    path = tmp_path / "m.onnx"
    save_onnx(export_onnx(module) if as_proto else module, path, external=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 2000
    x = np.arange(1000, dtype=np.float32)
    np.testing.assert_array_equal(run(str(path), {"x": x})[0], x + 4)
    back = import_onnx(path)
    np.testing.assert_array_equal(back.constants["c"].data.array(), np.full(1000, 2.0))
    if not as_proto:
        assert (tmp_path / "m.onnx.data").stat().st_size == 4096 + 4000, "equal ones once"


def test_saving_over_its_own_weights_keeps_them(tmp_path):
    path = tmp_path / "m.onnx"
    save_onnx(weighty(), path, external=True)
    save_onnx(import_onnx(path), path, external=True)
    x = np.zeros(1000, np.float32)
    np.testing.assert_array_equal(run(str(path), {"x": x})[0], x + 4)


def test_links_are_replaced_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "m.onnx.data").symlink_to(victim)
    save_onnx(weighty(), folder / "m.onnx", external=True)
    assert victim.read_text() == "keep me"
    assert not (folder / "m.onnx.data").is_symlink()


def test_nothing_is_left_where_it_can_not_be_written(tmp_path):
    with pytest.raises(QdqcError, match="can't write"):
        save_onnx(weighty(), tmp_path / "no" / "m.onnx")
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(QdqcError, match="folder"):
        save_onnx(weighty(), tmp_path / "m.onnx", external=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_nested_graph_that_gives_an_outer_value():
    info = make_tensor_value_info("x", TensorProto.FLOAT, [2])
    then = make_graph(
        [make_node("Relu", ["x"], ["r"])], "t", [], [make_tensor_value_info("r", 1, [2])]
    )
    other = make_graph(
        [make_node("Identity", ["x"], ["i"])], "e", [], [make_tensor_value_info("i", 1, [2])]
    )
    condition = make_tensor_value_info("c", TensorProto.BOOL, [])
    node = make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    graph = make_graph([node], "g", [info, condition], [make_tensor_value_info("y", 1, [2])])
    module = import_onnx(make_model(graph, opset_imports=[make_opsetid("", 17)]))
    (found,) = module.graph.nodes()
    # As a pass that drops identities leaves it.
    found.graphs[1].set_output(0, module.value("x"))
    feed = {"x": np.array([-1, 1], np.float32), "c": np.array(False)}
    proto = export_onnx(module)
    onnx.checker.check_model(proto)
    np.testing.assert_array_equal(run(proto, feed)[0], feed["x"])


def test_a_nested_graph_that_gives_one_value_twice():
    """onnxruntime computes wrong numbers where two outputs of a branch are one value."""
    module = Module()
    x = module.graph.add_input("x", f32(2))
    condition = module.graph.add_input("c", TensorType(Elem.BOOL, ()))
    branches = [Graph(module), Graph(module)]
    for branch, op in zip(branches, (Relu(), Neg()), strict=True):
        made = branch.insert(op, [x]).result
        branch.set_outputs([made, made])
    node = module.graph.insert(If(), [condition], [f32(2)] * 2, ["y", "z"], graphs=branches)
    module.graph.set_outputs([r for r in node.results if r is not None])
    proto = export_onnx(module)
    onnx.checker.check_model(proto)
    for chosen, expected in ((True, [0, 1]), (False, [1, -1])):
        feed = {"x": np.array([-1, 1], np.float32), "c": np.array(chosen)}
        for found in run(proto, feed):
            np.testing.assert_array_equal(found, np.array(expected, np.float32))
