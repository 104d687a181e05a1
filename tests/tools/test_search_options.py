"""What the options of a search stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.table import Table, load_table, save_table
from qdqc.diagnostics import QdqcError
from qdqc.flow.search import open_search
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Cast, Conv, Gemm, Relu
from qdqc.search.strategies.strategy import Search
from qdqc.search.trials.objective import Likeness, Metric
from qdqc.text.digest import module_digest
from qdqc.text.qir_files import load, save
from qdqc.tools.run_sensitive_layer import _parser
from qdqc.tools.search_files import SearchFiles, qtable_text
from qdqc.tools.search_options import _request


def network() -> Module:
    """x -> conv -> relu, and a copy of it in integers: two outputs, one of them float."""
    out = Module("m", {"": 17})
    x = out.graph.add_input("x", TensorType(Elem.F32, (1, 2, 4, 4)))
    weight = out.add_constant("w", Data.of(np.ones((2, 2, 1, 1), np.float32)))
    y = out.graph.insert(Conv(), [x, weight], None, ["y"]).result
    z = out.graph.insert(Relu(), [y], None, ["z"]).result
    whole = out.graph.insert(Cast(to="i64"), [z], None, ["whole"]).result
    out.graph.set_outputs([z, whole])
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(network(), tmp_path / "m.qir")
    module = load(tmp_path / "m.qir")
    rows = {n: Range(-2.0, 2.0, 2.0) for n in "xyz"}
    header = {"method": "kl", "digest": module_digest(module)}
    save_table(Table(rows, dict.fromkeys("xyz", (-2.0, 2.0)), header), tmp_path / "t")
    x = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32)
    x[3] *= 50
    np.savez(tmp_path / "d.npz", x=x)
    return tmp_path


def search_of(folder: Path, *given: str, kept: bool = False) -> Search:
    """The search that a command with these options would run."""
    words = [str(folder / "m.qir"), "--dataset", str(folder / "d.npz"), "-o", str(folder / "q")]
    words += ["--calibration_table", str(folder / "t"), "-qq", *given]
    words += [] if kept else ["--no_cache"]
    args: Any = _parser().parse_args(words)
    return open_search(load(folder / "m.qir"), load_table(folder / "t"), _request(args))


def objective_of(folder: Path, *given: str) -> Any:
    return search_of(folder, *given).trials.objective


def test_float_outputs_are_compared_alike(folder: Path) -> None:
    objective = objective_of(folder)
    assert isinstance(objective, Likeness)
    assert objective.weights == {"z": 1.0}
    assert objective.kind == "cos"
    named = objective_of(folder, "--global_compare_layers", "y:0.25,z:0.75")
    assert isinstance(named, Likeness)
    assert named.weights == {"y": 0.25, "z": 0.75}
    alike = objective_of(folder, "--global_compare_layers", "y,z")
    assert isinstance(alike, Likeness)
    assert alike.weights == {"y": 0.5, "z": 0.5}


def test_a_model_without_float_outputs_names_what_is_compared(folder: Path) -> None:
    module = network()
    value = module.value("whole")
    assert value is not None
    module.graph.set_outputs([value])
    save(module, folder / "m.qir")
    save_table(replace(load_table(folder / "t"), header={}), folder / "t")
    with pytest.raises(QdqcError, match="no float outputs to compare"):
        _ = objective_of(folder)


def test_samples_come_in_the_order_of_the_data(folder: Path) -> None:
    whole = np.load(folder / "d.npz")["x"]
    samples = search_of(folder, "--inference_num", "3", "--input_num", "1").trials.samples
    assert [np.array_equal(s["x"][0], whole[i]) for i, s in enumerate(samples)] == [True] * 3


def test_the_worst_samples_are_searched_for(folder: Path) -> None:
    whole = np.load(folder / "d.npz")["x"]
    (sample,) = search_of(folder, "--inference_num", "1", "--samples", "worst").trials.samples
    np.testing.assert_array_equal(sample["x"][0], whole[3], "it lies far outside of the ranges")
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return 0\n")
    np.save(folder / "l.npy", np.zeros(5))
    given = ["--metric", str(folder / "m.py"), "--labels", str(folder / "l.npy")]
    with pytest.raises(QdqcError, match="labels belong to the first samples"):
        _ = search_of(folder, "--samples", "worst", *given).trials.samples


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1\n2\n\n3\n", [1.0, 2.0, 3.0]), ("cat\ndog\n", ["cat", "dog"])],
)
def test_labels_are_numbers_or_texts(folder: Path, text: str, expected: list[Any]) -> None:
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return len(labels)\n")
    (folder / "l.txt").write_text(text)
    given = ["--metric", str(folder / "m.py"), "--labels", str(folder / "l.txt")]
    objective = objective_of(folder, *given, "--inference_num", "2")
    assert isinstance(objective, Metric)
    assert objective.labels is not None
    assert list(objective.labels) == expected[:2]
    assert objective.names == ("z",)


@pytest.mark.parametrize("body", ["data['z'] * 2", "(data['z'], data['z'])", "{'k': data['z']}"])
def test_a_post_processing_gives_one_array_or_several(folder: Path, body: str) -> None:
    (folder / "p.py").write_text(f"def post_process(data):\n    return {body}\n")
    objective = objective_of(folder, "--post_process", str(folder / "p.py"))
    outputs = [{"z": np.ones((1, 3))}]
    assert objective.score(outputs, outputs) == pytest.approx(1.0)


def test_the_goal_is_a_likeness_or_what_a_metric_may_lose(folder: Path) -> None:
    assert search_of(folder).goal == 0.99
    assert search_of(folder, "--expected_cos", "0.5").goal == 0.5
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return 0.75\n")
    given = search_of(folder, "--metric", str(folder / "m.py"), "--max_drop", "0.25")
    assert given.goal == 0.5


def test_the_given_table_stands_first_under_its_method(folder: Path) -> None:
    search = search_of(folder)
    tables = search.tables_of(["MAX", "KL", "use_max"])
    assert list(tables) == ["kl", "max"]
    assert tables["kl"] is search.base
    assert list(search.tables_of(["kl"])) == ["kl"], "nothing is calibrated"


def test_journals_depend_on_all_that_changes_findings(folder: Path) -> None:
    def journals(*given: str) -> set[str]:
        search = search_of(folder, *given, "--cache", str(folder / "cache"), kept=True)
        search.journal.put("x", 1)
        return {p.name for p in (folder / "cache").rglob("*.journal")}

    first = journals()
    assert len(first) == 1
    assert journals() == first
    for count, given in enumerate(
        (["--symmetric"], ["--inference_num", "2"], ["--fp_type", "W8"]), 2
    ):
        assert len(journals(*given)) == count


def test_files_stand_beside_the_qtable(tmp_path: Path) -> None:
    files = SearchFiles(str(tmp_path / "net.v2.qtable"), "m.qir", "ort-cpu", "F32")
    assert files.new_table == tmp_path / "net.v2_new_cali_table"
    assert files.log == tmp_path / "SensitiveLayerSearch"
    assert files.losses == tmp_path / "full_loss_table.txt"
    text = qtable_text(files, ["a", "b c"], {"d"}, ["one\nnote"])
    assert "# one\\nnote\n# leaves the integers as well: d\n" in text
    assert text.endswith('# op_name   quantize_mode\na F32\n"b c" F32\n')


def test_a_network_without_integer_layers_has_an_empty_search(folder: Path) -> None:
    """A product whose weight is computed stays float: there is nothing to rank."""
    module = Module("m", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (2, 2)))
    y = module.graph.insert(Gemm(), [x, x], None, ["y"]).result
    module.graph.set_outputs([y])
    save(module, folder / "m.qir")
    held = load(folder / "m.qir")
    rows = {n: Range(-9.0, 9.0, 9.0) for n in "xy"}
    save_table(Table(rows, header={"digest": module_digest(held)}), folder / "t")
    np.savez(folder / "d.npz", x=np.ones((2, 2), np.float32))
    from qdqc.tools.run_sensitive_layer import main

    words = [str(folder / "m.qir"), "--dataset", str(folder / "d.npz"), "-o", str(folder / "q")]
    assert main([*words, "--calibration_table", str(folder / "t"), "-qq", "--no_cache"]) == 0
    assert (folder / "q").read_text().endswith("# op_name   quantize_mode\n")
