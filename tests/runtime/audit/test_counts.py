"""The audit's products, held against a straight count in the file that onnxruntime writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

import qdqc
from qdqc.runtime.audit.audit import Audit, AuditRow

make = helper.make_node

INTEGER = {
    *("ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"),
    *("QGemm", "QLinearConv", "QLinearMatMul"),
}
FLOAT = {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}


def straight(path: Path) -> tuple[int, int]:
    """Kernels that multiply integers and floats; nothing of the audit is in here."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kernels = list(onnx.load(path.with_suffix(".optimised")).graph.node)
    for node in kernels:
        kernels += [n for a in node.attribute if a.HasField("g") for n in a.g.node]
    integer = sum(n.op_type in INTEGER for n in kernels)
    integer += sum(a.name == "accuracy_level" and a.i == 4 for n in kernels for a in n.attribute)
    return integer, sum(n.op_type in FLOAT for n in kernels)


def products(audit: Audit) -> tuple[int, int]:
    return len(audit.products("integer")), len(audit.products("float"))


def saved(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: dict[str, Any],
    x: Sequence[int | str],
    *more: onnx.ValueInfoProto,
) -> Path:
    """A model from ``x`` to ``y`` in a file."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x), *more]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "m", ends, [y], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def tokens(path: Path) -> Path:
    """Two products with biases, one with a Relu, and an attention of two activations."""
    nodes = [
        make("MatMul", ["x", "w"], ["p"], name="first"),
        make("Add", ["p", "b"], ["s"], name="bias"),
        make("Relu", ["s"], ["r"], name="relu"),
        make("Transpose", ["r"], ["t"], name="turn", perm=[0, 2, 1]),
        make("MatMul", ["r", "t"], ["a"], name="scores"),
        make("Mul", ["a", "k"], ["c"], name="scale"),
        make("Softmax", ["c"], ["f"], name="softmax"),
        make("MatMul", ["f", "r"], ["v"], name="values"),
        make("MatMul", ["v", "u"], ["y"], name="last"),
    ]
    constants = {
        "w": normal(32, 32),
        "u": normal(32, 32).T.copy(),
        "b": normal(32),
        "k": np.float32(0.3),
    }
    return saved(path, nodes, constants, [1, 4, 32])


class Reader:
    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.left = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


SIGNED, UNSIGNED = QuantType.QInt8, QuantType.QUInt8
FORMS: dict[str, dict[str, Any]] = {
    "u8 i8": {"quant_format": QuantFormat.QDQ, "activation_type": UNSIGNED},
    "u8 i8 per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "i8 i8": {"quant_format": QuantFormat.QDQ, "activation_type": SIGNED},
    "i8 i8 per channel": {"activation_type": SIGNED, "per_channel": True},
    "operators": {"quant_format": QuantFormat.QOperator, "activation_type": UNSIGNED},
    "operators u8": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": UNSIGNED,
        "weight_type": UNSIGNED,
    },
    "dynamic": {},
    "dynamic per channel": {"per_channel": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", ["image", "tokens"])
def test_files_of_onnxruntimes_own_tools(
    form: str, network: str, tiny_onnx: Path, tmp_path: Path
) -> None:
    model, shape = (tiny_onnx, (1, 3, 8, 8)) if network == "image" else ("", (1, 4, 32))
    model = model or tokens(tmp_path / "tokens.onnx")
    out, more = tmp_path / "m.onnx", {"weight_type": SIGNED} | FORMS[form]
    if form.startswith("dynamic"):
        more["weight_type"] = SIGNED if "channel" in form else UNSIGNED
        quantize_dynamic(model, out, **more)
    else:
        quantize_static(model, out, Reader([{"x": normal(*shape)}]), **more)
    audit = qdqc.prove(out)
    assert products(audit) == straight(out)
    assert len(audit.products("integer")) >= 2, "the form is no form without them"
    unasked = [row for row in audit.findings if row.runs == "integer"]
    assert unasked == [], "what is only another type than ours is no finding"


def test_signed_activations_run_in_integers_beside_the_rule_that_they_break(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.onnx"
    quantize_static(tiny_onnx, out, Reader([{"x": normal(1, 3, 8, 8)}]), **FORMS["i8 i8"])
    rows = qdqc.prove(out).products("integer")
    assert {row.kernel for row in rows} == {"QLinearConv", "QGemm"}
    assert {row.rule for row in rows} == {"activation-type"}
    assert all(row.reason.startswith("breaks activation-type: ") for row in rows)


MODES = {"int8": 2, "dyn8": 2, "w8": 2, "w4": 2, "f16": 0, "f32": 0}
"""By mode the products of the network that run in integers."""


@pytest.mark.parametrize("mode", MODES)
def test_what_is_deployed_in_every_mode(mode: str, tmp_path: Path) -> None:
    data = [{"x": normal(1, 4, 32)}]
    found = qdqc.quantize(tokens(tmp_path / "tokens.onnx"), data, mode=mode)
    path = tmp_path / "m.onnx"
    onnx.save(found.model, path)
    assert products(found.report.audit) == products(qdqc.prove(path)) == straight(path)
    assert len(found.report.audit.products("integer")) == MODES[mode]
    assert found.report.audit.findings == ()


def test_a_weight_only_product_rounds_its_activations(tmp_path: Path) -> None:
    data = [{"x": normal(1, 4, 32)}]
    audit = qdqc.quantize(tokens(tmp_path / "tokens.onnx"), data, mode="w8").report.audit
    first, _ = audit.products("integer")
    assert first.kernel == "MatMulNBits"
    assert first.reason == "MatMulNBits rounds its activations to 8 bits as it runs"


@pytest.mark.parametrize(("mode", "reason"), [("dyn8", "DYN8"), ("w8", "W8"), ("w4", "W4")])
def test_what_a_mode_can_not_take_is_told(mode: str, reason: str, tmp_path: Path) -> None:
    data = [{"x": normal(1, 4, 32)}]
    audit = qdqc.quantize(tokens(tmp_path / "tokens.onnx"), data, mode=mode).report.audit
    told = {row.name: row.reason for row in audit.products("float")}
    assert told["a"] == told["v"] == f"{reason} can't take it: the weight is not a constant"


def test_a_product_with_a_relu_at_the_output(tmp_path: Path) -> None:
    """Its kernel gives float numbers, and the Relu stands behind it."""
    nodes = [make("MatMul", ["x", "w"], ["p"]), make("Relu", ["p"], ["y"])]
    model = saved(tmp_path / "float.onnx", nodes, {"w": normal(16, 8)}, [1, 16])
    found = qdqc.quantize(model, [{"x": normal(1, 16)}])
    onnx.save(found.model, tmp_path / "m.onnx")
    for audit in (found.report.audit, qdqc.prove(tmp_path / "m.onnx")):
        (row,) = audit.products("integer")
        assert (row.kernel, row.reason, audit.findings) == ("MatMulIntegerToFloat", "", ())
    assert straight(tmp_path / "m.onnx") == (1, 0)


def test_six_ends_every_convolution(tmp_path: Path) -> None:
    """A network of depthwise blocks with Relu6, proven from its file alone."""
    nodes: list[NodeProto] = []
    constants: dict[str, Any] = {"low": np.float32(0), "high": np.float32(6)}
    value = "x"
    for index in range(5):
        group = 8 if index % 2 else 1
        constants[f"w{index}"] = normal(8, 8 // group, 3, 3)
        attrs: dict[str, Any] = {"group": group, "pads": [1, 1, 1, 1]}
        nodes.append(make("Conv", [value, f"w{index}"], [f"c{index}"], **attrs))
        last = "y" if index == 4 else f"r{index}"
        nodes.append(make("Clip", [f"c{index}", "low", "high"], [last]))
        value = last
    model = saved(tmp_path / "float.onnx", nodes, constants, [1, 8, 6, 6])
    found = qdqc.quantize(model, [{"x": normal(1, 8, 6, 6)}])
    path = tmp_path / "m.onnx"
    onnx.save(found.model, path)
    assert products(qdqc.prove(path)) == straight(path) == (5, 0)


def row_of(audit: Audit, name: str) -> AuditRow:
    return next(row for row in audit.rows if row.name == name)


def test_products_without_a_kernel_of_their_own(tmp_path: Path) -> None:
    """One of constants alone, and one that is said twice."""
    nodes = [
        make("MatMul", ["w", "w"], ["fixed"]),
        make("MatMul", ["x", "fixed"], ["a"]),
        make("MatMul", ["x", "fixed"], ["b"]),
        make("Add", ["a", "b"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"w": normal(4, 4)}, [1, 4])
    audit = qdqc.prove(path)
    assert products(audit) == straight(path) == (0, 1)
    assert row_of(audit, "fixed").reason == "onnxruntime leaves no kernel of it"
    assert sorted(row_of(audit, name).runs for name in "ab") == ["float", "folded"]


def casts(source: str, out: str, weight: str) -> list[NodeProto]:
    """A quantized product of a float ``source``."""
    return [
        make("QuantizeLinear", [source, "s", "z"], [f"{out}_xq"]),
        make("DequantizeLinear", [f"{out}_xq", "s", "z"], [f"{out}_xd"]),
        make("DequantizeLinear", [weight, "s", "wz"], [f"{out}_wd"]),
        make("MatMul", [f"{out}_xd", f"{out}_wd"], [out]),
    ]


SCALES = {"s": np.float32(0.02), "z": np.uint8(128), "wz": np.int8(0)}


def test_a_product_in_a_nested_graph(tmp_path: Path) -> None:
    held = {"w": np.arange(16, dtype=np.int8).reshape(4, 4)} | SCALES
    value = helper.make_tensor_value_info

    def branch(out: str, nodes: list[NodeProto]) -> onnx.GraphProto:
        return helper.make_graph(nodes, out, [], [value(out, TensorProto.FLOAT, None)])

    chosen = branch("t", casts("x", "t", "w"))
    other = branch("e", [make("MatMul", ["x", "v"], ["e"])])
    nodes = [make("If", ["c"], ["y"], then_branch=chosen, else_branch=other)]
    condition = value("c", TensorProto.BOOL, [])
    path = saved(tmp_path / "m.onnx", nodes, held | {"v": normal(4, 4)}, [1, 4], condition)
    audit = qdqc.prove(path)
    assert products(audit) == straight(path) == (1, 1)
    assert row_of(audit, "t").kernel == "MatMulIntegerToFloat"
    assert row_of(audit, "e").reason == "in a nested graph"


def function_of(nodes: list[NodeProto]) -> Callable[[ModelProto], ModelProto]:
    def give(model: ModelProto) -> ModelProto:
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_function(
            "own", "Product", ["x", "w", "s", "z", "wz"], ["y"], nodes, opsets
        )
        model.functions.append(made)
        model.opset_import.append(helper.make_opsetid("own", 1))
        return model

    return give


def test_a_product_in_a_function_of_the_model(tmp_path: Path) -> None:
    held = {"w": np.arange(16, dtype=np.int8).reshape(4, 4)} | SCALES
    call = make("Product", ["x", "w", "s", "z", "wz"], ["y"], domain="own")
    path = saved(tmp_path / "m.onnx", [call], held, [1, 4])
    onnx.save(function_of(casts("x", "y", "w"))(onnx.load(path)), path)
    assert products(qdqc.prove(path)) == straight(path) == (1, 0)


def test_constants_beside_the_file(tmp_path: Path) -> None:
    held = {"w": np.ones((64, 64), np.int8)} | SCALES
    path = saved(tmp_path / "m.onnx", casts("x", "y", "w"), held, [1, 64])
    out = tmp_path / "apart" / "m.onnx"
    out.parent.mkdir()
    onnx.save(onnx.load(path), out, save_as_external_data=True, location="m.data")
    assert products(qdqc.prove(out)) == (1, 0)
