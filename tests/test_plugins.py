"""A target, a threshold method, a recipe, a strategy and an op, each added in one file and used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdqc
from qdqc.calibration.methods.method import METHODS
from qdqc.calibration.table import load_table
from qdqc.calibration.tables import calibrate
from qdqc.diagnostics import QdqcError
from qdqc.ir.op import OPS
from qdqc.ir.types import Elem, Range
from qdqc.pipeline.discovery import load_passes
from qdqc.pipeline.pass_ import PASSES
from qdqc.quant.deployment import Deployment
from qdqc.quant.targets.rules import RULES
from qdqc.quant.targets.target import TARGETS, target_named
from qdqc.runtime.sessions.session import Runner
from qdqc.search.strategies.strategy import strategy_named
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.text.parser import parse_module
from qdqc.tools import model_deploy, qir_opt, run_calibration, run_qtable
from qdqc.tuning.recipe import RECIPES, tune

TARGET = '''
"""An accelerator of its own."""

from qdqc.quant.targets.ort_cpu import OrtCpu
from qdqc.quant.targets.rules import Case, rule


class MyNpu(OrtCpu):
    """Weights of 5 bits, and no integer addition."""

    name = "my-npu"
    weight_limit = 15
    arithmetic = OrtCpu.arithmetic - {"add"}
    rules = OrtCpu.rules | {"few-channels"}


@rule("few-channels")
def few_channels(case: Case) -> str | None:
    """No more than 64 channels."""
    channels = case.node.result.tensor.shape[1]
    return None if channels <= 64 else f"{channels} channels are more than 64"
'''
STRATEGY = '''
"""The layers of the graph from its end."""

from qdqc.search.strategies.strategy import Search, Strategy


class FromTheEnd(Strategy):
    """Leave the last layers float, one more at a time, until the goal is reached."""

    name = "from-the-end"
    most: int = 2

    def run(self, search: Search) -> None:
        names = [layer.name for layer in search.trials.layers.integer]
        for count in range(1, self.most + 1):
            if search.mixes.reaches(names[-count:]):
                return
'''
METHOD = '''
"""A share of the largest magnitude."""

from qdqc.calibration.methods.method import Method, clipped
from qdqc.calibration.statistics import Detail, Statistics
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Range


class ShareOfMax(Method):
    """``share`` of the largest magnitude."""

    name = "share_of_max"
    detail = Detail.EXTREMES

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise QdqcError(f"share {self.share:g} is not in 0 to 1")

    def range(self, stats: Statistics) -> Range:
        return clipped(stats, self.share * stats.absmax)
'''
RECIPE = '''
"""Rounding alone, judged by samples that it has not seen."""

from qdqc.tuning.recipe import Recipe, Stage


class Careful(Recipe):
    """Round the weights, and keep that only where it helps."""

    name = "careful"
    stages = (Stage("round-weights", "sweeps=1"),)
    selects = True
'''
OP = '''
"""An op that the library lacks."""

from qdqc import Op, TensorType
from qdqc.ir.op import Onnx


class Rectify(Op):
    """What others call Relu."""

    name = "user.rectify"
    operands = ("x",)
    onnx = Onnx("Relu")

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)
'''
MODULE = """\
module @net {opsets = {"" = 17}} {
  const %w : f32[2,2,1,1] = dense[0.5, -1, 0.25, 1]
  const %v : f32[2,2,1,1] = dense[1, 0.5, -0.75, 1]
  graph (%x : f32[1,2,4,4]) -> (%y) {
    %a = conv(%x, %w) : f32[1,2,4,4]
    %s = add(%a, %x) : f32[1,2,4,4]
    %y = conv(%s, %v) : f32[1,2,4,4]
  }
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module and data; what plugins define is gone after the test."""
    load_passes()
    (tmp_path / "net.qir").write_text(MODULE)
    x = np.random.default_rng(0).normal(size=(20, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    monkeypatch.chdir(tmp_path)
    with ExitStack() as scratches:
        for registry in (OPS, PASSES, TARGETS, METHODS, RECIPES):
            scratches.enter_context(registry.scratch())
        rules = dict(RULES)
        yield tmp_path
        RULES.clear()
        RULES.update(rules)


def plugin(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def samples() -> list[dict[str, Any]]:
    with np.load("data.npz") as data:
        return [{"x": row[None]} for row in data["x"]]


def table_of(module: qdqc.Module, method: str) -> Any:
    def taps(names: Any) -> Any:
        return Runner(module, names).run

    (table,) = calibrate(module, samples(), taps, [method]).values()
    return table


def test_a_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(QdqcError, match="unknown target 'my-npu'"):
        target_named("my-npu")
    load_passes([plugin(folder, TARGET)])
    assert target_named("my-npu").weight_limit == 15
    module = parse_module(MODULE)
    table = table_of(module, "max")
    ours, own = (
        MixedModels(module, Deployment(target=t)).lowered(table) for t in ("ort-cpu", "my-npu")
    )
    largest = {}
    for name, deployed in (("ours", ours), ("own", own)):
        stored = [c for c in deployed.constants.values() if c.tensor.elem is Elem.I8]
        largest[name] = max(int(np.abs(c.data.array().astype(int)).max()) for c in stored)
    assert largest == {"ours": 127, "own": 15}
    assert own.header["target"] == "my-npu"
    mine = ["--plugin", "mine.py", "-q"]
    assert run_calibration.main(["net.qir", "--dataset", "data.npz", "-o", "t", *mine]) == 0
    given = ["--mlir", "net.qir", "--calibration_table", "t", "--model", "o.onnx"]
    assert model_deploy.main([*given, "--target", "my-npu", *mine]) == 0
    passes = (
        'import-calibration{table="t"},assign-precision,quantize{target="my-npu"},verify-target'
    )
    capsys.readouterr()
    assert (
        qir_opt.main(["net.qir", "--passes", f"{passes},verify-target", "--plugin", "mine.py"]) == 0
    )
    text = capsys.readouterr().out
    assert 'target = "my-npu"' in text
    assert "%s = add(" in text, "it stays float, so its name is the value's own"


def test_a_rule_of_a_target(folder: Path) -> None:
    wide = 'module @m {\n  const %w : i8[65,1,1,1] q(scale = 1) = elided("sha256:00000000")\n'
    wide += "  graph (%x : u8[1,1,2,2] q(scale = 1)) -> (%y) {\n"
    wide += "    %y = conv(%x, %w) : u8[1,65,2,2] q(scale = 1)\n  }\n}\n"
    load_passes([plugin(folder, TARGET)])
    qdqc.run(parse_module(wide), 'verify-target{target="ort-cpu"}')
    with pytest.raises(QdqcError, match="my-npu wants few-channels: 65 channels are more than 64"):
        qdqc.run(parse_module(wide), 'verify-target{target="my-npu"}')


def test_a_calibration_method(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_passes([plugin(folder, METHOD)])
    module = parse_module(MODULE)
    largest = max(float(np.abs(s["x"]).max()) for s in samples())
    for spelling, share in (("share_of_max", 0.5), ("use_Share_Of_Max{share=0.25}", 0.25)):
        table = table_of(module, spelling)
        end = share * largest
        assert table.rows["x"] == Range(-end, end, end)
    method = ["--cali_method", "share_of_max{share=0.75}", "--plugin", "mine.py"]
    given = ["net.qir", "--dataset", "data.npz", "-o", "t"]
    assert run_calibration.main([*given, *method, "-q"]) == 0
    header = load_table("t").header
    assert (header["method"], header["share"]) == ("share_of_max", "0.75")
    method[1] = "share_of_max{share=2}"
    assert run_calibration.main([*given, *method]) == 1
    assert "error: share 2 is not in 0 to 1" in capsys.readouterr().err


def test_best_of_tries_a_method_of_a_plugin(folder: Path) -> None:
    given = ["net.qir", "--dataset", "data.npz", "-o", "t", "--plugin", plugin(folder, METHOD)]
    assert run_calibration.main([*given, "--cali_method", "best_of", "-q"]) == 0
    assert "share_of_max" in load_table("t").header["methods"]


def test_a_recipe(folder: Path) -> None:
    load_passes([plugin(folder, RECIPE)])
    module = parse_module(MODULE)
    found = tune(module, samples(), "careful", lambda changed: table_of(changed, "max"))
    (step,) = found.steps
    assert step.pipeline == 'round-weights{sweeps=1 target="ort-cpu"}'
    assert step.kept is (step.gain > 0), "it selects"
    given = ["net.qir", "--dataset", "data.npz", "-o", "t", "--plugin", "mine.py", "-q"]
    assert run_calibration.main([*given, "--recipe", "careful", "--tuned", "tuned.qir"]) == 0
    assert load_table("t").header["recipe"] == "careful"


def test_a_strategy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_passes([plugin(folder, STRATEGY)])
    with pytest.raises(QdqcError, match="has no option 'mist'; did you mean 'most'"):
        strategy_named("from-the-end", mist=1)
    module = parse_module(MODULE)
    given: dict[str, Any] = {"strategy": "from-the-end", "expected_cos": 2.0, "most": 1}
    layers = qdqc.search_layers(module, samples(), method="max", **given)
    assert not layers.reached
    assert layers.score >= layers.int8
    assert len(layers.qtable) <= 1
    words = ["net.qir", "--dataset", "data.npz", "-o", "t"]
    assert run_calibration.main([*words, "-q"]) == 0
    words = ["net.qir", "--dataset", "data.npz", "--calibration_table", "t", "-o", "q"]
    given_by = ["--strategy", "from-the-end", "--plugin", "mine.py", "--expected_cos", "0.5"]
    assert run_qtable.main([*words, *given_by]) == 0
    assert "0 of" in capsys.readouterr().out
    assert run_qtable.main([*words, "--strategy", "from-the-and"]) == 1
    assert "did you mean 'from-the-end'" in capsys.readouterr().err


def test_an_op(folder: Path) -> None:
    load_passes([plugin(folder, OP)])
    module = parse_module(MODULE.replace("add(%a, %x)", "user.rectify(%a)"))
    deployed = MixedModels(module).lowered(table_of(module, "max"))
    assert "user.rectify" in {n.op.name for n in deployed.graph.nodes()}
    (sample, *_) = samples()
    exact, found = (Runner(m).run(sample)["y"] for m in (module, deployed))
    np.testing.assert_allclose(found, exact, atol=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TARGET.replace("my-npu", "openvino"), "target 'openvino' is defined twice"),
        (TARGET.replace("few-channels", "kernel"), "rule 'kernel' is already that of"),
        (METHOD.replace("share_of_max", "kl"), "calibration method 'kl' is defined twice"),
        (METHOD.replace("float = 0.5", "float"), "missing 1 required keyword-only argument"),
        (RECIPE.replace("careful", "best"), "recipe 'best' is defined twice"),
    ],
)
def test_a_name_that_is_taken_stays_with_its_owner(folder: Path, text: str, message: str) -> None:
    with pytest.raises(QdqcError, match=message) as caught:
        load_passes([plugin(folder, text, "taken.py")])
    assert "taken.py:" in str(caught.value)


@pytest.mark.parametrize("annotation", ["no_such_type", "1 +", "relu.x"])
def test_an_annotation_that_means_nothing_is_told_with_its_file(
    folder: Path, annotation: str
) -> None:
    """Annotations are texts until they are asked for, long after the file was run."""
    text = OP.replace('operands = ("x",)', f'operands = ("x",)\n    slope: "{annotation}" = 0')
    load_passes([plugin(folder, text, "odd.py")])
    with pytest.raises(QdqcError, match="annotations of class 'Rectify' mean nothing") as caught:
        parse_module(MODULE.replace("add(%a, %x)", "user.rectify(%a)"))
    assert "odd.py" in str(caught.value)
