"""The command, from files to files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from qdqc.calibration.table import load_table
from qdqc.diagnostics import QdqcError
from qdqc.quant.qtable import load_qtable
from qdqc.search.strategies.sensitivity import Sensitivity
from qdqc.tools.model_deploy import main as deploy
from qdqc.tools.run_sensitive_layer import main


def report_of(tmp_path: Path, args: list[str], *more: str, code: int = 0) -> dict[str, object]:
    path = tmp_path / "r.json"
    assert main([*args, *more, "--report", str(path), "-qq"]) == code
    return json.loads(path.read_text())


def test_the_files_are_what_deployment_takes(
    args: list[str], made: tuple[Path, Path], tmp_path: Path
) -> None:
    found = report_of(tmp_path, args, "--max_float_layers", "2")
    qtable, table = tmp_path / "net.qtable", tmp_path / "net_new_cali_table"
    names = [line.pattern for line in load_qtable(str(qtable)).lines]
    assert names == found["float_layers"]
    assert len(names) == 2
    ranking = found["ranking"]
    assert isinstance(ranking, list)
    assert [row["name"] for row in ranking[:2]] == names
    assert set(ranking[0]) >= {"name", "op", "loss", "method", "threshold"}
    losses = [row["loss"] for row in ranking]
    assert losses == sorted(losses, reverse=True)
    assert load_table(table).rows.keys() == load_table(made[1]).rows.keys()
    model, report = tmp_path / "net.onnx", tmp_path / "d.json"
    given = ["--mlir", str(made[0]), "--calibration_table", str(table), "--model", str(model)]
    assert deploy([*given, "--quantize_table", str(qtable), "--report", str(report), "-qq"]) == 0
    runs = {row["name"]: row["runs"] for row in json.loads(report.read_text())["audit"]["ops"]}
    assert {runs[n] for n in names} == {"float"}
    assert "integer" in runs.values()


def test_the_log_is_that_of_tpu_mlir(args: list[str], tmp_path: Path) -> None:
    found = report_of(tmp_path, args, "--max_float_layers", "1")
    lines = (tmp_path / "SensitiveLayerSearch").read_text().splitlines()
    assert all(line.startswith("INFO:root:") for line in lines)
    ranked = [line for line in lines if "sensitive layer, loss is" in line]
    form = r"INFO:root:the layer (\S+) is (\d+) sensitive layer, loss is (\S+), type is top\.(\w+)"
    parsed = [re.fullmatch(form, line) for line in ranked]
    ranking = found["ranking"]
    assert isinstance(ranking, list)
    assert [(m[1], int(m[2]), float(m[3]), m[4]) for m in parsed if m] == [
        (row["name"], place, row["loss"], row["op"]) for place, row in enumerate(ranking)
    ]
    assert f"INFO:root:mix model outputs_cos:{found['mix_cos']:.6f}" in lines
    assert f"INFO:root:int8 outputs_cos:{found['int8_cos']:.6f} old" in lines


def test_all_files_are_written_when_int8_is_good_enough(args: list[str], tmp_path: Path) -> None:
    found = report_of(tmp_path, args, "--expected_cos", "0.5")
    assert found["float_layers"] == []
    assert load_qtable(str(tmp_path / "net.qtable")).lines == ()
    assert load_table(tmp_path / "net_new_cali_table").rows
    assert (tmp_path / "SensitiveLayerSearch").exists()


def test_the_goal_is_reached_with_layers_that_all_matter(args: list[str], tmp_path: Path) -> None:
    first = report_of(tmp_path, args, "--expected_cos", "0.5")
    ranking = first["ranking"]
    assert isinstance(ranking, list)
    high = report_of(tmp_path, args, "--max_float_layers", "3")["mix_cos"]
    low = first["int8_cos"]
    assert isinstance(high, float)
    assert isinstance(low, float)
    goal = (low + high) / 2
    found = report_of(tmp_path, args, "--expected_cos", f"{goal:.9f}")
    assert isinstance(found["mix_cos"], float)
    assert found["mix_cos"] >= goal - 1e-9
    floats = found["float_layers"]
    assert isinstance(floats, list)
    assert 1 <= len(floats) <= 3
    text = (tmp_path / "net.qtable").read_text()
    assert f"which reaches {goal:.6f}" in text


def test_a_goal_out_of_reach_is_said(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*args, "--expected_cos", "1.5"]) == 0
    err = capsys.readouterr().err
    assert "no set that was tried reaches 1.5" in err
    assert "does not reach" in (tmp_path / "net.qtable").read_text()


def test_a_metric_of_the_user(args: list[str], tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "def metric(outputs, labels):\n"
        "    return float((outputs['y'].argmax(1) == labels).mean())\n"
    )
    (tmp_path / "labels.txt").write_text("\n".join("0123" * 4))
    given = ["--metric", str(tmp_path / "m.py"), "--labels", str(tmp_path / "labels.txt")]
    found = report_of(tmp_path, args, *given, "--max_drop", "1")
    assert isinstance(found["int8_cos"], float)
    assert round(found["int8_cos"] * 6) == pytest.approx(found["int8_cos"] * 6), "a share of six"
    np.save(tmp_path / "few.npy", np.zeros(3))
    few = ["--metric", str(tmp_path / "m.py"), "--labels", str(tmp_path / "few.npy")]
    assert "3 labels for 6 samples" in str(report_of(tmp_path, args, *few, code=1)["error"])


def test_post_processing_and_named_layers(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("def PostProcess(data):\n    return data['y'] > 0\n")
    report_of(tmp_path, args, "--post_process", str(tmp_path / "p.py"), "--max_float_layers", "1")
    report_of(tmp_path, args, "--global_compare_layers", "r2:0.3,y:0.7", "--max_float_layers", "1")
    report_of(tmp_path, args, "--samples", "worst", "--benchmark_method", "snr", "--exact")


def test_a_plot_shows_each_layer_and_what_was_written(args: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")
    plot = tmp_path / "p.svg"
    found = report_of(tmp_path, args, "--max_float_layers", "2", "--plot", str(plot))
    text = plot.read_text()
    ranking, floats = found["ranking"], found["float_layers"]
    assert isinstance(ranking, list)
    assert isinstance(floats, list)
    bars = re.findall(r'<g id="loss ([^"]+)">(.*?)</g>', text, re.DOTALL)
    assert sorted(name for name, _ in bars) == sorted(row["name"] for row in ranking)
    assert {name for name, bar in bars if "#d55e00" in bar} == set(floats)
    assert f"1  {ranking[0]['loss']:.2e}" in text.replace("\xa0", " ")


def test_a_plot_that_fails_leaves_the_other_files(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")

    def fail(*_: object) -> bytes:
        raise RuntimeError("no font")

    monkeypatch.setattr("qdqc.report.search_plot.draw", fail)
    given = ["--max_float_layers", "1", "--plot", str(tmp_path / "p.png")]
    assert main([*args, *given, "-qq"]) == 3
    assert len(load_qtable(str(tmp_path / "net.qtable")).lines) == 1
    assert not (tmp_path / "p.png").exists()


@pytest.fixture(scope="module")
def user_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that a user may give, each with a fault."""
    folder = tmp_path_factory.mktemp("user")
    bodies = {
        "raises": "def metric(outputs, labels):\n    return outputs['top5']",
        "one": "def metric(outputs):\n    return 1",
        "several": "import numpy\ndef metric(outputs, labels):\n    return numpy.array([1.0, 2.0])",
        "nan": "def metric(outputs, labels):\n    return float('nan')",
        "names": "def accuracy(outputs, labels):\n    return 1",
        "broken": "def metric(outputs, labels)\n    return 1",
        "boxes": "def PostProcess(o):\n    return o['y'][:, : int(1e6 * o['y'][0, 0]) % 3 + 1]",
        "empty": "def PostProcess(outputs):\n    return outputs['y'][:, :0]",
        "texts": "def PostProcess(outputs):\n    return ['cat', 'dog']",
    }
    for name, body in bodies.items():
        (folder / f"{name}.py").write_text(body + "\n")
    np.save(folder / "one.npy", np.array(5))
    return folder


@pytest.mark.parametrize("option", ["--expected_cos", "--max_drop"])
@pytest.mark.parametrize("value", ["nan", "inf", "much"])
def test_a_goal_is_a_number(
    args: list[str], capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main([*args, option, value]) == 2
    assert f"'{value}' is not a number such as 0.99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--plot", "p.jpg"], "'p.jpg' does not say what kind of picture it is"),
        (["--plot", "none/p.svg"], "there is no folder 'none'"),
        (["--global_compare_layers", "yy"], "there is no value 'yy' to compare"),
        (["--global_compare_layers", "y:0.3"], "sum to 0.3, not to 1"),
        (["--global_compare_layers", "y:a"], "'a' is not a weight of 'y'"),
        (["--inference_num", "0"], "there are no samples to search on"),
        (["--quantize_method_list", "LK"], "unknown calibration method 'lk'"),
        (["--target", "ort-cpo"], "did you mean 'ort-cpu'"),
        (["--labels", "x"], "--labels are for a metric"),
        (["--metric", "raises.py"], "raises.py:2: error: the metric fails: KeyError: 'top5'"),
        (["--metric", "one.py"], "the metric fails: TypeError: metric() takes 1 positional"),
        (["--metric", "several.py"], "the metric gave array([1., 2.]), which is no finite number"),
        (["--metric", "nan.py"], "the metric gave nan, which is no finite number"),
        (["--metric", "names.py"], "it has no function 'metric'"),
        (["--metric", "broken.py"], "broken.py"),
        (["--metric", "nan.py", "--labels", "none.npy"], "none.npy"),
        (["--metric", "nan.py", "--labels", "one.npy"], "there are 1 labels for 6 samples"),
        (["--post_process", "boxes.py"], "the post-processing gives other shapes"),
        (["--post_process", "empty.py"], "the post-processing gives nothing to compare"),
        (["--post_process", "texts.py"], "the post-processing gives no numbers as '0'"),
        (["--post_process", "raises.py"], "it has no function 'PostProcess'"),
        (["--metric", "none.py"], "there is no such Python file"),
        (["--calibration_table", "none"], "none: error: can't read the calibration table"),
        (["-o", "none/q"], "there is no folder 'none'"),
    ],
)
def test_errors_come_in_one_paragraph_and_leave_no_file(
    args: list[str],
    tmp_path: Path,
    user_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(user_files)
    assert main([*args, *change]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_another_model_is_refused(
    args: list[str], made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made[1].read_text()
    other = tmp_path / "other"
    other.write_text(re.sub(r"# digest: \w+", "# digest: 1234", text))
    assert main([*args, "--calibration_table", str(other)]) == 1
    assert "belongs to another model" in capsys.readouterr().err


def test_an_interrupt_leaves_valid_files_and_is_gone_on_from(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held = Sensitivity._judge
    count = 0

    def judge(self: Sensitivity, *given: object) -> object:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return held(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Sensitivity, "_judge", judge)
        assert main([*args, "--max_float_layers", "1"]) == 130
    err = capsys.readouterr().err
    assert "interrupted: the files hold what is known so far; the same command goes on" in err
    load_qtable(str(tmp_path / "net.qtable"))
    assert load_table(tmp_path / "net_new_cali_table").rows
    assert main([*args, "--max_float_layers", "1"]) == 0
    assert "findings of an earlier run are taken up" in capsys.readouterr().err
    after = (tmp_path / "net_new_cali_table").read_text()
    assert main([*args, "--max_float_layers", "1", "--no_cache"]) == 0
    assert (tmp_path / "net_new_cali_table").read_text() == after


def test_an_interrupt_before_anything_is_known_leaves_nothing(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qdqc.flow.search.Trials", interrupt)
    assert main(args) == 130
    assert list(tmp_path.iterdir()) == []


def test_samples_that_can_not_be_read_are_told_and_left_out(
    args: list[str],
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(_: object) -> None:
        raise QdqcError("can't read the samples: Input/output error", file="x.samples.npz")

    monkeypatch.setattr("qdqc.calibration.table.Table.kept", broken)
    assert main([*args, "--max_float_layers", "1", "-q"]) == 0
    assert "x.samples.npz: warning: can't read the samples" in capsys.readouterr().err
    assert (
        load_table(tmp_path / "net_new_cali_table").rows.keys() == load_table(made[1]).rows.keys()
    )
