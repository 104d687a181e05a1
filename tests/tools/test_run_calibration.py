from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdqc.calibration.table import load_table
from qdqc.calibration.table_check import check_digest
from qdqc.data.preprocess import Preprocess
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Relu
from qdqc.text.digest import module_digest
from qdqc.text.qir_files import load, save
from qdqc.tools.run_calibration import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(x) of an image whose pixels become -1 .. 1."""
    module = Module("m", opsets={"": 17})
    scale = 1 / 127.5
    stated = Preprocess(pixel_format="rgb", mean=(127.5,) * 3, scale=(scale,) * 3)
    x = module.graph.add_input("x", TensorType(Elem.F32, (1, 3, 8, 8)), stated.to_attrs())
    node = module.graph.insert(Relu(), [x], names=["y"])
    module.graph.set_outputs([node.result])
    save(module, tmp_path / "m.qir")
    return tmp_path / "m.qir"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, value in enumerate((0, 255, 51)):
        Image.new("RGB", (8, 8), (value, value, value)).save(folder / f"{i}.png")
    return folder


def test_images_become_a_table(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, report = tmp_path / "m.cali_table", tmp_path / "r.json"
    args = [str(model), "--dataset", str(photos), "-o", str(table), "--cali_method", "use_max"]
    assert main([*args, "--report", str(report)]) == 0
    found = load_table(table)
    assert found.rows == {"x": Range(-1, 1, 1), "y": Range(0, 1, 1)}
    assert found.header["model"] == "m.qir"
    assert found.header["samples"] == "3"
    check_digest(found, module_digest(load(model)))
    told = json.loads(report.read_text())
    assert (told["tensors"], told["samples"], told["method"]) == (2, 3, "max")
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 values, 3 samples, method max, 0 ranges clipped" in err


def test_lists_and_input_num(model: Path, photos: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("photos/0.png\nphotos/2.png\n")
    table = tmp_path / "t"
    args = [str(model), "--data_list", str(listing), "-o", str(table), "--cali-method", "max"]
    assert main(args) == 0
    assert load_table(table).rows["y"].max == pytest.approx(1e-5), "both images are dark"
    assert main([*args, "--input_num", "1"]) == 0
    assert load_table(table).header["samples"] == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--cali_method", "lk"], "unknown calibration method 'lk'"),
        (["--dataset", "none"], "none: error: there is no such file or folder"),
        (["--dataset", "empty"], "empty: error: no data: the folder is empty"),
        (["--dataset", "bad"], "x.png: error: can't read the image"),
        (["--dataset", "shape.npz"], "shape [1,5], but the model takes [1,3,8,8]"),
        (["-o", "none/t"], "can't write the file: there is no folder 'none'"),
        (["-o", "m.qir"], "the output 'm.qir' is also an input"),
        (["--histogram_bin_num", "9"], "9 histogram bins are less than 128"),
    ],
)
def test_errors_come_in_one_paragraph_and_leave_no_table(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_text("no image")
    np.savez(tmp_path / "shape.npz", x=np.ones((1, 5), np.float32))
    before = model.read_bytes()
    options = {"--dataset": str(photos), "-o": "t", change[0]: change[1]}
    args = [model.name, *(word for pair in options.items() for word in pair)]
    assert main(args) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "note: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "t").exists()
    assert model.read_bytes() == before


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["m.qir", "-o", "t"]) == 2
    assert main(["m.qir", "-o", "t", "--dataset", "a", "--batch_size", "0"]) == 2
    assert "0 is below 1" in capsys.readouterr().err


def test_ranges_judged_by_running(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, report = tmp_path / "t", tmp_path / "r.json"
    args = [str(model), "--dataset", str(photos), "-o", str(table), "--report", str(report)]
    assert main([*args, "--cali_method", "use_best_of"]) == 0
    assert load_table(table).header["method"] == "best_of"
    search = ["--search", "search_threshold", "--inference_num", "2"]
    assert main([*args, *search, "--quantize_method_list", "use_max,KL"]) == 0
    assert set(json.loads(report.read_text())["search"]) == {"max", "kl"}
    assert load_table(table).header["method"] in ("max", "kl")
    assert "best" in capsys.readouterr().err
    assert main([*args, "--tune_num", "2"]) == 0
    assert load_table(table).header["tune number"] == "2"
    assert main([*args, "--search", "search_threshold", "--inference_num", "0"]) == 1


def test_another_method_goes_on_from_the_cache(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    args = [str(model), "--dataset", str(photos), "--cache", str(cache)]
    assert main([*args, "-o", str(tmp_path / "kl"), "--cali_method", "kl"]) == 0
    assert "in the cache" not in capsys.readouterr().err
    assert main([*args, "-o", str(tmp_path / "a"), "--cali_method", "max"]) == 0
    assert "3 of 3 samples were found in the cache" in capsys.readouterr().err
    alone = ["--cali_method", "max", "--no_cache"]
    assert main([*args, "-o", str(tmp_path / "b"), *alone]) == 0
    assert "in the cache" not in capsys.readouterr().err
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(photos / "1.png")
    assert main([*args, "-o", str(tmp_path / "a"), "--cali_method", "max"]) == 0
    assert load_table(tmp_path / "a").rows["x"].max == 0, "the changed photo is noticed"


def test_the_table_is_the_same_however_the_work_is_done(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    tables: set[str] = set()
    for number, given in enumerate(([], ["--workers", "2"], ["--memory_limit", "4GB"])):
        table = tmp_path / f"t{number}"
        args = [str(model), "--dataset", str(photos), "-o", str(table), "--no_cache"]
        assert main([*args, *given]) == 0
        tables.add(table.read_text())
    assert len(tables) == 1


def test_a_limit_below_any_use_says_what_is_needed(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(model), "--dataset", str(photos), "-o", str(tmp_path / "t"), "--no_cache"]
    assert main([*args, "--memory_limit", "1MB"]) == 1
    told = re.search(r"give (\d+)MB or more", capsys.readouterr().err)
    assert told is not None
    assert main([*args, "--memory_limit", f"{int(told[1]) + 20}MB"]) == 0


def test_a_cache_that_cannot_be_used_is_only_a_warning(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(model), "--dataset", str(photos), "-o", str(tmp_path / "t")]
    assert main([*args, "--cache", str(model)]) == 0
    err = capsys.readouterr().err
    assert err.count("goes on without its cache: Not a directory") == 1
    assert (tmp_path / "t").exists()


def test_calibration_and_search_in_one(
    tiny_onnx: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qdqc.quant.qtable import load_qtable
    from qdqc.tools.model_transform import main as transform

    qir, table, qtable = tmp_path / "n.qir", tmp_path / "n.cali_table", tmp_path / "n.qtable"
    assert transform(["--model_def", str(tiny_onnx), "-o", str(qir), "-q"]) == 0
    args = [str(qir), "--dataset", str(tiny_data), "-o", str(table), "--inference_num", "6"]
    given = ["--search", "search_qtable", "--max_float_layers", "2"]
    assert main([*args, *given]) == 1
    assert "search_qtable writes a qtable, which needs a name" in capsys.readouterr().err
    report = tmp_path / "r.json"
    given += ["--quantize_table", str(qtable), "--report", str(report), "-q"]
    assert main([*args, *given]) == 0
    told = json.loads(report.read_text())
    assert (told["command"], told["samples"]) == ("run_calibration", 16)
    assert len(told["float_layers"]) == 2
    assert [line.pattern for line in load_qtable(str(qtable)).lines] == told["float_layers"]
    assert table.read_text() == (tmp_path / "n_new_cali_table").read_text()
    check_digest(load_table(table), module_digest(load(qir)))
