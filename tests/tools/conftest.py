"""What the tests of commands share, and what those of the search begin with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qdqc.tools.model_transform import main as transform
from qdqc.tools.run_calibration import main as calibrate


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """Handlers as a terminal has them: a shell starts what it puts behind with SIGINT ignored."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def made(
    tiny_onnx: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A transformed model and its table."""
    folder = tmp_path_factory.mktemp("search")
    qir, table = folder / "net.qir", folder / "net.cali_table"
    assert transform(["--model_def", str(tiny_onnx), "-o", str(qir), "-q"]) == 0
    assert calibrate([str(qir), "--dataset", str(tiny_data), "-o", str(table), "-q"]) == 0
    return qir, table


@pytest.fixture
def args(made: tuple[Path, Path], tiny_data: Path, tmp_path: Path) -> list[str]:
    """A search on them by six samples."""
    qir, table = made
    data = ["--dataset", str(tiny_data), "--calibration_table", str(table)]
    return [str(qir), *data, "-o", str(tmp_path / "net.qtable"), "--inference_num", "6"]
