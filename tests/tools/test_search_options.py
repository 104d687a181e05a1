"""What the options of a search stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.table import Table, save_table
from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Cast, Conv, Gemm, Relu
from qdqc.search.trials.objective import Likeness, Metric
from qdqc.text.digest import module_digest
from qdqc.text.qir_files import load, save
from qdqc.tools.command import Invocation
from qdqc.tools.run_sensitive_layer import sensitive_layer_parser
from qdqc.tools.search_files import log_path, new_table_path, qtable_text, write_search
from qdqc.tools.search_options import Request


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


def request_of(folder: Path, *given: str) -> Request:
    words = [str(folder / "m.qir"), "--dataset", str(folder / "d.npz"), "-o", str(folder / "q")]
    words += ["--calibration_table", str(folder / "t"), "--no_cache", "-qq", *given]
    args: Any = sensitive_layer_parser().parse_args(words)
    return Request(Invocation(args), load(folder / "m.qir"))


def test_float_outputs_are_compared_alike(folder: Path) -> None:
    objective = request_of(folder).objective
    assert isinstance(objective, Likeness)
    assert objective.weights == {"z": 1.0}
    assert objective.kind == "cos"
    named = request_of(folder, "--global_compare_layers", "y:0.25,z:0.75").objective
    assert isinstance(named, Likeness)
    assert named.weights == {"y": 0.25, "z": 0.75}
    alike = request_of(folder, "--global_compare_layers", "y,z").objective
    assert isinstance(alike, Likeness)
    assert alike.weights == {"y": 0.5, "z": 0.5}


def test_a_model_without_float_outputs_names_what_is_compared(folder: Path) -> None:
    module = network()
    value = module.value("whole")
    assert value is not None
    module.graph.set_outputs([value])
    save(module, folder / "m.qir")
    with pytest.raises(QdqcError, match="no float outputs to compare"):
        _ = request_of(folder).objective


def test_samples_come_in_the_order_of_the_data(folder: Path) -> None:
    whole = np.load(folder / "d.npz")["x"]
    samples = request_of(folder, "--inference_num", "3", "--input_num", "1").samples
    assert [np.array_equal(s["x"][0], whole[i]) for i, s in enumerate(samples)] == [True] * 3


def test_the_worst_samples_are_searched_for(folder: Path) -> None:
    whole = np.load(folder / "d.npz")["x"]
    (sample,) = request_of(folder, "--inference_num", "1", "--samples", "worst").samples
    np.testing.assert_array_equal(sample["x"][0], whole[3], "it lies far outside of the ranges")
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return 0\n")
    np.save(folder / "l.npy", np.zeros(5))
    given = ["--metric", str(folder / "m.py"), "--labels", str(folder / "l.npy")]
    with pytest.raises(QdqcError, match="labels belong to the first samples"):
        _ = request_of(folder, "--samples", "worst", *given).samples


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1\n2\n\n3\n", [1.0, 2.0, 3.0]), ("cat\ndog\n", ["cat", "dog"])],
)
def test_labels_are_numbers_or_texts(folder: Path, text: str, expected: list[Any]) -> None:
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return len(labels)\n")
    (folder / "l.txt").write_text(text)
    given = ["--metric", str(folder / "m.py"), "--labels", str(folder / "l.txt")]
    objective = request_of(folder, *given, "--inference_num", "2").objective
    assert isinstance(objective, Metric)
    assert objective.labels is not None
    assert list(objective.labels) == expected
    assert objective.names == ("z",)


@pytest.mark.parametrize("body", ["data['z'] * 2", "(data['z'], data['z'])", "{'k': data['z']}"])
def test_a_post_processing_gives_one_array_or_several(folder: Path, body: str) -> None:
    (folder / "p.py").write_text(f"def post_process(data):\n    return {body}\n")
    objective = request_of(folder, "--post_process", str(folder / "p.py")).objective
    outputs = [{"z": np.ones((1, 3))}]
    assert objective.score(outputs, outputs) == pytest.approx(1.0)


def test_the_goal_is_a_likeness_or_what_a_metric_may_lose(folder: Path) -> None:
    assert request_of(folder).goal_of(1.0) == 0.99
    assert request_of(folder, "--expected_cos", "0.5").goal_of(1.0) == 0.5
    (folder / "m.py").write_text("def metric(outputs, labels):\n    return 0.75\n")
    given = request_of(folder, "--metric", str(folder / "m.py"), "--max_drop", "0.25")
    assert given.goal_of(0.75) == 0.5


def test_the_given_table_stands_first_under_its_method(folder: Path) -> None:
    request = request_of(folder)
    tables = request.tables(["MAX", "KL", "use_max"])
    assert list(tables) == ["kl", "max"]
    assert tables["kl"] is request.base
    assert list(request_of(folder).tables(["kl"])) == ["kl"], "nothing is calibrated"


def test_journals_depend_on_all_that_changes_findings(folder: Path) -> None:
    def path(*given: str) -> str:
        request = request_of(folder, *given)
        request.args.no_cache = False
        request.args.cache = str(folder / "cache")
        request.journal.put("x", 1)
        before = {p.name for p in (folder / "cache").iterdir()}
        return " ".join(sorted(before))

    first = path()
    assert path() == first
    seen = {first}
    for given in (["--symmetric"], ["--inference_num", "2"], ["--fp_type", "W8"]):
        grown = path(*given)
        assert grown not in seen
        seen.add(grown)


def test_files_stand_beside_the_qtable(tmp_path: Path) -> None:
    qtable = str(tmp_path / "net.v2.qtable")
    assert new_table_path(qtable) == tmp_path / "net.v2_new_cali_table"
    assert log_path(qtable) == tmp_path / "SensitiveLayerSearch"
    args: Any = sensitive_layer_parser().parse_args(
        ["m.qir", "--dataset", "d", "--calibration_table", "t", "-o", qtable]
    )
    text = qtable_text(args, ["a", "b c"], {"d"}, ["one\nnote"])
    assert "# one note\n# leaves the integers as well: d\n" in text
    assert text.endswith('# op_name   quantize_mode\na F32\n"b c" F32\n')
    write_search(args, text, Table({"a": Range(0, 1, 1)}), ["line"])
    assert (tmp_path / "SensitiveLayerSearch").read_text() == "INFO:root:line\n"
    assert (tmp_path / "net.v2.qtable").read_text() == text


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
