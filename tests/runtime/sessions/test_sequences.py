"""Inputs and outputs that are sequences or optionals, in runs, checks and deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import Deployment, deploy
from qdqc.flow.listener import SILENT
from qdqc.flow.samples import DataSource
from qdqc.flow.transform import transform
from qdqc.runtime.sessions.onnx_file import OnnxRunner
from qdqc.runtime.sessions.sequences import as_given, flattened
from qdqc.runtime.sessions.session import Runner

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
W = np.eye(4, dtype=np.float32) * 2
OPTIONAL = helper.make_value_info(
    "o", helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 4]))
)
SEQUENCE = helper.make_tensor_sequence_value_info("s", FLOAT, [2, 4])
TENSOR = helper.make_tensor_value_info("x", FLOAT, [2, 4])
Y = helper.make_tensor_value_info("y", FLOAT, None)
node = helper.make_node


def model(nodes: Any, source: Any, outputs: Any) -> ModelProto:
    constants = [numpy_helper.from_array(W, "w"), numpy_helper.from_array(np.array(0), "i")]
    graph = helper.make_graph(nodes, "g", [source], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


TAKES_SEQUENCE = model(
    [node("SequenceAt", ["s", "i"], ["x"]), node("MatMul", ["x", "w"], ["y"])], SEQUENCE, [Y]
)
TAKES_OPTIONAL = model(
    [node("OptionalGetElement", ["o"], ["x"]), node("MatMul", ["x", "w"], ["y"])], OPTIONAL, [Y]
)
GIVES_SEQUENCE = model(
    [node("MatMul", ["x", "w"], ["y"]), node("SequenceConstruct", ["x", "y"], ["s"])],
    TENSOR,
    [helper.make_tensor_sequence_value_info("s", FLOAT, None), Y],
)


def test_a_sequence_goes_in_and_is_no_tap() -> None:
    module = transform(TAKES_SEQUENCE).module
    values = Runner(module, None).run({"s": [X, X + 1]})
    assert "s" not in values
    np.testing.assert_allclose(values["y"], 2 * X)


def test_a_sequence_comes_out_in_its_parts() -> None:
    values = Runner(transform(GIVES_SEQUENCE).module).run({"x": X})
    assert list(values) == ["s[0]", "s[1]", "y"]
    np.testing.assert_array_equal(values["s[0]"], X)
    np.testing.assert_allclose(values["s[1]"], 2 * X)


@pytest.mark.parametrize("proto", [TAKES_SEQUENCE, TAKES_OPTIONAL, GIVES_SEQUENCE])
def test_random_inputs_check_them_against_the_source(proto: ModelProto) -> None:
    check = transform(proto).check()
    assert check.against is not None
    assert check.comparison.passed
    assert "y" in {row.name for row in check.comparison.rows}


@pytest.mark.parametrize("mode", ["F32", "DYN8", "W8", "F16"])
@pytest.mark.parametrize("proto", [TAKES_SEQUENCE, TAKES_OPTIONAL, GIVES_SEQUENCE])
def test_a_deployment_is_checked_proven_and_timed_with_them(
    proto: ModelProto, mode: str, tmp_path: Path
) -> None:
    deployed = deploy(transform(proto).module, Deployment(mode=mode))
    samples = deployed.samples()
    comparison = deployed.check(samples)
    assert comparison.passed
    assert "y" in {row.name for row in comparison.rows}
    model, _ = deployed.write(tmp_path / "m.onnx")
    audit = deployed.prove(model, samples.first).audit
    assert len(audit.products("integer" if mode in ("DYN8", "W8") else "float")) == 1
    assert deployed.benchmark(model, samples.first).times
    written, module = OnnxRunner(model), Runner(deployed.module)
    np.testing.assert_array_equal(written.run(samples.first)["y"], module.run(samples.first)["y"])


def test_data_for_a_sequence_are_refused_by_name() -> None:
    module = transform(TAKES_SEQUENCE).module
    with pytest.raises(QdqcError, match="input 's' is a sequence"):
        DataSource(dataset=[{"s": X}]).open(module.graph, SILENT)


def test_what_holds_nothing_has_no_array() -> None:
    assert as_given(None) is None
    assert [a.tolist() for a in as_given([[1], [2]])] == [[1], [2]]
    assert list(flattened({"a": None, "b": [None, X], "c": X})) == ["b[1]", "c"]
