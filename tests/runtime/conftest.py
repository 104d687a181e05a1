"""The tiny network at each stage of its way, and what it is calibrated with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.table import save_table
from qdqc.calibration.tables import calibrate
from qdqc.ir.graph import Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner


@pytest.fixture(scope="session")
def samples(tiny_data: Path) -> list[dict[str, Any]]:
    x = np.load(tiny_data)["x"]
    return [{"x": x[i : i + 4]} for i in range(0, 16, 4)]


@pytest.fixture(scope="session")
def tiny(tiny_onnx: Path) -> Module:
    """The float module. Clone it before changing it."""
    return run(import_onnx(tiny_onnx), "@transform")


@pytest.fixture(scope="session")
def table(
    tiny: Module, samples: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> str:
    path = tmp_path_factory.mktemp("table") / "tiny.cali_table"

    open_taps = partial(Runner, tiny, cut=True)
    (ranges,) = calibrate(tiny, samples, lambda names: open_taps(names).run, ["max"]).values()
    save_table(ranges, path)
    return str(path)


@pytest.fixture(scope="session")
def quantized(tiny: Module, table: str) -> Module:
    pipeline = f'import-calibration{{table="{table}"}},assign-precision,quantize'
    return run(tiny, pipeline)


@pytest.fixture(scope="session")
def lowered(quantized: Module) -> Module:
    return run(quantized, "lower-to-qdq")
