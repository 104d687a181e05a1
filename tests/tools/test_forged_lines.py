"""Names that would write lines, colours, markup or turned text of their own reach nobody as such.

A model of such names, from such a file, goes through every command once; all that these print and
write for people is looked at.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdqc.calibration.table import load_table
from qdqc.quant.qtable import load_qtable

NAMES = ("\x1b[31mred", "a\nwrote good.onnx", "</script><b>&", "\u202egnp.exe", "p\r\u2028x F32 #")
STEM = "net\n# wrote fine.onnx\x1b[1m"
FORGED = "\x1b\u202e\u2028\r"
DATA = ["--dataset", "data.npz", "--input_num", "8"]
SEARCH = [*DATA, "--calibration_table", "table", "--inference_num", "4"]
LOW = ["--tolerance", "0.5,-1"]
STEPS = {
    "transform": "model_transform",
    "calibrate": "run_calibration",
    "search": "run_sensitive_layer",
    "mix": "run_qtable",
    "part": "fp_forward",
    "deploy": "model_deploy",
    "run": "model_runner",
    "run again": "model_runner",
    "compare": "npz_tool",
    "dump": "npz_tool",
    "inspect": "model_inspect",
    "diff": "model_inspect",
    "opt": "qir_opt",
    "no such node": "model_deploy",
    "no such layer": "fp_forward",
    "no such word": "fp_forward",
}


def words() -> dict[str, list[str]]:
    """The words of each step, which go on from one another."""
    qir, lowered = f"{STEM}.qir", f"{STEM}_8.qir"
    page = ["-o", "page.html"] if importlib.util.find_spec("plotly") else ["--text"]
    deployed = ["--mlir", qir, "--calibration_table", "table", "--model", f"{STEM}_8.onnx"]
    shown = ["--print-ir-after-all", "--explain", "canonicalize", "--pass-statistics", "-v"]
    inspected = ["--reference", qir, "--quantized", lowered, "--input", "data.npz"]
    dumped = ["--input", "one.npz", "--dump_all_tensors"]
    return {
        "transform": ["--model_def", f"{STEM}.onnx", "-o", qir, *shown],
        "calibrate": [qir, *DATA, "-o", "table", "-v"],
        "search": [qir, *SEARCH, "--report", "search.json", "-o", "qtable", "-v"],
        "mix": [qir, *SEARCH, "--strategy", "mix", "-o", "mixed", "-v"],
        "part": [qir, f"--inputs={NAMES[3]}", "-o", "part", "-v"],
        "deploy": [*deployed, *shown, "--why", NAMES[1], "--report", "deploy.json"],
        "run": [*dumped, "--model", f"{STEM}_8.onnx", "-o", "a.npz"],
        "run again": [*dumped, "--model", qir, "-o", "b.npz"],
        "compare": ["compare", "a.npz", "b.npz", *LOW, "-v", "--save", "values.csv"],
        "dump": ["dump", "a.npz"],
        "inspect": [*inspected, "--text", "--dot", "net.dot", *page],
        "diff": ["--diff", qir, lowered, "-v"],
        "opt": [qir, "--passes", "canonicalize"],
        "no such node": [*deployed, "--why", "a\nwrote god.onnx"],
        "no such layer": [qir, "--inputs=x\nwrote good.onnx", "-o", "part"],
        "no such word": [qir, "--a\nwrote good.onnx"],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with the model in it and its data."""
    made = tmp_path_factory.mktemp("forged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("XDG_CACHE_HOME", str(made / "cache"))
        rng = np.random.default_rng(0)
        x, *names = NAMES
        weights, nodes, before = [], [], x
        for name in names:
            array = 0.3 * rng.standard_normal((4, 4, 1, 1)).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"{name} weight"))
            given = [before, f"{name} weight"]
            nodes.append(helper.make_node("Conv", given, [name], name=f"node {name}"))
            before = name
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 3, 3]) for n in NAMES]
        graph = helper.make_graph(nodes, f"graph {x}", ends[:1], ends[-1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, f"{STEM}.onnx")
        data = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
        np.savez("data.npz", **{x: data})
        np.savez("one.npz", **{x: data[:1]})
        yield made


@pytest.mark.parametrize("step", STEPS)
def test_what_is_printed(step: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main = import_module(f"qdqc.tools.{STEPS[step]}").main
    code = main(words()[step])
    printed = capfd.readouterr()
    wanted = {"no such node": 1, "no such layer": 1, "no such word": 2}.get(step, 0)
    assert code == wanted, printed.err
    for stream in (printed.out, printed.err):
        odd = [line for line in stream.split("\n") if not line.isprintable()]
        assert not odd
        assert not [line for line in stream.split("\n") if line.startswith(("wrote go", "# wrote"))]


def test_what_is_written(folder: Path) -> None:
    """The steps before have written it."""
    written = ["table", "qtable", "SensitiveLayerSearch", "mixed", "full_loss_table.txt", "part"]
    written += ["values.csv", "net.dot", "search.json", "deploy.json", f"{STEM}.qir"]
    for name in written:
        text = (folder / name).read_text("utf-8")
        assert not set(FORGED) & set(text), name
        assert not [line for line in text.split("\n") if line.startswith(("wrote", "# wrote"))]
    report = json.loads((folder / "deploy.json").read_text())
    assert {r["name"] for r in report["audit"]["ops"]} == set(NAMES[1:]), "a report has the names"
    assert set(load_table("table").rows) >= set(NAMES[1:])
    assert [line.pattern for line in load_qtable("part").lines] == list(NAMES[1:4])


def test_the_page(folder: Path) -> None:
    plotly = pytest.importorskip("plotly.offline").get_plotlyjs()
    text = (folder / "page.html").read_text("utf-8").replace(plotly, "")
    assert "<title>net\\n# wrote fine" in text
    (data,) = [line for line in text.split("\n") if '"columns":' in line]
    assert not set(FORGED) & set(text)
    assert data.isprintable()
    assert not [name for name in NAMES if name in data]
    assert data.count("\\u202e") == data.count("\\\\u202e") > 0, "an escape of ours, as JSON has it"
