"""Faults at calls of file I/O: a few of each kind, of the commands with the most files."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
from fault_points import KINDS

COMMANDS = ["deploy", "calibrate", "run"]


@pytest.mark.parametrize("name", COMMANDS)
def test_faults_leave_nothing_half_done(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["--only", name, "--every", "23"]) == 0
    out = capsys.readouterr().out
    assert f"| {name}" in out
    assert "wrong" not in out


def test_what_is_left_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were files not written whole, the trials would fail."""

    def plainly(files: object) -> None:
        for path, content in files:  # type: ignore[attr-defined]
            with path.open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)

    monkeypatch.setattr("qdqc.files.write_together", plainly)
    (case,) = faults._cases(["merge"], tmp_path)
    counts = faults.faults(case, 1, KINDS, lambda _: None)
    assert counts["kill failed"]
    assert counts["error failed"]
