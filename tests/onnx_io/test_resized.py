"""Inputs take other sizes than the file fixes, where the nodes can; the source is the judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_node
from protos import info, model, tensor

import qdqc
from qdqc.diagnostics import QdqcError
from qdqc.flow.listener import SILENT
from qdqc.flow.transform import transform
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.resized import Resized, resize, resized
from qdqc.tools.model_transform import main

FLOAT = TensorProto.FLOAT


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def net(outputs: Any = (10, 4, 16, 16), **more: Any) -> onnx.ModelProto:
    """[10,3,32,32], as exported, though nothing needs these sizes; the file states all of them."""
    nodes = [
        make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], name="conv"),
        make_node("Relu", ["c"], ["y"], name="relu"),
        *more.pop("nodes", []),
    ]
    held = [tensor("w", weights(4, 3, 3, 3)), *more.pop("held", [])]
    names = more.pop("names", ["y"])
    outs = [info(n, outputs if n == "y" else None) for n in names]
    known = [info("c", [10, 4, 16, 16])]
    return model(nodes, [info("x", [10, 3, 32, 32])], outs, held, value_info=known)


def reshaped(shape: list[int]) -> onnx.ModelProto:
    """A Reshape to constants behind it, and a matrix product."""
    nodes = [
        make_node("Reshape", ["y", "to"], ["flat"], name="flatten"),
        make_node("MatMul", ["flat", "v"], ["z"], name="head"),
    ]
    held = [tensor("to", np.array(shape, np.int64)), tensor("v", weights(shape[-1], 5))]
    return net(nodes=nodes, held=held, names=["z"])


def agree(module: Module, proto: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """onnxruntime on the source, its input's sizes changed by hand, is the judge."""
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    dims = changed.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    del changed.graph.value_info[:]
    for output in changed.graph.output:
        output.type.tensor_type.ClearField("shape")
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ran = [
        ort.InferenceSession(p.SerializeToString(), providers=["CPUExecutionProvider"])
        for p in (changed, export_onnx(module))
    ]
    expected, held = (s.run(None, {"x": x}) for s in ran)
    for a, b in zip(expected, held, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * float(np.abs(a).max()))


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (10, 3, 64, 48), (2, 3, 33, 7)])
def test_other_sizes_go_through_the_graph(shape: tuple[int, ...]) -> None:
    proto = net()
    before = proto.SerializeToString()
    module = import_onnx(proto, input_shapes=[shape])
    assert proto.SerializeToString() == before
    assert module.graph.inputs[0].tensor.shape == shape
    made = (shape[0], 4, (shape[2] + 1) // 2, (shape[3] + 1) // 2)
    assert module.graph.outputs[0].tensor.shape == made
    agree(module, proto, shape)
    agree(transform(proto, input_shapes=[shape]).module, proto, shape)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 80, 64)])
def test_names_and_question_marks_make_sizes_open(shape: tuple[int, ...]) -> None:
    proto = net()
    module = import_onnx(proto, input_shapes={"x": ["N", 3, "H", "?"]})
    n, h = symbol("N"), symbol("H")
    assert module.graph.inputs[0].tensor.shape == (n, 3, h, None)
    batch, channels, *_ = module.graph.outputs[0].tensor.shape or ()
    assert (batch, channels) == (n, 4)
    agree(module, proto, shape)
    agree(transform(proto, input_shapes={"x": ["N", 3, "H", "?"]}).module, proto, shape)


def test_a_symbol_keeps_its_name_behind_a_question_mark() -> None:
    proto = model([make_node("Relu", ["x"], ["y"])], [info("x", ["N", 3])], [info("y", ["N", 3])])
    module = import_onnx(proto, input_shapes={"x": ["?", 5]})
    assert module.graph.outputs[0].tensor.shape == (symbol("N"), 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((10, 4, 32, 32), "'Conv': weight takes 3 input channels, but x has 4"),
        ((10, 3, 64, 32), "'Reshape': [10, 4, 32, 16] does not reshape to [10, 1024]"),
    ],
)
def test_a_node_that_needs_the_size_is_named(given: tuple[int, ...], message: str) -> None:
    with pytest.raises(QdqcError) as caught:
        import_onnx(reshaped([10, 1024]), input_shapes=[given])
    text = str(caught.value)
    assert message in text
    axis = next(i for i, (a, b) in enumerate(zip(given, (10, 3, 32, 32), strict=True)) if a != b)
    assert f"dimension {axis} of input 'x' is {given[axis]}" in text
    assert ('ONNX node "conv"' in text) is (axis == 1)


def test_a_product_behind_what_takes_up_the_size() -> None:
    with pytest.raises(QdqcError, match=r"'MatMul'.*4096"):
        import_onnx(_wide(), input_shapes=[(10, 3, 64, 64)])


def _wide() -> onnx.ModelProto:
    nodes = [
        make_node("Flatten", ["y"], ["flat"], name="flatten"),
        make_node("MatMul", ["flat", "v"], ["z"], name="head"),
    ]
    return net(nodes=nodes, held=[tensor("v", weights(1024, 5))], names=["z"])


def test_what_only_the_run_shows_is_told_with_the_sizes() -> None:
    """The IR does not hold the state of an LSTM against its weights; onnxruntime does."""
    held = [tensor("w", weights(1, 32, 4)), tensor("r", weights(1, 32, 8))]
    node = make_node("LSTM", ["x", "w", "r", "", "", "h", "h"], ["y"], hidden_size=8, name="lstm")
    proto = model(
        [node], [info("x", [5, 1, 4]), info("h", [1, 1, 8])], [info("y", [5, 1, 1, 8])], held
    )
    assert transform(proto, input_shapes=[(7, 3, 4), (1, 3, 8)]).check().comparison.passed
    made = transform(proto, input_shapes=[(5, 1, 4), (1, 1, 6)])
    with pytest.raises(QdqcError) as caught:
        made.check()
    text = str(caught.value)
    assert "Name:'lstm'" in text
    assert "dimension 2 of input 'h' is 6, and 8 in the file: the node may need that" in text


def test_the_source_is_run_at_the_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(net(), path)
    for given in (net(), path):
        made = transform(given, input_shapes=[(2, 3, 40, 32)])
        check = made.check()
        assert check.comparison.passed
        assert check.against is not None
        assert not check.unchecked
        assert check.values["y"].shape == (2, 4, 20, 16)
    same = transform(path, input_shapes=[(10, 3, 32, 32)])
    assert same.source is not None
    assert not same.source.resized


def test_people_are_told_which_sizes_are_others() -> None:
    notes: list[str] = []
    warnings: list[Any] = []
    listener = replace(SILENT, note=notes.append, warn=warnings.append)
    transform(net(), input_shapes=[(10, 3, 40, 32)], listener=listener)
    assert "dimension 2 of input 'x' is 40, and 32 in the file" in notes
    assert not warnings


def test_a_batch_that_a_reshape_holds_fast_is_warned_of() -> None:
    """Ten images in one row of numbers: it runs, and nobody wants it."""
    to = tensor("to", np.array([10, -1, 4], np.int64))
    nodes = [make_node("Reshape", ["y", "to"], ["z"])]
    warnings: list[Any] = []
    listener = replace(SILENT, warn=warnings.append)
    proto = net(nodes=nodes, held=[to], names=["z"])
    made = transform(proto, input_shapes=[(20, 3, 32, 32)], listener=listener)
    assert made.check().comparison.passed
    (warning,) = warnings
    assert "output 'z' still begins with 10, as input 'x' does in the file" in str(warning)
    warnings.clear()
    transform(proto, input_shapes=[(10, 3, 64, 32)], listener=listener)
    assert not warnings


def test_shapes_inside_of_bodies_are_left_open() -> None:
    """A branch states sizes of its own values."""
    then, other = (
        make_graph([make_node(op, ["x"], [f"{op}_y"])], op, [], [info(f"{op}_y", [2, 3])])
        for op in ("Relu", "Neg")
    )
    node = make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    proto = model([node], [info("x", [2, 3]), info("c", [], TensorProto.BOOL)], [info("y", [2, 3])])
    module = import_onnx(proto, input_shapes={"x": [4, 3]})
    assert module.graph.outputs[0].tensor.shape == (4, 3)
    changed = resize(proto, {"x": (4, 3)})
    (graph, _) = (a.g for a in changed.graph.node[0].attribute)
    assert not graph.output[0].type.tensor_type.HasField("shape")
    assert resized(changed.graph, {"x": (4, 3)}) == ()
    assert resized(proto.graph, {"x": (4, 3)}) == (Resized("x", 0, 2, 4),)


def test_the_command_takes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(net(), tmp_path / "net.onnx")
    line = ["--model_def", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.qir")]
    assert (
        main([*line, "--input_shapes", "[N,3,?,W]", "--pixel_format", "rgb", "--scale", "1"]) == 0
    )
    assert "dimension 0 of input 'x' is N, and 10 in the file" in capsys.readouterr().err
    module = qdqc.load(tmp_path / "net.qir")
    assert module.graph.inputs[0].tensor.shape == (symbol("N"), 3, None, symbol("W"))
