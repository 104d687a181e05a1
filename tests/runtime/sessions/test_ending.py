"""A batch that is transposed before a product is cast: over it onnxruntime ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

PERMS = [(1, 0, 2), (1, 2, 0), (1, 2, 0, 3), (1, 2, 3, 0)]
LOAD = """
import sys, onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def transposed(perm: tuple[int, ...], elem: int, product: int = TensorProto.FLOAT) -> ModelProto:
    """x, transposed, cast where the product is of another type, and multiplied."""
    shape = [0] * len(perm)
    for size, axis in zip((2, 3, 4, 8)[-len(perm) :], perm, strict=True):
        shape[axis] = size
    weight = np.ones((8, 5), helper.tensor_dtype_to_np_dtype(product))
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=perm)]
    if elem != product:
        nodes.append(helper.make_node("Cast", ["t"], ["c"], to=product))
    nodes.append(helper.make_node("MatMul", [nodes[-1].output[0], "w"], ["y"]))
    value = helper.make_tensor_value_info
    ends = [value("x", elem, shape)], [value("y", product, None)]
    graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("perm", PERMS)
@pytest.mark.parametrize("elem", [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.DOUBLE])
def test_a_source_with_a_cast_there_comes_in(perm: tuple[int, ...], elem: int) -> None:
    assert transform(transposed(perm, elem)).check().comparison.passed


@pytest.mark.parametrize("perm", PERMS)
def test_a_source_of_halves_is_opened(perm: tuple[int, ...]) -> None:
    assert open_session(transposed(perm, TensorProto.FLOAT16, TensorProto.FLOAT16))


@pytest.mark.parametrize("mode", ["F32", "F16", "DYN8", "W8"])
@pytest.mark.parametrize("elem", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32])
def test_what_is_written_does_not_end_the_process(elem: int, mode: str, tmp_path: Path) -> None:
    for number, perm in enumerate(PERMS):
        deployed = deploy(transform(transposed(perm, elem)).module, Deployment(mode=mode))
        model, _ = deployed.write(tmp_path / f"{number}.onnx")
        assert deployed.check(deployed.samples()).passed
        assert subprocess.run([sys.executable, "-c", LOAD, str(model)], check=False).returncode == 0
