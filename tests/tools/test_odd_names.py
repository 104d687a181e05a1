"""Names of a model are anybody's: every command takes them, keeps them, and runs none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdqc.data.archive import Archive
from qdqc.text.qir_files import load
from qdqc.tools.fp_forward import main as fp_forward
from qdqc.tools.model_deploy import main as deploy
from qdqc.tools.model_inspect import main as inspect
from qdqc.tools.model_runner import main as runner
from qdqc.tools.model_transform import main as transform
from qdqc.tools.npz_tool import main as npz_tool
from qdqc.tools.qir_opt import main as qir_opt
from qdqc.tools.run_calibration import main as calibrate
from qdqc.tools.run_sensitive_layer import main as sensitive

NAMES = {
    "blank": ("in put", "mid dle", "out put"),
    "slashes": ("/a/b", "../../up", "C:\\c\\d"),
    "quotes": ("it's", 'say "so"', "`echo no`"),
    "markup": ("<b>x</b>", "</script><script>alert(1)</script>", "a&amp;b"),
    "alphabets": ("入力", "couche", "λόγος"),
    "syntax": ("%x : f32", "}{", "// no # comment"),
    "patterns": ("a*", "re:.*", "type:conv"),
    "ends": ("x_q", "x_f", "x_dq"),
    "numbers": ("1", "-2.5", "1e9"),
    "formats": ("{0}", "%s%n", "$HOME"),
}


@pytest.fixture(params=list(NAMES))
def named(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> tuple[str, str, str]:
    """In the current folder net.onnx, x -> conv -> m -> conv -> y by odd names, with data.npz."""
    monkeypatch.chdir(tmp_path)
    x, m, y = NAMES[request.param]
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype(np.float32), f"{n}.w")
        for n in (m, y)
    ]
    nodes = [
        helper.make_node("Conv", [x, f"{m}.w"], [m], name=f"node {m}"),
        helper.make_node("Conv", [m, f"{y}.w"], [y], name=f"node {y}"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 3, 3]) for n in (x, y)]
    graph = helper.make_graph(nodes, f"graph {m}", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "net.onnx")
    np.savez("data.npz", **{x: rng.standard_normal((12, 4, 3, 3)).astype(np.float32)})
    np.savez("one.npz", **{x: rng.standard_normal((1, 4, 3, 3)).astype(np.float32)})
    assert transform(["--model_def", "net.onnx", "-o", "net.qir", "-q"]) == 0
    assert calibrate(["net.qir", "--dataset", "data.npz", "-o", "net.table", "-q"]) == 0
    return x, m, y


DEPLOY = ["--mlir", "net.qir", "--calibration_table", "net.table", "--model", "int8.onnx", "-q"]


def ops(report: str = "report.json") -> dict[str, str]:
    found = json.loads(Path(report).read_text(encoding="utf-8"))
    return {r["name"]: r["runs"] for r in found["audit"]["ops"]}


def test_the_flow_keeps_them(named: tuple[str, str, str]) -> None:
    x, m, y = named
    assert deploy([*DEPLOY, "--report", "report.json"]) == 0
    assert ops() == {m: "integer", y: "integer"}
    proto = onnx.load("int8.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [v.name for v in proto.graph.input] == [x]
    assert [v.name for v in proto.graph.output] == [y]
    module = load("int8.qir")
    assert {x, m, y} <= set(module.value_names())


def test_a_qtable_names_one_of_them(named: tuple[str, str, str]) -> None:
    _, m, y = named
    Path("table").write_text(f"{json.dumps(m)} F32\n", encoding="utf-8")
    assert deploy([*DEPLOY, "--quantize_table", "table", "--report", "report.json"]) == 0
    assert ops()[m] == "float"
    assert y in ops()


def test_values_are_compared_by_them(named: tuple[str, str, str], tmp_path: Path) -> None:
    x, m, y = named
    assert deploy(DEPLOY) == 0
    for model, out in (("net.qir", "float.npz"), ("int8.onnx", "int8.npz")):
        words = ["--input", "one.npz", "--model", model, "--dump_all_tensors", "--output", out]
        assert runner([*words, "-q"]) == 0
        assert {x, m, y} <= set(Archive(Path(out)))
    assert npz_tool(["compare", "int8.npz", "float.npz", "--tolerance", "0.9,0.8", "-q"]) == 0
    assert not list(tmp_path.parent.glob("up*")), "a name is no path"


def test_passes_and_text_keep_them(named: tuple[str, str, str]) -> None:
    assert qir_opt(["net.qir", "--passes", "canonicalize", "-o", "again.qir"]) == 0
    assert set(load("again.qir").value_names()) == set(load("net.qir").value_names())
    assert set(named) <= set(load("again.qir").value_names())


def test_a_search_ranks_them(named: tuple[str, str, str]) -> None:
    _, m, y = named
    words = "--dataset data.npz --calibration_table net.table -o net.qtable --inference_num 4"
    given = ["net.qir", *words.split(), "--max_float_layers", "1", "--no_cache", "-q"]
    assert sensitive([*given, "--report", "report.json"]) == 0
    Path("again").write_bytes(Path("net.qtable").read_bytes())
    assert deploy([*DEPLOY, "--quantize_table", "again", "--report", "deployed.json"]) == 0
    assert set(ops("deployed.json")) == {m, y}
    assert "float" in ops("deployed.json").values()


def test_layers_up_to_one_of_them_stay_float(named: tuple[str, str, str]) -> None:
    _, m, y = named
    assert fp_forward(["net.qir", f"--inputs={m}", "-o", "fp.qtable", "-q"]) == 0
    assert deploy([*DEPLOY, "--quantize_table", "fp.qtable", "--report", "report.json"]) == 0
    assert ops() == {m: "float", y: "integer"}


def test_an_inspection_names_them(
    named: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, m, _ = named
    assert deploy(DEPLOY) == 0
    capsys.readouterr()
    words = "--reference net.qir --quantized int8.onnx --input data.npz --text"
    assert inspect(words.split()) == 0
    assert m in capsys.readouterr().out
