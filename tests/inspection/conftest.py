"""The embedded digits network at each stage of its way, made once by the commands themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.model_deploy import main as deploy
from tools.model_transform import main as transform
from tools.run_calibration import main as calibrate

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
RIGHT = ("--mean", "127.5", "--scale", "0.0078125")
SWAPPED = ("--mean", "0.0078125", "--scale", "127.5")


def made(folder: Path, name: str, preprocessing: tuple[str, ...], data: Path) -> Path:
    """``name``.qir with its .cali_table, calibrated on ``data``."""
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
    """A folder with digits.qir, digits.cali_table, digits_int8.onnx and its .qir."""
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
