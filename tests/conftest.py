"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

# Ops enter the registry when they are first imported: not within some test's scratch registry.
import qdqc.ops  # noqa: F401

# The same examples in every run; QDQC_EXPLORE=1 draws new ones, to look for more.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("QDQC_EXPLORE") else "same")


DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
RIGHT = ("--mean", "127.5", "--scale", "0.0078125")
SWAPPED = ("--mean", "0.0078125", "--scale", "127.5")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [N,3,8,8] -> conv, relu -> conv, add, relu -> conv -> pool, flatten, gemm -> y [N,4]."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,)}
    shapes |= {"w3": (8, 8, 1, 1), "w4": (4, 8), "b4": (4,)}
    weights = [
        numpy_helper.from_array((0.3 * rng.standard_normal(s)).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1] * 4),
        make("Add", ["c2", "r1"], ["a"], name="add"),
        make("Relu", ["a"], ["r2"], name="relu2"),
        make("Conv", ["r2", "w3"], ["c3"], name="conv3"),
        make("GlobalAveragePool", ["c3"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("Gemm", ["f", "w4", "b4"], ["y"], name="gemm", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "tiny", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 samples for ``tiny_onnx`` as npz."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    x = np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)
    np.savez(path, x=x)
    return path


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Commands keep nothing in the cache of who runs the tests."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_cache(
    caches: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a test find what another one kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches / f"{hash(request.node.nodeid):x}"))


def made(folder: Path, name: str, preprocessing: tuple[str, ...], data: Path) -> Path:
    """``name``.qir with its .cali_table, calibrated on ``data``."""
    from qdqc.tools.model_transform import main as transform
    from qdqc.tools.run_calibration import main as calibrate

    qir = folder / f"{name}.qir"
    shape = ["--pixel_format", "gray", "--resize_dims", "32,32", *preprocessing]
    assert (
        transform(["--model_def", f"{DIGITS / 'digits.onnx'}", "-o", str(qir), "-q", *shape]) == 0
    )
    table = str(qir.with_suffix(".cali_table"))
    given = [str(qir), "--dataset", str(data), "-o", table, "-qq", "--no_cache"]
    assert calibrate(given) == 0
    return qir


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits network at each stage of its way, made once by the commands themselves:
    a folder with digits.qir, digits.cali_table, digits_int8.onnx and its .qir.
    """
    from qdqc.tools.model_deploy import main as deploy

    folder = tmp_path_factory.mktemp("digits")
    qir = made(folder, "digits", RIGHT, DIGITS / "calib.npz")
    given = ["--mlir", str(qir), "--calibration_table", str(qir.with_suffix(".cali_table")), "-qq"]
    assert deploy([*given, "--model", str(folder / "digits_int8.onnx")]) == 0
    return folder


@pytest.fixture(scope="session")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with swapped.qir, whose mean and scale changed places, calibrated on photos."""
    folder = tmp_path_factory.mktemp("swapped")
    made(folder, "swapped", SWAPPED, DIGITS / "photos")
    return folder
