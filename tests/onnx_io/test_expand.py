"""Ops that an opset lacks are written out, and runtimes find them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.schemas import NEWEST
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.text.parser import parse_module

CASES = {
    "gelu": ("gelu(%x)", "3,8", 20, 9, ["Div", "Erf", "Add", "Mul", "Mul"]),
    "gelu tanh": (
        'gelu(%x) {approximate = "tanh"}',
        *("3,8", 20, 7, ["Pow", "Mul", "Add", "Mul", "Tanh", "Mul", "Add", "Mul"]),
    ),
    "swish": ("swish(%x) {alpha = 1.7}", "3,8", 24, 7, ["Mul", "Sigmoid", "Mul"]),
    "silu": ("swish(%x)", "3,8", 24, 7, ["Sigmoid", "Mul"]),
    "hard_swish": ("hard_swish(%x)", "3,8", 14, 7, ["HardSigmoid", "Mul"]),
    "mish": ("mish(%x)", "3,8", 18, 7, ["Softplus", "Tanh", "Mul"]),
    "layer": (
        "layer_normalization(%x, %s, %b)",
        *("3,8", 17, 7),
        ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"],
    ),
    "layer over two axes": (
        "layer_normalization(%x, %s) {axis = 1}",
        *("2,3,8", 17, 7),
        ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"],
    ),
    "rms": (
        "rms_normalization(%x, %s)",
        *("3,8", 23, 7, ["Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]),
    ),
    "group": (
        "group_normalization(%x, %s, %b) {num_groups = 2}",
        *("2,8,3,3", 21, 7),
        ["Reshape", "InstanceNormalization", "Reshape", "Reshape", "Mul", "Reshape", "Add"],
    ),
    "bias": ("matmul(%x, %w, %b)", "2,3,8", 99, 7, ["MatMul", "Add"]),
    "bias and clamp": (
        "matmul(%x, %w, %b) {clamp = [0, 6]}",
        *("2,3,8", 99, 7, ["MatMul", "Add", "Clip"]),
    ),
}


def module(name: str, opset: int, elem: str = "f32", symbolic: bool = False) -> Module:
    body, shape = CASES[name][:2]
    rng = np.random.default_rng(3)

    def dense(*dims: int) -> str:
        numbers = ", ".join(str(round(float(v), 2)) for v in rng.normal(0, 1, dims).reshape(-1))
        return f"{elem}[{','.join(map(str, dims))}] = dense[{numbers}]"

    dims = {"s": (8,), "b": (8,), "w": (8, 8)}
    used = [f"  const %{n} : {dense(*d)}" for n, d in dims.items() if f"%{n}" in body]
    type_ = f"{elem}[{shape.replace('3', 'N').replace('2', 'M') if symbolic else shape}]"
    lines = [
        f'module @m {{opsets = {{"" = {opset}}}}} {{',
        *used,
        f"  graph (%x : {type_}) -> (%y) {{",
        f'    %y = {body} : {type_} loc("/first", "/last")',
        "  }",
        "}",
    ]
    return parse_module("\n".join(lines), verify=True)


def make_input(name: str, elem: str = "f32") -> np.ndarray[Any, Any]:
    dims = [int(d) for d in CASES[name][1].split(",")]
    found = np.random.default_rng(5).normal(0, 2, dims)
    return found.astype(np.float16 if elem == "f16" else np.float32)


def run_plainly(proto: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x})[0])


def by_standard(name: str, elem: str = "f32") -> np.ndarray[Any, Any]:
    """The whole op by onnx's own reference; numpy for what ONNX has no op for."""
    x, since = make_input(name, elem), CASES[name][2]
    whole = module(name, since, elem)
    if since <= NEWEST:
        found = ReferenceEvaluator(export_onnx(whole)).run(None, {"x": x})
        return np.asarray(found[0])  # type: ignore[index]
    w, b = (whole.constants[n].data.array() for n in "wb")
    low, high = (0, 6) if "clamp" in name else (-np.inf, np.inf)
    return np.asarray(np.clip(x @ w + b, low, high))


@pytest.mark.parametrize("name", CASES)
def test_written_out_at_the_lowest_opset(name: str) -> None:
    _, _, _, lowest, ops = CASES[name]
    proto = export_onnx(module(name, 11))
    assert proto.opset_import[0].version == lowest
    assert [n.op_type for n in proto.graph.node] == ops
    onnx.checker.check_model(proto, full_check=True)
    wanted = by_standard(name)
    found = run_plainly(proto, make_input(name))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", CASES)
def test_names_of_the_first_and_the_last_node(name: str) -> None:
    nodes = export_onnx(module(name, 11)).graph.node
    names = [n.name for n in nodes]
    assert (names[0], names[-1]) == ("/first", "/last")
    assert len(set(names)) == len(names)
    assert nodes[-1].output[0] == "y"


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[2] <= NEWEST])
def test_whole_where_the_source_may_have_had_it(name: str) -> None:
    since = CASES[name][2]
    proto = export_onnx(module(name, since))
    assert (proto.opset_import[0].version, len(proto.graph.node)) == (since, 1)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[2] <= NEWEST])
def test_a_wanted_opset_decides(name: str) -> None:
    _, _, since, _, ops = CASES[name]
    assert len(export_onnx(module(name, 11), opset=since).graph.node) == 1
    older = export_onnx(module(name, since), opset=13)
    kinds = [n.op_type for n in older.graph.node]
    assert kinds == ops


@pytest.mark.parametrize("name", CASES)
def test_unknown_sizes(name: str) -> None:
    proto = export_onnx(module(name, 11, symbolic=True))
    onnx.checker.check_model(proto, full_check=True)
    wanted = by_standard(name)
    found = run_plainly(proto, make_input(name))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("group", "mish", "hard_swish")])
def test_halves(name: str) -> None:
    """Statistics of a narrow type are taken in float32, as the standard says."""
    proto = export_onnx(module(name, 11, "f16"))
    onnx.checker.check_model(proto, full_check=True)
    casts = [n.op_type for n in proto.graph.node].count("Cast")
    assert casts == (2 if name.startswith(("layer", "rms")) else 0)
    wanted = by_standard(name, "f16").astype(np.float64)
    found = run_plainly(proto, make_input(name, "f16"))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-3 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("gelu", "Gelu"),
        ("layer", "LayerNormalization"),
        ("rms", "SimplifiedLayerNormalization"),
        ("swish", "QuickGelu"),
    ],
)
def test_onnxruntime_finds_the_op_again(name: str, kernel: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(export_onnx(module(name, 17 if name == "rms" else 13)), path)
    assert [n.op_type for n in optimised_model(path).graph.node] == [kernel]


def test_statistics_as_results_can_not_be_written_out() -> None:
    text = """module @m {opsets = {"" = 13}} {
  const %s : f32[4] = dense[1, 2, 3, 4]
  graph (%x : f32[3,4]) -> (%y, %mean) {
    %y, %mean = layer_normalization(%x, %s) : f32[3,4], f32[3,1]
  }
}"""
    held = parse_module(text, verify=True)
    assert export_onnx(held).opset_import[0].version == 17
    with pytest.raises(QdqcError, match="needs opset 17 or newer"):
        export_onnx(held, opset=13)


def test_equal_numbers_of_several_parts_are_stored_once() -> None:
    text = """module @m {opsets = {"" = 13}} {
  graph (%x : f32[3,4]) -> (%y) {
    %a = gelu(%x) : f32[3,4]
    %b = gelu(%a) : f32[3,4]
    %y = gelu(%b) : f32[3,4]
  }
}"""
    proto = export_onnx(parse_module(text, verify=True))
    assert len(proto.graph.initializer) == 3
    values = [o for n in proto.graph.node for o in n.output]
    assert len(set(values)) == len(values) == 15
