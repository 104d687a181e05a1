"""Values with names that parts of values have: a twin of the network, with plain ones, judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.flow.deploy import Deployed, deploy
from qdqc.flow.inspect import inspect, making_of
from qdqc.flow.samples import DataSource
from qdqc.inspection.stages import quantized_stage
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.quant.lowered import lowered_of
from qdqc.quant.lowering import lower
from qdqc.report.stage import stage_notes, stage_onnx
from qdqc.runtime.sessions.onnx_file import OnnxRunner
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.timing.node_times import node_times

ODD = ["h", "h_q", "h_f", "h_dq", "h_i", "h_preact", "h_matmul", "h_preact_matmul"]
PLAIN = [f"value{index}" for index in range(len(ODD))]
TO_ODD = dict(zip(PLAIN, ODD, strict=True))


def network(kind: str, names: list[str], order: int) -> onnx.ModelProto:
    """Products with bias and Relu in a row; ``order`` says at which name the row begins."""
    rng = np.random.default_rng(0)
    row = [*names[order:], *names[:order]]
    nodes, weights, x = [], [], "x"
    for number, name in enumerate(row):
        size = (4, 4, 3, 3) if kind == "conv" else (8, 8)
        w = rng.standard_normal(size).astype(np.float32) / (4 if kind == "conv" else 2)
        b = rng.standard_normal(size[0]).astype(np.float32)
        weights += [numpy_helper.from_array(a, f"{n}{number}") for a, n in ((w, "w"), (b, "b"))]
        if kind == "conv":
            made = ["Conv", [x, f"w{number}", f"b{number}"], [f"c{number}"]]
            nodes.append(helper.make_node(*made, name=f"p{number}", pads=[1] * 4))
        else:
            nodes.append(helper.make_node("MatMul", [x, f"w{number}"], [f"m{number}"]))
            given = [f"m{number}", f"b{number}"]
            nodes.append(helper.make_node("Add", given, [f"c{number}"], name=f"p{number}"))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name], name=f"r{number}"))
        x = name
    nodes.append(helper.make_node("Sigmoid", [x], ["y"], name="out"))
    shape = [1, 4, 6, 6] if kind == "conv" else [1, 3, 8]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "m", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(kind: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    shape = (1, 4, 6, 6) if kind == "conv" else (1, 3, 8)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]


@pytest.fixture(
    scope="module", params=[(k, n) for k in ("conv", "matmul") for n in (0, 1, 4, 6)], ids=str
)
def twins(request: pytest.FixtureRequest) -> tuple[str, Deployed, Deployed]:
    """The kind, the network with odd names, and its twin; the same bits but for names."""
    kind, order = request.param
    made: list[Deployed] = []
    for names in (ODD, PLAIN):
        module = qdqc.transform(network(kind, names, order)).module
        made.append(deploy(module, table=qdqc.calibrate(module, samples(kind))))
    return kind, made[0], made[1]


def odd(names: Any) -> list[str]:
    return [TO_ODD.get(name, name) for name in names]


def test_ranges_and_values_are_those_of_the_twin(twins: tuple[str, Deployed, Deployed]) -> None:
    kind, ours, twin = twins
    assert ours.table is not None
    assert twin.table is not None
    assert list(ours.table.rows) == odd(twin.table.rows)
    assert list(ours.table.rows.values()) == list(twin.table.rows.values())
    (sample, *_) = samples(kind)
    for stage in ("typed", "module"):
        found = Runner(getattr(ours, stage), None).run(sample)
        wanted = Runner(getattr(twin, stage), None).run(sample)
        assert set(ODD) <= set(found)
        for name, array in wanted.items():
            if name in TO_ODD or name in ("x", "y"):
                np.testing.assert_array_equal(found[TO_ODD.get(name, name)], array)
    taps = Runner(ours.module, ODD).run(sample)
    exact = Runner(twin.module, PLAIN).run(sample)
    for plain, name in TO_ODD.items():
        np.testing.assert_array_equal(taps[name], exact[plain])


def test_what_lowering_says_is_found_again_in_the_graph(
    twins: tuple[str, Deployed, Deployed],
) -> None:
    _, ours, _ = twins
    lowered = qdqc.clone(ours.typed)
    kept, again = lower(lowered), lowered_of(lowered)
    for name in ODD:
        assert again.of(name) == kept.of(name)
        for part in kept.of(name).names:
            assert kept.value_of(part) == again.value_of(part) == name


def test_audit_and_times_are_those_of_the_twin(
    twins: tuple[str, Deployed, Deployed], tmp_path: Path
) -> None:
    kind, ours, twin = twins
    (sample, *_) = samples(kind)
    proofs = []
    for name, deployed in (("ours", ours), ("twin", twin)):
        save_onnx(deployed.module, path := tmp_path / f"{name}.onnx")
        proofs.append(deployed.prove(path, sample))
        rows = qdqc.prove(path).rows
        assert [r.runs for r in rows if r.is_product] == ["integer"] * len(ODD)
    rows, wanted = (proof.audit.rows for proof in proofs)
    assert [r.name for r in rows] == odd(r.name for r in wanted)
    assert [(r.op, r.runs, r.kernel, r.reason) for r in rows] == [
        (r.op, r.runs, r.kernel, r.reason) for r in wanted
    ]
    assert not proofs[0].audit.findings
    for stage in ("typed", "module", "reference"):
        times, others = (node_times(getattr(d, stage), sample, runs=1) for d in (ours, twin))
        assert sorted(times) == sorted(odd(others))
        assert set(ODD) <= set(times)


def test_it_comes_back_and_is_shown_as_it_was(
    twins: tuple[str, Deployed, Deployed], tmp_path: Path
) -> None:
    kind, ours, twin = twins
    again = qdqc.run(ours.module, "import-qdq")
    again.header = dict(ours.typed.header)
    assert again == ours.typed
    notes = stage_notes(ours.typed)
    texts: list[dict[str, dict[str, str]]] = []
    for deployed in (ours, twin):
        graph = stage_onnx(deployed.typed).graph
        texts.append(
            {
                node.output[0]: {m.key: m.value for m in node.metadata_props}
                for node in graph.node
                if node.op_type in ("Conv", "MatMul", "Relu")
            }
        )
    for ours_of, wanted in zip(texts[0].values(), texts[1].values(), strict=True):
        assert ours_of["qdqc.precision"] == wanted["qdqc.precision"]
        assert ours_of.get("qdqc.scale") == wanted.get("qdqc.scale")
    twins_notes = stage_notes(twin.typed)
    for plain, name in TO_ODD.items():
        assert notes[name].get("scale") == twins_notes[plain].get("scale")
    assert sum(notes[name]["precision"] == "u8" for name in ODD) >= len(ODD) - 1
    pages = []
    for name, deployed in (("ours", ours), ("twin", twin)):
        path = tmp_path / f"{name}.qir"
        qdqc.save(deployed.module, path)
        quantized = quantized_stage(path)
        data = DataSource(dataset=samples(kind))
        opened = data.open(deployed.reference.graph, qdqc.Listener())
        seen = inspect(deployed.reference, quantized, opened, sketched=True)
        pages.append(seen.page(making_of(path, quantized, deployed.table)))
    page, wanted_page = pages
    assert {n: r for n, r in page.runs.items() if n in ODD} == {
        TO_ODD[n]: r for n, r in wanted_page.runs.items() if n in TO_ODD
    }
    assert set(ODD) <= set(page.runs)
    assert set(ODD) <= set(page.times[1])
    ours_figures = [(f.name, f.sqnr) for f in page.measured.figures]
    assert ours_figures == [
        (TO_ODD.get(f.name, f.name), f.sqnr) for f in wanted_page.measured.figures
    ]


@pytest.mark.parametrize("kind", ["conv", "matmul"])
def test_a_file_of_onnxruntimes_quantizer(kind: str, tmp_path: Path) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples(kind))

        def get_next(self) -> Any:
            return next(self.left, None)

    onnx.save(network(kind, ODD, 0), tmp_path / "float.onnx")
    types = {"weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8}
    given = {"quant_format": QuantFormat.QDQ, "per_channel": kind == "conv", **types}
    quantize_static(tmp_path / "float.onnx", tmp_path / "theirs.onnx", Reader(), **given)
    audit = qdqc.prove(tmp_path / "theirs.onnx")
    products = [r for r in audit.rows if r.is_product]
    assert len(products) == len(ODD)
    (sample, *_) = samples(kind)
    values = OnnxRunner(tmp_path / "theirs.onnx", every=True).run(sample)
    exact = OnnxRunner(tmp_path / "float.onnx", every=True).run(sample)
    for name in ODD:
        assert values[name].shape == exact[name].shape
        assert np.corrcoef(values[name].ravel(), exact[name].ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("result", "stored", "views", "name"),
    [
        ("h_f", "h_q", ["h_dq", "h"], "h"),
        ("features_conv_a", "t1", ["t2"], "features_conv_a"),
        ("conv_a", "conv_a_QuantizeLinear", ["conv_a_DequantizeLinear"], "conv_a"),
    ],
)
def test_a_value_of_a_foreign_file_is_its_result(
    result: str, stored: str, views: list[str], name: str
) -> None:
    """Names of our own begin with the value's; where none does, the op's result is the value."""
    scale = ["s", "z"]
    nodes = [
        helper.make_node("Sigmoid", ["x"], [result]),
        helper.make_node("QuantizeLinear", [result, *scale], [stored]),
        *(helper.make_node("DequantizeLinear", [stored, *scale], [view]) for view in views),
        *(helper.make_node("Relu", [view], [f"y{i}"]) for i, view in enumerate(views)),
    ]
    shape = [1, 1, 2, 2]
    names = [f"y{i}" for i in range(len(views))]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    numbers = [np.array(0.01, np.float32), np.array(0, np.uint8)]
    constants = [numpy_helper.from_array(a, n) for a, n in zip(numbers, scale, strict=True)]
    graph = helper.make_graph(nodes, "m", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert set(lowered_of(import_onnx(model)).parts) == {name}
