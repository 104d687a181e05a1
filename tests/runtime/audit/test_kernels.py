"""Kernels by the tensors that they make, as onnxruntime and OpenVINO tell of them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.op import QuantTraits
from qdqc.onnx_io.saver import save_onnx
from qdqc.quant.placement import Decision
from qdqc.report.audit_text import audit_entries, render_audit
from qdqc.runtime.audit.audit import audit
from qdqc.runtime.audit.kernel import Kernel
from qdqc.runtime.audit.kernels import RUNTIMES, Runtime, optimised_model


def qdq_chain(path: Path, *, pool: bool = False) -> Path:
    """x -> conv -> (max_pool) -> reshape -> transpose -> y, all in integers, written by hand."""
    held: dict[str, Any] = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4, 1, 1),
        "ws": np.float32(0.02),
        "wz": np.int8(0),
        "flat": np.array([1, 4, -1]),
    }
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"], name="cast_x")]
    nodes.append(helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="cast_w"))

    def step(op: str, source: str, out: str, *more: str, **attributes: Any) -> None:
        casts = [source + "_q", "s", "z"], [out + "_f", "s", "z"]
        nodes.append(helper.make_node("DequantizeLinear", casts[0], [source + "_d" + out]))
        inputs = [source + "_d" + out, *more]
        nodes.append(helper.make_node(op, inputs, [out + "_f"], name=f"/{out}", **attributes))
        nodes.append(helper.make_node("QuantizeLinear", casts[1], [out + "_q"], name=f"/{out}_1"))

    step("Conv", "x", "c", "wd")
    source = "c"
    if pool:
        step("MaxPool", "c", "p", kernel_shape=[2, 2])
        source = "p"
    step("Reshape", source, "r", "flat")
    step("Transpose", "r", "t", perm=[0, 2, 1])
    nodes.append(helper.make_node("DequantizeLinear", ["t_q", "s", "z"], ["y"], name="cast_y"))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("pool", [False, True])
def test_integers_go_through_what_moves_them(tmp_path: Path, pool: bool) -> None:
    kernels = RUNTIMES["onnxruntime"].kernels(qdq_chain(tmp_path / "m.onnx", pool=pool))
    assert kernels["c_q"] == Kernel("QLinearConv", True)
    assert kernels["r_q"] == Kernel("Reshape", True)
    assert kernels["t_q"] == Kernel("Transpose", True)
    assert kernels["x_q"] == Kernel("QuantizeLinear", False)
    assert kernels["x_q"].is_cast
    assert not kernels["c_q"].is_cast
    assert ("p_q" in kernels) is pool


def test_a_float_model_has_no_integer_kernel(tiny_onnx: Path) -> None:
    kernels = RUNTIMES["onnxruntime"].kernels(tiny_onnx)
    assert not [k for k in kernels.values() if k.integer]
    made = {o for n in optimised_model(tiny_onnx).graph.node for o in n.output}
    assert set(kernels) - made == {"c1"}
    assert kernels["c1"] == Kernel("FusedConv", False), "its Relu went into it"


class Told:
    """A word as OpenVINO hands it out."""

    def __init__(self, word: str) -> None:
        self.word = word

    def astype(self, wanted: type) -> Any:
        return wanted(self.word)


class Layer:
    def __init__(self, kind: str, precision: str, names: str) -> None:
        words = {"layerType": kind, "runtimePrecision": precision, "originalLayersNames": names}
        self.told = {key: Told(word) for key, word in words.items()}

    def get_rt_info(self) -> dict[str, Told]:
        return self.told


class Parameter:
    def get_rt_info(self) -> dict[str, Told]:
        return {}


def stand_in(monkeypatch: pytest.MonkeyPatch, layers: list[Any]) -> None:
    """A module ``openvino`` that compiles every model to the same layers."""

    class Compiled:
        def get_runtime_model(self) -> Compiled:
            return self

        def get_ops(self) -> list[Any]:
            return layers

    class Core:
        def read_model(self, path: str) -> str:
            if not Path(path).exists():
                raise RuntimeError("Could not open the file\nmore")
            return path

        def compile_model(self, model: str, device: str) -> Compiled:
            assert device == "CPU"
            return Compiled()

    made = ModuleType("openvino")
    made.__spec__ = ModuleSpec("openvino", None)
    made.Core = Core  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", made)


LAYERS = [
    Parameter(),
    Layer("Input", "f32", "x"),
    Layer("Const", "i8", "w"),
    Layer("Reorder", "u8", ""),
    Layer("Convolution", "u8", "/c/WithoutBiases,Multiply_7,/c,/c_1"),
    Layer("Eltwise", "bf16", "Subtract_3,/c,/r"),
    Layer("Reshape", "f32", "/r"),
    Layer("FakeQuantize", "f32", "/r_1"),
    Layer("Transpose", "bf16", "/t"),
    Layer("Convert", "u8", "/t_1"),
]


def test_layers_stand_for_the_tensors_of_all_nodes_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, LAYERS)
    assert RUNTIMES["OpenVINO"].is_installed
    path = qdq_chain(tmp_path / "m.onnx")
    assert RUNTIMES["OpenVINO"].kernels(path) == {
        "c_f": Kernel("Convolution", True),
        "c_q": Kernel("Convolution", True),
        "r_f": Kernel("Eltwise", False),
        "t_f": Kernel("Transpose", False),
    }
    with pytest.raises(QdqcError, match="OpenVINO can't load the deployed model: Could not open"):
        RUNTIMES["OpenVINO"].kernels(tmp_path / "none.onnx")


def test_an_audit_asks_the_runtime_that_is_named(
    lowered: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(lowered, path)
    nodes = {n.op_type + n.output[0]: n.name for n in onnx.load(path).graph.node}
    conv = next(name for key, name in nodes.items() if key.startswith("Convc3"))
    stand_in(monkeypatch, [Layer("Convolution", "i8", f"{conv}/WithoutBiases")])
    wanted = dict.fromkeys(("c3", "y"), Decision(True, QuantTraits(), result=True))
    found = audit(lowered, wanted, path, "OpenVINO")
    assert found.runtime == "OpenVINO"
    assert [r.name for r in found.rows if r.runs == "integer"] == ["c3"]
    (lost,) = found.findings
    assert (lost.name, lost.reason) == ("y", "quantized, but OpenVINO left it float")
    assert render_audit(found).startswith("integer under OpenVINO: 1 of 4 Conv,")
    assert audit_entries(found)["runtime"] == "OpenVINO"
    assert audit(lowered, wanted, path).runtime == "onnxruntime"


def test_without_openvino_onnxruntime_stands_in(
    lowered: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(lowered, path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not RUNTIMES["OpenVINO"].is_installed
    assert audit(lowered, {}, path, "OpenVINO").runtime == "onnxruntime"


def test_openvinos_own_kernels(tiny_onnx: Path, tiny_data: Path) -> None:
    """The real one, where it is installed: all convolutions of a deployed network on integers."""
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    report = qdqc.quantize(tiny_onnx, tiny_data, target="openvino").report.entries()["audit"]
    assert report["runtime"] == "OpenVINO"
    runs = {r["name"]: r["runs"] for r in report["ops"]}
    assert {n for n in ("r1", "c2", "c3", "y") if runs[n] == "integer"} == {"r1", "c2", "c3", "y"}


def test_a_plugin_may_add_a_runtime(lowered: Module, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(lowered, path)
    with RUNTIMES.scratch():

        class Mine(Runtime):
            name = "mine"

            def kernels(self, path: str | Path) -> dict[str, Kernel]:
                return {"c3_q": Kernel("MyConv", True)}

        audited = audit(lowered, {}, path, Mine.name)
    assert (audited.runtime, [r.kernel for r in audited.rows if r.kernel]) == ("mine", ["MyConv"])
    with pytest.raises(QdqcError, match="unknown runtime 'OpenVino'; did you mean 'OpenVINO'"):
        audit(lowered, {}, path, "OpenVino")
