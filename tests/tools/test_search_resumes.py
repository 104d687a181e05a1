"""Searches that were interrupted, and what a journal of another search does to one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qdqc.calibration.table import load_table
from qdqc.quant.qtable import load_qtable
from qdqc.search.strategies.mixes import Mixes
from qdqc.search.trials.trials import Trials
from qdqc.tools.run_qtable import main as run_qtable
from qdqc.tools.run_sensitive_layer import main as run_sensitive_layer

GOAL = ["--expected_cos", "0.9999"]


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, count: int) -> None:
    """Interrupt a search when it asks for something so many times."""
    held, asked = getattr(owner, name), 0

    def ask(self: object, *given: object, **named: object) -> object:
        nonlocal asked
        asked += 1
        if asked == count:
            raise KeyboardInterrupt
        return held(self, *given, **named)

    monkeypatch.setattr(owner, name, ask)


def files(folder: Path) -> dict[str, str]:
    names = ("net.qtable", "net_new_cali_table", "full_loss_table.txt")
    return {n: (folder / n).read_text() for n in names if (folder / n).exists()}


def taken_up(err: str) -> int:
    found = re.findall(r"(\d+) findings of an earlier run", err)
    return int(found[0]) if found else 0


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("what", ["losses", "part_outputs", "score_of"])
def test_wherever_a_search_is_interrupted_it_ends_the_same(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    count: int,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, Trials, what, count)
        code = run_sensitive_layer([*args, *GOAL])
    if code == 130 and (tmp_path / "net.qtable").exists():
        load_qtable(str(tmp_path / "net.qtable"))
        load_table(tmp_path / "net_new_cali_table")
        assert "interrupted: the files hold what is known so far" in capsys.readouterr().err
    assert code in (0, 130)
    assert run_sensitive_layer([*args, *GOAL]) == 0
    after = files(tmp_path)
    assert run_sensitive_layer([*args, *GOAL, "--no_cache", "-qq"]) == 0
    assert files(tmp_path) == after


@pytest.mark.parametrize(
    ("strategy", "count"),
    [(s, n) for s in ("mix", "accuracy", "pareto") for n in (1, 2)] + [("mix", 3), ("accuracy", 3)],
)
def test_an_interrupted_strategy_leaves_its_best_model(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, count: int
) -> None:
    seen: list[Mixes] = []
    held = Mixes.__init__

    def note(self: Mixes, *given: object) -> None:
        seen.append(self)
        held(self, *given)  # type: ignore[arg-type]

    given = ["--strategy", strategy, "--expected_cos", "1.5", "--min_layer_cos", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(Mixes, "__init__", note)
        stop_at(patch, Trials, "score_of", count)
        assert run_qtable([*args, *given, "-qq"]) == 130
    qtable = tmp_path / "net.qtable"
    assert qtable.exists() == (count > 1), "nothing is known before INT8 is scored"
    if count > 1:
        names = {line.pattern for line in load_qtable(str(qtable)).lines}
        verified = {m.floats: m.score for m in seen[0].verified.values()}
        assert verified[frozenset(names)] == max(verified.values())


def test_an_interrupted_search_has_its_plot(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")
    plot = tmp_path / "p.svg"
    with monkeypatch.context() as patch:
        stop_at(patch, Trials, "losses", 4)
        assert run_sensitive_layer([*args, "--plot", str(plot), "-qq"]) == 130
    bars = re.findall(r'<g id="loss ', plot.read_text())
    assert 1 <= len(bars) <= 3, "the layers that were judged"


def test_workers_go_on_where_one_process_stopped(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, Trials, "losses", 5)
        assert run_sensitive_layer([*args, *GOAL]) == 130
    capsys.readouterr()
    assert run_sensitive_layer([*args, *GOAL, "--workers", "2"]) == 0
    assert taken_up(capsys.readouterr().err) >= 4
    after = files(tmp_path)
    assert run_sensitive_layer([*args, *GOAL, "--no_cache", "-qq"]) == 0
    assert files(tmp_path) == after


def change_data(args: list[str], folder: Path) -> list[str]:
    data = np.load(args[args.index("--dataset") + 1])["x"].copy()
    data[2] *= 1.5
    np.savez(folder / "other.npz", x=data)
    return ["--dataset", str(folder / "other.npz")]


def change_table(args: list[str], folder: Path) -> list[str]:
    text = Path(args[args.index("--calibration_table") + 1]).read_text()
    (folder / "other_table").write_text(re.sub(r"(?m)^(r2) (\S+)", r"\1 9.5", text))
    return ["--calibration_table", str(folder / "other_table")]


@pytest.mark.parametrize(
    "change",
    [
        change_data,
        change_table,
        lambda args, folder: ["--inference_num", "5"],
        lambda args, folder: ["--symmetric"],
        lambda args, folder: ["--benchmark_method", "snr"],
        lambda args, folder: ["--global_compare_layers", "r2:0.5,y:0.5"],
        lambda args, folder: ["--target", "openvino"],
    ],
)
def test_findings_of_another_search_are_not_taken_up(
    args: list[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str], Path], list[str]],
) -> None:
    other = [*args, *change(args, tmp_path_factory.mktemp("other")), "--max_float_layers", "1"]
    assert run_sensitive_layer([*args, "--max_float_layers", "1"]) == 0
    capsys.readouterr()
    assert run_sensitive_layer(other) == 0
    assert taken_up(capsys.readouterr().err) == 0
    after = files(tmp_path)
    assert run_sensitive_layer([*other, "--no_cache", "-qq"]) == 0
    assert files(tmp_path) == after


def test_a_metric_that_was_edited_is_another_search(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = tmp_path / "m.py"
    given = [*args, "--metric", str(metric), "--max_float_layers", "0"]
    for value in ("0.25", "0.75"):
        metric.write_text(f"def metric(outputs, labels):\n    return {value}\n")
        report = tmp_path / "r.json"
        assert run_sensitive_layer([*given, "--report", str(report)]) == 0
        assert json.loads(report.read_text())["int8_cos"] == float(value)
    assert taken_up(capsys.readouterr().err) == 0


def test_a_journal_that_was_torn_is_gone_on_from(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "journals"
    given = [*args, *GOAL, "--cache", str(cache)]
    assert run_sensitive_layer(given) == 0
    whole = files(tmp_path)
    (journal,) = cache.rglob("*.journal")
    text = journal.read_bytes()
    capsys.readouterr()
    for end in (0, 1, len(text) // 3, len(text) // 2 + 7, len(text) - 3):
        journal.write_bytes(text[:end])
        assert run_sensitive_layer(given) == 0
        assert files(tmp_path) == whole
        lines = [line for line in text[:end].split(b"\n") if line.endswith(b"]")]
        assert taken_up(capsys.readouterr().err) in (len(lines), len(lines) - 1)


def test_a_cache_that_is_a_file_is_no_condition(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = ["--max_float_layers", "1", "--cache", str(tmp_path / "file"), "-qq"]
    assert run_sensitive_layer([*args, *given]) == 0
    assert load_qtable(str(tmp_path / "net.qtable")).lines
