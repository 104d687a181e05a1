"""LSTM, GRU and RNN on integer weights, against onnxruntime on the float layer."""

from __future__ import annotations

import collections
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import Deployed, deploy
from qdqc.flow.listener import Listener
from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.ir.verify import verify
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.ops import GRU, LSTM, RNN, DynamicQuantizeLSTM
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import Qtable
from qdqc.report.why import node_named, render_why
from qdqc.runtime.audit.audit import AuditRow
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import Runner

Array = npt.NDArray[Any]
GATES = {RNN: 1, GRU: 3, LSTM: 4}
QUIET = Listener(warn=lambda _: None)
FORMS: dict[str, tuple[LSTM, str]] = {
    "plain": (LSTM(), ""),
    "bare": (LSTM(), "no bias"),
    "reverse": (LSTM(direction="reverse"), "lengths"),
    "two ways": (LSTM(direction="bidirectional"), "lengths states"),
    "states": (LSTM(), "states"),
    "peepholes": (LSTM(), "p"),
    "clip": (LSTM(clip=0.5), ""),
    "input-forget": (LSTM(input_forget=True), ""),
    "activations": (
        LSTM(
            activations=("HardSigmoid", "Relu", "Tanh"),
            activation_alpha=(0.3,),
            activation_beta=(0.4,),
        ),
        "",
    ),
}


def layer(net: Any, op: Any, parts: str = "", hidden: int = 24, width: int = 16) -> Any:
    """A layer over 7 steps of a batch of 3, whose results are all returned."""
    made = net()
    gates, count = GATES[type(op)], 2 if op.direction == "bidirectional" else 1
    x = made.input("x", 7, 3, width)
    w = made.weight("w", count, gates * hidden, width)
    r = made.weight("r", count, gates * hidden, hidden)
    bias = None if "no bias" in parts else made.weight("b", count, 2 * gates * hidden)
    lengths = made.const("l", np.array([7, 2, 5], np.int32)) if "lengths" in parts else None
    states: list[Any] = []
    names = ("y", "h", "c")[: len(op.results)]
    for name in names[1:]:
        states.append(made.input(f"{name}0", count, 3, hidden) if "states" in parts else None)
    p = [made.weight("p", count, 3 * hidden)] if parts == "p" else []
    node = made.node(names, replace(op, hidden_size=hidden), x, w, r, bias, lengths, *states, *p)
    return made.returns(*node.present_results)


def deployed(module: Module, mode: str, qtable: Qtable | None = None) -> Deployed:
    made = deploy(module, Deployment(mode=mode), qtable=qtable, listener=QUIET)
    assert not [d.render() for d in verify(made.module)]
    onnx.checker.check_model(export_onnx(made.module), full_check=True)
    return made


def results(module: Module, feeds: Any, optimise: str = "off") -> list[Array]:
    names = [v.name for v in module.graph.outputs]
    found = Runner(module, names, optimise=optimise, threads=1).run(feeds)
    return [found[name] for name in names]


def contents(value: Value) -> Array:
    assert isinstance(value, Constant)
    return np.asarray(value.data.array())


def sqnr(found: Array, exact: Array) -> float:
    error = np.square(found.astype(float) - exact).sum()
    return float(10 * np.log10(np.square(exact.astype(float)).sum() / error))


def rounded_by_rows(module: Module) -> Module:
    """The float layer on weights of 8 bits a row, by the formula."""
    copy = clone(module)
    for name in ("w", "r"):
        array = np.asarray(copy.constants[name].data.array(), np.float64)
        steps = np.abs(array).max(axis=2, keepdims=True) / 127
        data = Data.of((np.rint(array / steps) * steps).astype(np.float32))
        copy.constants[name].data = data
    return copy


def row_of(made: Deployed, name: str, folder: Path, feeds: Any) -> AuditRow:
    path, _ = made.write(folder / "m.onnx")
    (row,) = (r for r in made.prove(path, feeds).audit.rows if r.name == name)
    return row


@pytest.mark.parametrize("form", FORMS)
def test_an_lstm_runs_in_integers(net: Any, tmp_path: Path, form: str) -> None:
    op, parts = FORMS[form]
    made = layer(net, op, parts)
    lowered = deployed(made.module, "DYN8")
    feeds = made.feeds(1)
    exact = results(made.module, feeds)
    for optimise in ("off", "all"):
        for found, wanted in zip(results(lowered.module, feeds, optimise), exact, strict=True):
            assert 30 < sqnr(found, wanted) < 60
    row = row_of(lowered, "y", tmp_path, feeds)
    assert (row.runs, row.kernel, row.is_product) == ("integer", "DynamicQuantizeLSTM", True)
    kernels = collections.Counter(
        n.op_type for n in optimised_model(tmp_path / "m.onnx").graph.node
    )
    assert kernels == {"DynamicQuantizeLSTM": 1}
    stored = {lowered.module.constants[f"{n}_i8"].tensor.elem for n in ("w", "r")}
    assert stored == {Elem.I8}


def test_the_integers_are_those_of_the_rows(net: Any) -> None:
    """Turned, as the kernel multiplies by them, with a scale for each column."""
    made = layer(net, LSTM(direction="bidirectional"))
    (node,) = deployed(made.module, "DYN8").module.graph.nodes()
    for name in ("w", "r"):
        array = np.asarray(made.module.constants[name].data.array(), np.float64)
        steps = np.abs(array).max(axis=2, keepdims=True) / 127
        integers, scale = node.need(name), node.need(f"{name}_scale")
        zero = node.need(f"{name}_zero_point")
        wanted = np.rint(array / steps).transpose(0, 2, 1)
        np.testing.assert_array_equal(contents(integers), wanted)
        np.testing.assert_allclose(contents(scale), steps[:, :, 0], rtol=1e-6)
        assert zero.tensor.elem is Elem.I8
        assert not contents(zero).any()


@pytest.mark.parametrize("mode", ["W8", "W4"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("cls", GATES)
def test_weights_are_stored_by_rows(net: Any, cls: Any, direction: Any, mode: str) -> None:
    made = layer(net, cls(direction=direction), hidden=40, width=48)
    lowered, feeds = deployed(made.module, mode).module, made.feeds(1)
    wanted = results(rounded_by_rows(made.module), feeds)
    for optimise in ("off", "all"):
        for found, exact in zip(results(lowered, feeds, optimise), wanted, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)
    sizes = [export_onnx(m).ByteSize() for m in (lowered, made.module)]
    assert sizes[0] < 0.4 * sizes[1]


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("cls", GATES)
def test_stored_weights_come_in_as_they_went_out(net: Any, cls: Any, direction: Any) -> None:
    made = layer(net, cls(direction=direction))
    passes = "assign-precision{mode=W8},quantize-weights,quantize"
    typed = run(made.module, passes)
    (node,) = typed.graph.nodes()
    assert [v.tensor.elem for v in node.present_operands[:3]] == [Elem.F32, Elem.I8, Elem.I8]
    again = run(run(typed, "lower-to-qdq"), "import-qdq")
    typed.header["pipeline"] = again.header["pipeline"]
    assert again == typed


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (GRU(), "onnxruntime has no kernel of 'gru' whose scale the run finds"),
        (RNN(), "onnxruntime has no kernel of 'rnn' whose scale the run finds"),
    ],
)
def test_what_has_no_dynamic_kernel_is_stored(
    net: Any, tmp_path: Path, op: Any, reason: str
) -> None:
    made = layer(net, op)
    lowered, feeds = deployed(made.module, "DYN8"), made.feeds(1)
    wanted = results(rounded_by_rows(made.module), feeds)
    for found, exact in zip(results(lowered.module, feeds), wanted, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)
    row = row_of(lowered, "y", tmp_path, feeds)
    assert row.runs == "float"
    assert row.reason == f"DYN8 can't take it: {reason}; its weights are stored in 8 bits"
    path = tmp_path / "m.onnx"
    node = node_named(lowered.typed, "y")
    assert row.reason in render_why(node, lowered.prove(path, feeds).audit, lowered.target)


def test_a_target_that_lacks_the_op_has_stored_weights(net: Any) -> None:
    made = layer(net, LSTM())
    done = deploy(made.module, Deployment(mode="DYN8", target="openvino"), listener=QUIET)
    assert "DynamicQuantizeLSTM" not in {n.op_type for n in export_onnx(done.module).graph.node}
    weights = node_named(done.typed, "y").present_operands[1:3]
    assert [v.tensor.elem for v in weights] == [Elem.I8, Elem.I8]
    assert done.decisions["y"].reason.startswith("DYN8 can't take it: OpenVINO has no kernel")


def test_a_batch_in_front_has_no_kernel(net: Any) -> None:
    """Nor has onnxruntime one of float: it refuses both."""
    made = net()
    x, w, r = made.input("x", 3, 7, 8), made.weight("w", 1, 16, 8), made.weight("r", 1, 16, 4)
    made.returns(made.op("y", LSTM(layout=1, hidden_size=4), x, w, r))
    passes = "assign-precision{mode=DYN8},quantize-weights,quantize-dynamic"
    (node,) = run(made.module, passes).graph.nodes()
    assert node.op == LSTM(layout=1, hidden_size=4)
    with pytest.raises(QdqcError, match="Batchwise recurrent operations"):
        results(made.module, made.feeds(1))


def test_a_computed_weight_stays_float(net: Any) -> None:
    made = net()
    x, w, r = made.input("x", 7, 3, 8), made.input("w", 1, 16, 8), made.weight("r", 1, 16, 4)
    module = made.returns(made.op("y", LSTM(hidden_size=4), x, w, r)).module
    lowered = deployed(module, "DYN8")
    assert lowered.unquantized is None
    node = node_named(lowered.typed, "y")
    assert [v.tensor.elem for v in node.present_operands] == [Elem.F32, Elem.F32, Elem.I8]


@pytest.mark.parametrize("mode", ["F32", "F16"])
def test_nothing_is_stored_in_float_modes(net: Any, mode: str) -> None:
    lowered = deployed(layer(net, LSTM()).module, mode)
    assert not any(c.tensor.elem.bits == 8 for c in lowered.module.constants.values())


@pytest.mark.parametrize("mode", ["INT8", "DYN8"])
def test_static_integers_leave_a_layer_alone(net: Any, calibrated: Any, mode: str) -> None:
    """By its own line of a qtable, it is taken beside them."""
    module = calibrated(layer(net, LSTM()))
    passes = "quantize-weights,quantize-dynamic,quantize,verify-target,lower-to-qdq"
    (node,) = run(module, f"assign-precision{{mode={mode}}},{passes}").graph.nodes()
    assert isinstance(node.op, LSTM if mode == "INT8" else DynamicQuantizeLSTM)


def test_one_node_by_its_line(net: Any) -> None:
    """Two layers on the same weights: one in integers, one float."""
    made = net()
    x, w, r = made.input("x", 7, 3, 16), made.weight("w", 1, 64, 16), made.weight("r", 1, 64, 16)
    y = made.op("y", LSTM(hidden_size=16), x, w, r)
    z = made.op("z", LSTM(hidden_size=16, direction="reverse"), x, w, r)
    module = made.returns(y, z).module
    lowered = deployed(module, "DYN8", Qtable.of({"y": "F32"}))
    assert [type(n.op) for n in lowered.module.graph.nodes()] == [LSTM, DynamicQuantizeLSTM]


@pytest.mark.parametrize("mode", ["DYN8", "W8", "W4"])
@pytest.mark.parametrize("cls", GATES)
def test_layers_share_their_weights(net: Any, cls: Any, mode: str) -> None:
    """An unrolled network: each distinct tensor is in the file once."""
    made = net()
    size = GATES[cls] * 32
    x, w, r = (
        made.input("x", 7, 3, 32),
        made.weight("w", 1, size, 32),
        made.weight("r", 1, size, 32),
    )
    ys = [made.op(f"y{i}", cls(direction=d), x, w, r) for i, d in enumerate(("forward", "reverse"))]
    proto = export_onnx(deployed(made.returns(*ys).module, mode).module)
    held = [(t.data_type, tuple(t.dims), t.raw_data) for t in proto.graph.initializer]
    assert len(held) == len(set(held))
    assert proto.ByteSize() < 0.4 * export_onnx(made.module).ByteSize()


def test_a_dynamic_lstm_of_another_tool_comes_in(net: Any) -> None:
    """As onnxruntime's tool writes it: u8 weights, a scale for each direction."""
    made = net()
    x, rng = made.input("x", 7, 3, 8), np.random.default_rng(0)
    shapes = {"w": (1, 8, 16), "r": (1, 4, 16)}
    w, r = (made.const(n, rng.integers(0, 256, s).astype(np.uint8)) for n, s in shapes.items())
    scale, zero = np.array([0.01], np.float32), np.array([128], np.uint8)
    quant = [made.const(f"{n}{k}", a) for n in "wr" for k, a in (("s", scale), ("z", zero))]
    none = [None] * 5
    op = DynamicQuantizeLSTM(hidden_size=4)
    node = made.node(["y", "h", "c"], op, x, w, r, *none, *quant)
    module = made.returns(*node.present_results).module
    source = import_onnx(export_onnx(module))
    (read,) = source.graph.nodes()
    assert read.op == op
    for mode in ("DYN8", "W8", "F16"):
        lowered = deployed(source, mode).module
        for ours, theirs in zip(
            results(lowered, made.feeds(1)), results(module, made.feeds(1)), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
