"""The whole flow with the limits of large models brought down: no session gets the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdqc.flow.calibrate import calibrate
from qdqc.flow.deploy import deploy
from qdqc.flow.prove import prove
from qdqc.flow.samples import CheckSamples
from qdqc.flow.transform import transform
from qdqc.ir import mapped
from qdqc.ir.graph import Module
from qdqc.onnx_io import light, reader, saver
from qdqc.onnx_io.saver import file_bytes
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions import session
from qdqc.text.qir_files import load, save

PROTO_LIMIT = 100_000
"""Stands for the 2 GB of protobuf."""

WIDTH = 128
RNG = np.random.default_rng(0)
SAMPLES = [{"ids": RNG.integers(0, 1000, (1, 8))} for _ in range(3)]


def network() -> onnx.ModelProto:
    """An embedding and MatMuls in a row: 1 MB."""
    shapes = {"table": (1000, WIDTH)} | {f"w{i}": (WIDTH, WIDTH) for i in range(8)}
    weights = [
        numpy_helper.from_array((0.1 * RNG.standard_normal(s)).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    make = helper.make_node
    nodes = [make("Gather", ["table", "ids"], ["h0"])]
    for i in range(8):
        nodes += [
            make("Transpose", [f"w{i}"], [f"t{i}"], perm=[1, 0]),
            make("MatMul", [f"h{i}", f"t{i}"], [f"h{i + 1}"]),
        ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8])
    last = helper.make_tensor_value_info("h8", TensorProto.FLOAT, [1, 8, WIDTH])
    graph = helper.make_graph(nodes, "large", [ids], [last], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def protos(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Limits brought down; sizes of the models that sessions were given."""
    sizes: list[int] = []
    real = ort.InferenceSession

    def opened(model: Any, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(model, bytes)
        sizes.append(len(model))
        return real(model, *args, **kwargs)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    monkeypatch.setattr(mapped, "KEPT", 0)
    monkeypatch.setattr(mapped, "_SMALLEST", 4096)
    monkeypatch.setattr(reader, "_MAPPED_FROM", PROTO_LIMIT)
    monkeypatch.setattr(light, "_LARGE", 4096)
    monkeypatch.setattr(saver, "_INLINE_LIMIT", PROTO_LIMIT)
    monkeypatch.setattr(session, "LARGE", PROTO_LIMIT)
    return sizes


def saved(tmp_path: Path, files: str) -> Path:
    """The network in one file, or with external data in one or in one a tensor."""
    path = tmp_path / f"{files}.onnx"
    options: dict[str, Any] = {} if files == "inline" else {"save_as_external_data": True}
    onnx.save(network(), path, all_tensors_to_one_file=files == "one", **options)
    return path


@pytest.mark.parametrize("files", ["inline", "one", "many"])
def test_a_model_is_transformed_with_its_weights_outside(
    files: str, tmp_path: Path, protos: list[int]
) -> None:
    path = saved(tmp_path, files)
    done = transform(path)
    assert done.check().comparison.passed
    session_of_file = session.open_session(str(path))
    expected = session_of_file.run(None, SAMPLES[0])[0]
    found = session.Runner(done.module).run(SAMPLES[0])["h8"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert max(protos) < PROTO_LIMIT


@pytest.mark.parametrize("mode", ["INT8", "DYN8", "W8", "W4", "F16", "F32"])
def test_every_mode_deploys_with_its_weights_outside(
    mode: str, tmp_path: Path, protos: list[int]
) -> None:
    save(transform(saved(tmp_path, "one")).module, tmp_path / "m.qir")
    module: Module = load(tmp_path / "m.qir")
    table = calibrate(module, SAMPLES) if mode == "INT8" else None
    deployed = deploy(module, Deployment(mode=mode), table=table)
    assert deployed.check(CheckSamples(SAMPLES, "test")).passed
    path, _ = deployed.write(tmp_path / "out.onnx")
    proof = deployed.prove(path, SAMPLES[0])
    assert proof.bytes["deployed"] == file_bytes(path)
    assert path.stat().st_size < 2 * PROTO_LIMIT
    integer = len(prove(path).products("integer"))
    assert integer == 8 if mode in ("INT8", "DYN8") else mode in ("W8", "W4") or not integer
    if mode == "INT8":
        assert set(deployed.benchmark(path, SAMPLES[0]).times) == {"float", "deployed"}
    assert max(protos) < PROTO_LIMIT


def test_a_model_in_memory_is_put_away_too(protos: list[int]) -> None:
    module = transform(network()).module
    assert session.Runner(module).run(SAMPLES[0])["h8"].shape == (1, 8, WIDTH)
    assert max(protos) < PROTO_LIMIT


def test_large_sessions_compute_what_others_do(
    tmp_path: Path, protos: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    del protos
    module = transform(saved(tmp_path, "one")).module
    lowered = deploy(module, Deployment(mode="DYN8")).module
    large = session.Runner(lowered).run(SAMPLES[0])["h8"]
    monkeypatch.setattr(session, "LARGE", 1 << 40)
    np.testing.assert_allclose(session.Runner(lowered).run(SAMPLES[0])["h8"], large, rtol=1e-5)
