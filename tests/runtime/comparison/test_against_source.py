"""A module held against its source, which onnxruntime runs and the importer never sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.flow.transform import Transformed, transform
from qdqc.ops import LeakyRelu
from qdqc.report.against_text import doubts, render_steadiness, steadiness_entry
from qdqc.runtime.comparison.compare import Level
from qdqc.runtime.comparison.steadiness import nudged
from qdqc.runtime.sessions.source_model import Source, SourceError

FLOAT = TensorProto.FLOAT


def info(name: str, shape: Any, elem: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, elem, shape)


def model(nodes: Any, outputs: Any, constants: dict[str, Any] | None = None, **more: Any) -> Any:
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    inputs = more.pop("inputs", [info("x", [2, 6])])
    graph = helper.make_graph(nodes, "g", inputs, [info(n, None) for n in outputs], held)
    opsets = [helper.make_opsetid("", more.get("opset", 17))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def weights(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def leaky(outputs: tuple[str, ...] = ("y",)) -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("LeakyRelu", ["m"], ["r"], alpha=0.5),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    return model(nodes, outputs, {"w": weights(6, 8), "v": weights(8, 4)})


def chaotic(rounds: int) -> ModelProto:
    """A convolution whose last digits the logistic map makes much of; a fold rounds them anew."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"]),
        helper.make_node("Sigmoid", ["n"], ["z0"]),
    ]
    for i in range(rounds):
        nodes += [
            helper.make_node("Sub", ["one", f"z{i}"], [f"a{i}"]),
            helper.make_node("Mul", [f"z{i}", f"a{i}"], [f"p{i}"]),
            helper.make_node("Mul", [f"p{i}", "four"], [f"z{i + 1}"]),
        ]
    nodes.append(helper.make_node("Sigmoid", [f"z{rounds}"], ["y"]))
    scales = np.abs(weights(8)) + np.float32(0.5)
    constants = {"w": weights(8, 3, 3, 3), "s": scales, "b": weights(8)}
    numbers = {"one": np.float32(1), "four": np.float32(3.99)}
    return model(nodes, ["y"], constants | numbers, inputs=[info("x", [1, 3, 8, 8])])


def misread(result: Transformed, alpha: float) -> Transformed:
    """As if the importer had read another attribute: both modules have it."""
    for module in (result.module, result.original):
        node = next(n for n in module.graph.nodes() if isinstance(n.op, LeakyRelu))
        made = module.graph.insert(
            LeakyRelu(alpha=alpha), node.operands, [node.result.type], before=node
        )
        name = node.result.name
        node.result.replace_uses(made.result)
        module.graph.erase(node)
        made.result.rename(name)
    return result


def test_an_error_of_the_importer_shows() -> None:
    check = misread(transform(leaky()), 0.1).check()
    assert check.against is not None
    failed = check.comparison.first_failure
    assert failed is not None
    assert failed.name == "r"
    assert check.importer_differs
    assert not transform(leaky()).check().importer_differs


def test_an_error_of_a_pass_is_told_from_it() -> None:
    result = transform(leaky())
    original = result.original
    wrong = misread(result, 0.1)
    fresh = transform(leaky())
    check = Transformed(wrong.module, fresh.original, 3, 3, fresh.source).check()
    assert original is not fresh.original
    assert not check.comparison.passed
    assert not check.importer_differs


def test_a_small_error_passes_and_is_doubted() -> None:
    check = misread(transform(leaky()), 0.49).check()
    assert check.comparison.passed
    assert check.against is not None
    assert [row.name for row in check.against.doubtful] == ["r", "y"]
    (warning,) = doubts(check.against, are_random=True)
    assert "this is more than rounding" in warning.message
    assert not steadiness_entry(check.against)["sure"]


def test_a_sure_check_says_how_sure() -> None:
    check = transform(leaky()).check()
    assert check.against is not None
    assert check.against.steadiness.decibels(["y"]) > 110
    assert not doubts(check.against, are_random=True)
    assert "the source agrees with itself to 1" in render_steadiness(check.against)
    assert steadiness_entry(check.against)["sure"] is True


def test_what_the_source_does_not_hold_to_itself_passes_and_is_called_weak() -> None:
    steady, shaky = transform(chaotic(2)).check(), transform(chaotic(16)).check()
    assert steady.comparison.passed
    assert steady.against is not None
    assert not steady.against.let_through
    assert shaky.comparison.passed
    assert shaky.against is not None
    assert "y" in shaky.against.shaky
    assert "z16" in shaky.against.let_through
    (warning,) = doubts(shaky.against, are_random=True)
    assert warning.message.startswith("the check is weak: on random inputs the source itself")
    assert "`test_input`" in warning.render()


def test_a_wrong_value_before_the_noise_fails_all_the_same() -> None:
    result = transform(chaotic(16))
    node = next(n for n in result.module.graph.nodes() if n.result.name == "z0")
    weight = result.module.graph.nodes().__next__().operands[1]
    assert weight is not None
    scaled = result.module.add_constant("other", weight.data.of(weight.data.array() * 1.3))
    next(result.module.graph.nodes()).set_operand(1, scaled)
    check = result.check()
    assert node.result.name == "z0"
    assert not check.comparison.passed


@pytest.mark.parametrize("cut", [None, ["r"], ["r", "m"], ["y", "x"]])
def test_any_values_may_be_the_outputs(cut: list[str] | None) -> None:
    check = transform(leaky(), output_names=cut).check()
    assert check.against is not None
    assert check.comparison.passed
    assert set(cut or ["y"]) - {"x"} <= {row.name for row in check.comparison.rows}


def test_a_file_with_its_weights_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(leaky(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    check = transform(path, output_names=["r"]).check()
    assert check.against is not None
    assert check.comparison.passed


def test_a_model_in_memory_is_left_as_it_is() -> None:
    proto = leaky()
    before = proto.SerializeToString()
    transform(proto, output_names=["m"]).check()
    assert proto.SerializeToString() == before


def test_sizes_that_are_stated_are_those_that_run() -> None:
    proto = leaky()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    check = transform(proto, input_shapes={"x": [5, 6]}).check()
    assert check.against is not None
    assert check.values["y"].shape == (5, 4)


def test_what_onnxruntime_does_not_load_is_told() -> None:
    proto = leaky()
    proto.ir_version = 99
    check = transform(proto).check()
    assert check.against is None
    assert "onnxruntime can't load the model" in check.unchecked
    assert check.comparison.passed
    with pytest.raises(SourceError):
        Source(proto).open(optimise="off")


def test_a_module_is_its_own_source() -> None:
    check = transform(transform(leaky()).module).check()
    assert check.against is None
    assert check.unchecked == ""


def test_an_output_of_another_type_does_not_match() -> None:
    result = transform(leaky())
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)]
    other = transform(model(nodes, ["y"]))
    check = Transformed(result.module, other.original, 1, 1, other.source)
    (row,) = check.check().comparison.rows
    assert row.level is Level.NOT_MATCH


def test_an_output_without_a_finite_number_makes_the_check_weak() -> None:
    proto = leaky()
    proto.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.full((8, 4), np.nan, np.float32), "v")
    )
    check = transform(proto).check()
    assert check.against is not None
    assert check.against.not_finite == ("y",)
    assert "no finite number of 'y'" in doubts(check.against, are_random=True)[0].message


def test_only_floats_move_and_only_in_their_last_digits() -> None:
    x = weights(100)
    moved = nudged({"x": x, "i": np.arange(3), "s": [x, x]})
    assert not np.array_equal(moved["x"], x)
    np.testing.assert_allclose(moved["x"], x, rtol=5e-7)
    np.testing.assert_array_equal(moved["i"], np.arange(3))
    assert len(moved["s"]) == 2


def test_a_flag_that_is_neither_0_nor_1_is_refused() -> None:
    """onnxruntime takes ReduceMin's keepdims of -3 for 0, and numpy's reading of it is 1."""
    nodes = [helper.make_node("ReduceMin", ["x"], ["y"], axes=[1], keepdims=-3)]
    with pytest.raises(QdqcError, match="attribute 'keepdims' is -3, but 0 or 1 is needed"):
        transform(model(nodes, ["y"], opset=13))


def test_random_inputs_that_do_not_run_end_in_the_next_step() -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    inputs = [info("x", [2, 6]), info("to", [1], TensorProto.INT64)]
    with pytest.raises(QdqcError) as caught:
        transform(model(nodes, ["y"], inputs=inputs)).check()
    assert "`test_input`" in str(caught.value)
    assert "`skip_validation`" in str(caught.value)
