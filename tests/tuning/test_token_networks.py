"""A transformer's block with outliers through the whole flow: what tuning does to what is deployed.

The float function is that of onnxruntime on the original model, the cosines are numpy's.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.ir.graph import Module
from qdqc.ops import LayerNormalization, MatMul, Mul
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment

WIDTH, HIDDEN, HEADS, TOKENS = 32, 64, 2, 8
WEIGHTS = 6
"""Products with weights: q, k, v, their projection, and two of the feed-forward."""

Samples = list[dict[str, npt.NDArray[np.float32]]]


def block() -> onnx.ModelProto:
    """Post-norm attention and feed-forward over x [1,T,32]; two channels of the gains are large."""
    rng = np.random.default_rng(0)
    held: list[onnx.TensorProto] = []

    def constant(name: str, array: Any) -> str:
        held.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def linear(x: str, y: str, size: tuple[int, int]) -> list[onnx.NodeProto]:
        weight = rng.normal(size=size).astype(np.float32) / np.float32(np.sqrt(size[0]))
        bias = 0.1 * rng.normal(size=size[1]).astype(np.float32)
        make = helper.make_node
        product = make("MatMul", [x, constant(f"{y}_w", weight)], [f"{y}_m"])
        return [product, make("Add", [f"{y}_m", constant(f"{y}_b", bias)], [y])]

    def norm(x: str, y: str) -> onnx.NodeProto:
        gain = np.ones(WIDTH, np.float32)
        gain[[3, 17]] = 30
        given = [x, constant(f"{y}_g", gain), constant(f"{y}_c", np.zeros(WIDTH, np.float32))]
        return helper.make_node("LayerNormalization", given, [y])

    def heads(x: str, perm: list[int]) -> list[onnx.NodeProto]:
        shape = constant(f"{x}_s", np.array([0, 0, HEADS, WIDTH // HEADS]))
        reshape = helper.make_node("Reshape", [x, shape], [f"{x}_r"])
        return [reshape, helper.make_node("Transpose", [f"{x}_r"], [f"{x}_h"], perm=perm)]

    make = helper.make_node
    nodes = [norm("x", "n")]
    for name in "qkv":
        nodes += linear("n", name, (WIDTH, WIDTH))
        nodes += heads(name, [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
    nodes += [
        make("MatMul", ["q_h", "k_h"], ["scores"]),
        make("Mul", ["scores", constant("scale", np.float32(0.25))], ["scaled"]),
        make("Softmax", ["scaled"], ["weights"], axis=-1),
        make("MatMul", ["weights", "v_h"], ["mixed"]),
        make("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        make("Reshape", ["back", constant("flat", np.array([0, 0, WIDTH]))], ["joined"]),
        *linear("joined", "o", (WIDTH, WIDTH)),
        make("Add", ["o", "n"], ["residual"]),
        norm("residual", "n2"),
        *linear("n2", "f", (WIDTH, HIDDEN)),
        make("Relu", ["f"], ["act"]),
        *linear("act", "y", (HIDDEN, WIDTH)),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, TOKENS, WIDTH]) for n in "xy"]
    graph = helper.make_graph(nodes, "block", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def drawn(count: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(12, WIDTH))
    made = [rng.normal(size=(1, TOKENS, 12)) @ mixing for _ in range(count)]
    return [{"x": m.astype(np.float32)} for m in made]


def outputs(model: Any, samples: Samples) -> npt.NDArray[np.float64]:
    net = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([net.run(None, s)[0] for s in samples]).astype(np.float64)


def noise(found: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> float:
    """Share of the energy that is lost."""
    return float(np.square(found - exact).sum() / np.square(exact).sum())


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """What onnxruntime runs after its optimisations, by op."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.fixture(scope="module")
def deployed() -> dict[str, qdqc.Quantized]:
    """By recipe; an empty name is none."""
    return {
        recipe: qdqc.quantize(block(), drawn(40, 1), method="max", recipe=recipe or None)
        for recipe in ("", "balanced", "best")
    }


def test_every_product_with_a_weight_is_integer_after_tuning_too(
    deployed: dict[str, qdqc.Quantized], tmp_path: Path
) -> None:
    for recipe, found in deployed.items():
        runs = kernels(found.model, tmp_path)
        assert runs["MatMulIntegerToFloat"] == WEIGHTS, recipe
        assert runs["MatMul"] + runs["FusedMatMul"] == 2, "the two of the attention"
        assert found.report.proof.bad_fusions == []


@pytest.mark.parametrize("recipe", ["balanced", "best"])
def test_outliers_cost_far_less_when_they_are_smoothed(
    deployed: dict[str, qdqc.Quantized], recipe: str
) -> None:
    held_back = drawn(30, 2)
    exact = outputs(block(), held_back)
    plain, tuned = (noise(outputs(deployed[r].model, held_back), exact) for r in ("", recipe))
    assert tuned < 0.5 * plain
    steps = {s.pipeline.partition("{")[0]: s for s in deployed[recipe].report.recipe}
    assert steps["smooth-activations"].kept


def test_smoothing_puts_a_mul_only_where_the_residual_reads_the_value_too() -> None:
    module: Module = run(qdqc.import_onnx(block()), "@transform")
    smooth = run(module, "smooth-activations", samples=drawn(20, 1))
    before, after = (
        {kind: sum(isinstance(n.op, kind) for n in m.graph.nodes()) for kind in KINDS}
        for m in (module, smooth)
    )
    assert after[MatMul] == before[MatMul]
    assert after[LayerNormalization] == before[LayerNormalization] == 2
    # n feeds q, k, v and the residual; n2 feeds one product and takes the division in.
    assert after[Mul] - before[Mul] <= 2
    exact = outputs(block(), drawn(4, 5))
    found = outputs(qdqc.export_onnx(smooth), drawn(4, 5))
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


KINDS = (MatMul, Mul, LayerNormalization)


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_alone_in_fewer_bits_are_nearer_than_without_data(bits: int) -> None:
    module = run(qdqc.import_onnx(block()), "@transform")
    samples, held_back = drawn(40, 1), drawn(30, 2)
    exact = outputs(block(), held_back)
    mode = f"W{bits}"
    lost: dict[str, float] = {}
    for name in ("", f"round-weights{{bits={bits}}}"):
        tuned = run(module, name, samples=samples)
        proto = qdqc.export_onnx(
            run(tuned, Deployment(mode=mode).stages(calibrated=False).pipeline)
        )
        lost[name] = noise(outputs(proto, held_back), exact)
    plain, tuned = lost.values()
    assert tuned < (0.95 if bits == 8 else 0.8) * plain
    assert plain < (1e-3 if bits == 8 else 0.1)
