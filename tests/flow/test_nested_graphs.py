"""Products in the graphs of an If, Loop or Scan take the modes that need no calibrated range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper
from small_models import f32, model, node, start_over

import qdqc
from qdqc.flow.deploy import Deployed, deploy
from qdqc.flow.listener import Listener
from qdqc.onnx_io.exporter import export_onnx
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import Qtable
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import open_session

MODES = ("DYN8", "W8", "W4")
QUIET = Listener(warn=lambda _: None)
BOTH = (True, False)


def inner(name: str, nodes: Sequence[NodeProto], out: str, *inputs: Any) -> GraphProto:
    result = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, list(inputs), [result])


def weights(prefix: str, hidden: int = 64) -> dict[str, Any]:
    return {
        f"{prefix}k": f32(64, 32, 3, scale=0.1),
        f"{prefix}w": f32(1, 4 * hidden, 64, scale=0.1),
        f"{prefix}r": f32(1, 4 * hidden, hidden, scale=0.1),
        f"{prefix}g": f32(1, 3 * hidden, hidden, scale=0.1),
        f"{prefix}h": f32(1, 3 * hidden, hidden, scale=0.1),
        f"{prefix}m": f32(hidden, 96, scale=0.1),
    }


def network_of(prefix: str, read: str = "") -> list[NodeProto]:
    """A Conv, an LSTM, a GRU and a MatMul, with the weights of ``read`` or its own."""
    p, c = prefix, read or prefix
    return [
        node("Conv", ["x", f"{c}k"], [f"{p}1"], pads=[1, 1], name=f"{p}conv"),
        node("Transpose", [f"{p}1"], [f"{p}2"], perm=[2, 0, 1]),
        node("LSTM", [f"{p}2", f"{c}w", f"{c}r"], [f"{p}3"], hidden_size=64),
        node("Squeeze", [f"{p}3", "one"], [f"{p}4"]),
        node("GRU", [f"{p}4", f"{c}g", f"{c}h"], [f"{p}5"], hidden_size=64),
        node("Squeeze", [f"{p}5", "one"], [f"{p}6"]),
        node("MatMul", [f"{p}6", f"{c}m"], [f"{p}y"]),
    ]


def chosen(shared: bool = False) -> onnx.ModelProto:
    """Two networks, of which a number chooses one, as an audio model has one for each rate."""
    start_over(2)
    other = network_of("b", "a" if shared else "")
    other.append(node("Neg", ["by"], ["bz"]))
    nodes = [
        node("Equal", ["rate", "wide"], ["c"]),
        node(
            "If",
            ["c"],
            ["y"],
            then_branch=inner("t", network_of("a"), "ay"),
            else_branch=inner("e", other, "bz"),
        ),
    ]
    constants = {"wide": np.int64(16), "one": np.array([1]), **weights("a")}
    constants |= {} if shared else weights("b")
    made = model(nodes, {"x": [1, 32, 10]}, constants)
    rate = helper.make_tensor_value_info("rate", TensorProto.INT64, [])
    made.graph.input.append(rate)
    return made


def repeated(op: str) -> onnx.ModelProto:
    """Five rounds of one network, by a Loop or a Scan."""
    start_over(2)
    value = helper.make_tensor_value_info
    state = value("h", TensorProto.FLOAT, [4, 64])
    body = [node("MatMul", ["h", "w"], ["p"]), node("Tanh", ["p"], ["n"])]
    constants: dict[str, Any] = {"w": f32(64, 64, scale=0.2)}
    if op == "Loop":
        body.append(node("Identity", ["c"], ["on"]))
        given = [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), state]
        results = [value("on", TensorProto.BOOL, []), value("n", TensorProto.FLOAT, [4, 64])]
        graph = helper.make_graph(body, "body", given, results)
        constants["five"] = np.int64(5)
        loop = node("Loop", ["five", "", "x"], ["y"], body=graph)
        return model([loop], {"x": [4, 64]}, constants)
    body.insert(0, node("Conv", ["s", "k"], ["u"], pads=[1, 1]))
    body[1] = node("MatMul", ["u", "w"], ["p"])
    constants |= {"k": f32(4, 4, 3, scale=0.3), "zero": np.zeros((1, 4, 64), np.float32)}
    given = [value("h", TensorProto.FLOAT, [1, 4, 64]), value("s", TensorProto.FLOAT, [1, 4, 64])]
    body += [node("Add", ["n", "h"], ["m"]), node("Identity", ["m"], ["o"])]
    results = [value(n, TensorProto.FLOAT, None) for n in ("m", "o")]
    graph = helper.make_graph(body, "body", given, results)
    scan = node("Scan", ["zero", "x"], ["last", "y"], body=graph, num_scan_inputs=1)
    return model([scan], {"x": [5, 1, 4, 64]}, constants)


def deployed(source: onnx.ModelProto, mode: str, qtable: Qtable | None = None) -> Deployed:
    module = qdqc.transform(source).module
    return deploy(module, Deployment(mode=mode), qtable=qtable, listener=QUIET)


def feeds_of(source: onnx.ModelProto, first: bool = True) -> dict[str, Any]:
    x = source.graph.input[0].type.tensor_type.shape.dim
    rng = np.random.default_rng(3)
    feeds: dict[str, Any] = {"x": rng.normal(size=[d.dim_value for d in x]).astype(np.float32)}
    if len(source.graph.input) > 1:
        feeds["rate"] = np.array(16 if first else 8)
    return feeds


def sqnr(made: onnx.ModelProto, source: onnx.ModelProto, feeds: Any, optimise: str) -> float:
    exact = open_session(source, optimise="off").run(None, feeds)[0].astype(float)
    found = open_session(made, optimise=optimise).run(None, feeds)[0]
    return float(10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum()))


def kernels(path: Path) -> Counter[str]:
    def walk(graph: GraphProto) -> Iterator[str]:
        for each in graph.node:
            yield each.op_type
            for attribute in each.attribute:
                if attribute.HasField("g"):
                    yield from walk(attribute.g)

    return Counter(walk(optimised_model(path).graph))


def distinct(proto: onnx.ModelProto) -> bool:
    """Whether no two tensors of the file are the same."""
    held = [(t.data_type, tuple(t.dims), t.raw_data) for t in proto.graph.initializer]
    return len(held) == len(set(held))


LEAST = {"DYN8": 25.0, "W8": 30.0, "W4": 8.0}


@pytest.mark.parametrize("optimise", ["off", "all"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shared", BOTH)
def test_branches(shared: bool, mode: str, optimise: str) -> None:
    source = chosen(shared)
    made = export_onnx(deployed(source, mode).module)
    onnx.checker.check_model(made, full_check=True)
    for first in BOTH:
        feeds = feeds_of(source, first)
        assert LEAST[mode] < sqnr(made, source, feeds, optimise) < 60
    assert made.ByteSize() < 0.45 * source.ByteSize()
    assert distinct(made)


@pytest.mark.parametrize("optimise", ["off", "all"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_bodies(op: str, mode: str, optimise: str) -> None:
    source = repeated(op)
    made = export_onnx(deployed(source, mode).module)
    assert LEAST[mode] < sqnr(made, source, feeds_of(source), optimise) < 60
    assert made.ByteSize() < 0.5 * source.ByteSize()


def test_what_runs_in_a_branch(tmp_path: Path) -> None:
    source = chosen()
    done = deployed(source, "DYN8")
    path, _ = done.write(tmp_path / "m.onnx")
    ran = kernels(path)
    assert (ran["DynamicQuantizeLSTM"], ran["DynamicQuantizeMatMul"], ran["LSTM"]) == (2, 2, 0)
    audit = done.prove(path, feeds_of(source)).audit
    assert Counter(r.op for r in audit.products("integer")) == {
        "dynamic_quantize_lstm": 2,
        "matmul_integer": 2,
    }
    reasons = {r.op: r.reason for r in audit.products("float")}
    assert reasons == {
        "conv": "DYN8 can't take it: in a nested graph it stays float, which is faster than "
        "finding its scale",
        "gru": "DYN8 can't take it: onnxruntime has no kernel of 'gru' whose scale the run finds; "
        "its weights are stored in 8 bits",
    }
    assert not audit.findings
    assert Counter(r.op for r in qdqc.prove(path).products("integer")) == {
        "dynamic_quantize_lstm": 2,
        "matmul_integer": 2,
    }


def test_a_weight_is_cast_where_its_branch_runs() -> None:
    """Not before the If, and not in each round of a loop; a MatMul's one step further out."""
    made = deployed(chosen(), "W8").module
    (control,) = (n for n in made.graph.nodes() if n.op.name == "if")
    outer = [n.name for n in made.graph.nodes() if n.op.name == "dequantize"]
    assert outer == ["am_i8", "bm_i8"]
    casts = [[n.name for n in g.nodes() if n.op.name == "dequantize"] for g in control.graphs]
    assert casts == [[f"{p}{w}_i8" for w in "kwrgh"] for p in "ab"]
    together = deployed(chosen(shared=True), "W8").module
    outer = [n.name for n in together.graph.nodes() if n.op.name == "dequantize"]
    assert outer == [f"a{w}_i8" for w in "kwrghm"]
    scan = deployed(repeated("Scan"), "W8").module
    assert [n.op.name for n in scan.graph.nodes()] == ["dequantize", "dequantize", "scan"]


@pytest.mark.parametrize("mode", ["W8", "W4"])
@pytest.mark.parametrize("shared", BOTH)
def test_stored_weights_come_in_again(shared: bool, mode: str) -> None:
    done = deployed(chosen(shared), mode)
    made = export_onnx(done.module)
    again = export_onnx(deploy(qdqc.transform(made).module, Deployment(mode=mode)).module)
    feeds = feeds_of(chosen())
    ours, theirs = (open_session(m, optimise="off").run(None, feeds)[0] for m in (again, made))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert again.ByteSize() < 1.1 * made.ByteSize()


def test_static_integers_stay_out_of_branches(tmp_path: Path) -> None:
    source = chosen()
    module = qdqc.transform(source).module
    table = qdqc.calibrate(module, [feeds_of(source, first) for first in BOTH])
    done = deploy(module, Deployment(), table=table, listener=QUIET)
    assert done.unquantized is not None
    wanted = "INT8 can't take it: it is in a graph that 'if' chooses or repeats as it runs"
    assert set(done.unquantized.reasons) == {wanted}
    ours, theirs = (
        open_session(m).run(None, feeds_of(source))[0] for m in (export_onnx(done.module), source)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_lines_of_a_qtable_name_nested_nodes() -> None:
    done = deployed(chosen(), "F16", Qtable.of({"ay": "DYN8", "type:gru": "W8"}))
    ops = Counter(n.op.name for n in done.module.walk())
    assert (ops["matmul_integer"], ops["matmul"], ops["lstm"]) == (1, 1, 2)
    stored = {c.name for c in done.module.constants.values() if c.quant is not None}
    assert stored == {f"{p}{w}_i8_q" for p in "ab" for w in "gh"}


@pytest.mark.parametrize("mode", MODES)
def test_a_weight_in_a_branch_that_is_no_number_is_an_error(mode: str) -> None:
    source = chosen()
    (held,) = (t for t in source.graph.initializer if t.name == "bm")
    array = onnx.numpy_helper.to_array(held).copy()
    array[3, 2] = np.nan
    held.CopyFrom(onnx.numpy_helper.from_array(array, "bm"))
    with pytest.raises(qdqc.QdqcError, match="'bm' has 1 NaN"):
        deployed(source, mode)
    assert deployed(source, "F16").unquantized is not None
