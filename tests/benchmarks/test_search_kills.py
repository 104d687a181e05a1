"""Kills of a search land where they should, and leave the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from qdqc_commands import argv
from search_kills import _Run, print_kills

from qdqc.tools.model_transform import main as transform
from qdqc.tools.run_calibration import main as calibrate


@pytest.fixture(scope="module")
def line(tiny_onnx: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A search of the tiny network that tries several mixed models."""
    folder = tmp_path_factory.mktemp("kills")
    qir, table = folder / "net.qir", folder / "net.cali_table"
    assert transform(["--model_def", str(tiny_onnx), "-o", str(qir), "-q"]) == 0
    assert calibrate([str(qir), "--dataset", str(tiny_data), "-o", str(table), "-q"]) == 0
    given = ("--dataset", tiny_data, "--calibration_table", table, "--inference_num", 6)
    return argv("run_sensitive_layer", qir, *given, "--expected_cos", "0.9999")


def test_killed_searches_end_in_the_same_files(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_kills(line, tmp_path, kills=1)
    rows = [row.split("|") for row in capsys.readouterr().out.splitlines() if "workers" in row]
    assert len(rows) == 3
    assert all(row[-2].strip() == "the same" for row in rows)
    landed = [int(row[3]) for row in rows[:2]]
    total = _Run.findings(_at(tmp_path / "whole"))
    assert all(0 < n <= total for n in landed)


def test_another_table_is_told(line: list[str], tmp_path: Path) -> None:
    made = [_at(tmp_path / name) for name in "ab"]
    for run in made:
        run.folder.mkdir()
        (run.folder / "n.qtable").write_text("a F32\n")
    assert made[0].same_as(made[1]) == "another", "the new tables are missing"
    for run in made:
        (run.folder / "n_new_cali_table").write_text("x 1 -1 1\n")
    assert made[0].same_as(made[1]) == "the same"
    (made[1].folder / "n.qtable").write_text("b F32\n")
    assert made[0].same_as(made[1]) == "another"


def _at(folder: Path) -> _Run:
    """A run whose files are there, or will be."""
    run = _Run.__new__(_Run)
    run.folder = folder
    return run
