"""run_qtable and fp_forward, from files to files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qdqc.quant.qtable import load_qtable
from qdqc.tools.fp_forward import main as forward
from qdqc.tools.model_deploy import main as deploy
from qdqc.tools.run_qtable import main


@pytest.mark.parametrize("strategy", ["mix", "accuracy", "pareto"])
def test_each_strategy_writes_what_deployment_takes(
    args: list[str], made: tuple[Path, Path], tmp_path: Path, strategy: str
) -> None:
    report = tmp_path / "r.json"
    given = ["--strategy", strategy, "--expected_cos", "0.99999999", "--min_layer_cos", "1"]
    assert main([*args, *given, "--report", str(report), "-qq"]) == 0
    found = json.loads(report.read_text())
    assert found["mix_cos"] >= found["int8_cos"]
    qtable = tmp_path / "net.qtable"
    assert [line.pattern for line in load_qtable(str(qtable)).lines] == found["float_layers"]
    losses = [row["loss"] for row in found["ranking"]]
    assert losses == sorted(losses, reverse=True)
    assert (tmp_path / "full_loss_table.txt").exists() == (strategy == "mix")
    if strategy == "pareto":
        assert len(found["front"]) >= 2
        assert {"float_layers", "score", "predicted_ms", "measured_ms"} <= set(found["front"][0])
    model = ["--model", str(tmp_path / "net.onnx"), "--calibration_table", str(made[1]), "-qq"]
    assert deploy(["--mlir", str(made[0]), "--quantize_table", str(qtable), *model]) == 0


@pytest.mark.parametrize("strategy", ["mix", "accuracy", "pareto"])
def test_each_strategy_has_its_plot(args: list[str], tmp_path: Path, strategy: str) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")
    plot, report = tmp_path / "p.svg", tmp_path / "r.json"
    given = ["--strategy", strategy, "--expected_cos", "0.99999999", "--points", "3"]
    assert main([*args, *given, "--report", str(report), "--plot", str(plot), "-qq"]) == 0
    text, found = plot.read_text(), json.loads(report.read_text())
    bars = re.findall(r'<g id="loss ([^"]+)">', text)
    assert sorted(bars) == sorted(row["name"] for row in found["ranking"])
    assert bars
    assert ("milliseconds" in text) == (strategy == "pareto")


def test_all_files_are_written_when_int8_is_good_enough(args: list[str], tmp_path: Path) -> None:
    loss = tmp_path / "l.txt"
    assert main([*args, "--expected_cos", "0.5", "--loss_table", str(loss), "-q"]) == 0
    assert load_qtable(str(tmp_path / "net.qtable")).lines == ()
    assert loss.read_text().startswith("# chip: ort-cpu  mix_mode: F32\n###\nNo.0   : Layer: ")


def test_latency_chooses_a_point(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--strategy", "pareto", "--points", "3", "--max_latency"]
    assert main([*args, *given, "1e6"]) == 0
    out = capsys.readouterr().out
    assert "predicted  measured     score  float layers" in out
    assert out.count("chosen") == 1
    assert main([*args, *given, "0", "--report", str(tmp_path / "r.json"), "-qq"]) == 0
    front = json.loads((tmp_path / "r.json").read_text())["front"]
    fastest = min(front, key=lambda p: p["measured_ms"])
    written = [line.pattern for line in load_qtable(str(tmp_path / "net.qtable")).lines]
    assert sorted(written) == fastest["float_layers"]


def test_an_interrupt_writes_the_best_so_far(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qdqc.search.strategies.walk.walk", interrupt)
    assert main([*args, "--expected_cos", "1.5"]) == 130
    assert "the files hold what is known so far" in capsys.readouterr().err
    assert load_qtable(str(tmp_path / "net.qtable")).lines == ()


def test_a_bad_request_leaves_no_file(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*args, "--loss_table", "none/t"]) == 1
    assert "there is no folder 'none'" in capsys.readouterr().err
    assert main([*args, "--strategy", "mixed"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_parts_stay_float(made: tuple[Path, Path], tmp_path: Path) -> None:
    qtable, report = tmp_path / "q", tmp_path / "r.json"
    base = [str(made[0]), "-o", str(qtable), "--report", str(report), "-q"]
    assert forward([*base, "--inputs", "r1", "--fpfwd_blocks", "c3:p,f"]) == 0
    lines = load_qtable(str(qtable)).lines
    assert [(line.pattern, line.mode) for line in lines] == [
        (n, "F32") for n in ("r1", "c3", "p", "f")
    ]
    assert json.loads(report.read_text())["float_layers"] == ["r1", "c3", "p", "f"]
    assert forward([*base, "--fpfwd_outputs", "p", "--fp_type", "w8"]) == 0
    assert {line.mode for line in load_qtable(str(qtable)).lines} == {"W8"}


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ([], 1, "no part of the network was named"),
        (["--inputs", "r11"], 1, "there is no layer 'r11'; did you mean 'r1'?"),
        (["--blocks", "y:r1"], 1, "no way leads from y to r1"),
        (["--blocks", "y"], 2, "'y' is not a block such as start:end"),
        (["--outputs", "p", "--fp_type", "int8"], 2, "invalid choice: 'INT8'"),
    ],
)
def test_parts_that_are_none(
    made: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    code: int,
    message: str,
) -> None:
    assert forward([str(made[0]), "-o", str(tmp_path / "q"), *given]) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
