"""Recipes: which steps run, on which samples, and what the judges see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.masking import masking_by
from qdqc.calibration.table import Table
from qdqc.calibration.tables import calibrate
from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import deploy
from qdqc.flow.samples import CheckSamples
from qdqc.ir.core import Constant
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv
from qdqc.pipeline.manager import run
from qdqc.quant.arithmetic import numbers
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import Qtable
from qdqc.runtime.comparison.fidelity import Fidelity, fidelity
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.text.digest import module_digest
from qdqc.text.parser import parse_module
from qdqc.tuning import recipe as room
from qdqc.tuning.recipe import RECIPES, Share, Stage, tune

Samples = list[dict[str, Any]]


@pytest.fixture
def held(net: Any, draw: Any) -> tuple[Module, Samples]:
    """Two convolutions after one another, and samples whose channels depend on each other."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(8, 9, 3, 3)).astype(np.float32)
    module, node = net(Conv(pads=(1, 1, 1, 1), clamp=(0.0, np.inf)), (1, 9, 8, 8), weight)
    second = module.add_constant("v", Data.of(rng.normal(size=(5, 8, 1, 1)).astype(np.float32)))
    last = module.graph.insert(Conv(), [node.result, second], None, ["z"])
    module.graph.set_outputs([last.result])
    return module, [{"x": draw((1, 9, 8, 8), seed)} for seed in range(30)]


def ranges(samples: Samples) -> Any:
    def made(module: Module) -> Table:
        header = {"digest": module_digest(module)}
        taps = lambda names: Runner(module, names, threads=1).run  # noqa: E731
        (table,) = calibrate(module, samples, taps, header=header).values()
        return table

    return made


def sqnr_of(module: Module, table: Table, exact: Module, samples: Samples) -> float:
    """SQNR of the deployed outputs of all samples in dB, by numpy."""
    runner, plain = Runner(MixedModels(module).lowered(table)), Runner(exact)
    y, r = (np.stack([x.run(s)["z"] for s in samples]).astype(np.float64) for x in (runner, plain))
    return float(10 * np.log10(np.square(r).sum() / np.square(r - y).sum()))


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_the_tuned_module_deploys_with_its_table_and_is_nearer(
    held: tuple[Module, Samples], recipe: str, tmp_path: Path
) -> None:
    module, samples = held
    before = run(module, "")
    found = tune(module, samples, recipe, ranges(samples))
    assert module == before
    assert found.table.header["digest"] == module_digest(found.module)
    weights = [c for c in found.module.constants.values() if len(c.data.shape) == 4]
    assert {w.tensor.elem for w in weights} == {Elem.I8}
    step = found.steps[-1]
    assert step.after is not None
    judges = list(Share(samples, held_out=True))
    plain = ranges(samples)(module)
    assert found.steps[0].before.sqnr == pytest.approx(
        sqnr_of(module, plain, module, judges), abs=0.01
    )
    after = sqnr_of(found.module, found.table, module, judges)
    assert step.after.sqnr == pytest.approx(after, abs=0.01)
    assert step.gain == step.after.sqnr - step.before.sqnr
    if recipe != "fast":  # the table's means alone do nearly what fast does
        assert step.gain > 0.2


def test_what_is_held_out(held: tuple[Module, Samples]) -> None:
    numbers = [{"x": np.array(i)} for i in range(250)]
    back = [int(s["x"]) for s in Share(numbers, held_out=True)]
    taught = [int(s["x"]) for s in Share(numbers, held_out=False)]
    assert back == list(range(4, 100, 5))
    assert sorted(back + taught) == list(range(250))
    assert len(Share(numbers, held_out=True)) == 20
    assert len(Share(numbers, held_out=False)) == 230
    assert len(Share((s for s in numbers), held_out=False)) == 0


class Spy(list[Any]):
    """Samples that say when they are read."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples)
        self.read: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for index, sample in enumerate(list.__iter__(self)):
            self.read.append(index)
            yield sample


def worse(module: Module, pipeline: str, *, samples: Any = None) -> Module:
    """A step that spoils the weights, and notes what it was given."""
    out = run(module, "")
    GIVEN.append(len(list(samples)))
    node = next(out.graph.nodes())
    weight = node.at(1)
    assert isinstance(weight, Constant)
    made = out.add_constant("spoilt", Data.of(weight.data.array() * np.float32(1.5)))
    node.set_operand(1, made)
    out.drop_unused_constants()
    return out


GIVEN: list[int] = []


def test_best_leaves_out_what_does_not_help_samples_it_did_not_see(
    held: tuple[Module, Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, samples = held
    monkeypatch.setattr(room, "run", worse)
    for recipe in RECIPES:
        monkeypatch.setattr(type(recipe), "stages", (Stage("s", exact=True),))
    GIVEN.clear()
    found = tune(module, samples, "best", ranges(samples))
    assert [s.kept for s in found.steps] == [False]
    assert found.module == module
    assert found.table == ranges(samples)(module)
    assert [s.kept for s in tune(module, samples, "balanced", ranges(samples)).steps] == [False]
    assert GIVEN == [24, 30]


@pytest.mark.parametrize(
    ("recipe", "after", "kept"),
    [
        ("best", 30.01, True),
        ("best", 29.99, False),
        ("balanced", 29.95, True),
        ("balanced", 29.85, False),
        ("fast", 29.95, True),
        ("fast", 29.85, False),
    ],
)
def test_a_step_stays_by_what_the_judges_see(
    held: tuple[Module, Samples],
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    after: float,
    kept: bool,
) -> None:
    """``best`` wants a gain, the others put up with a loss of a tenth of a dB."""
    module, samples = held
    seen = iter([Fidelity(0.9, 30.0), Fidelity(0.9, after)])
    monkeypatch.setattr(room, "fidelity", lambda *_: next(seen))
    monkeypatch.setattr(type(RECIPES[recipe]), "stages", (Stage("round-weights"),))
    found = tune(module, samples, recipe, ranges(samples))
    assert [s.kept for s in found.steps] == [kept]
    assert (found.module == module) is not kept
    assert found.entries()[0]["after"] == {"cos": 0.9, "sqnr": after}
    assert found.steps[0].gain == pytest.approx(after - 30)


def test_few_samples_judge_themselves(held: tuple[Module, Samples]) -> None:
    module, samples = held
    found = tune(module, samples[:3], "balanced", ranges(samples[:3]))
    assert found.steps[-1].gain > 0


def test_pipelines_that_run_are_told(held: tuple[Module, Samples]) -> None:
    module, samples = held
    found = tune(module, samples, "fast", ranges(samples), target="ort-cpu-avx2")
    assert found.steps[0].pipeline == 'round-weights{method="nearest" target="ort-cpu-avx2"}'
    assert found.steps[0].pipeline in str(found.module.header["pipeline"])
    weights = [c for c in found.module.constants.values() if c.tensor.elem is Elem.I8]
    assert max(np.abs(w.data.array().astype(int)).max() for w in weights) == 63
    assert Stage("p", "a=1").pipeline("t", "m") == 'p{a=1 target="t" mask="m"}'
    assert Stage("p", measures=False).pipeline("t", "m") == "p"


def test_an_unknown_recipe(held: tuple[Module, Samples]) -> None:
    module, samples = held
    with pytest.raises(QdqcError, match="unknown recipe 'fastest'; did you mean 'fast'"):
        tune(module, samples, "fastest", ranges(samples))


def test_padding_does_not_judge() -> None:
    """Two models that differ on padding alone are equal under the mask."""
    text = """module @m {
      const %w : f32[2,2] = dense[WEIGHT, 0, 0, 1]
      graph (%x : f32[1,4,2], %mask : i64[1,4]) -> (%y) {
        %y = matmul(%x, %w) : f32[1,4,2]
      }
    }"""
    a, b = (parse_module(text.replace("WEIGHT", w)) for w in ("1", "2"))
    x = np.ones((1, 4, 2), np.float32)
    x[0, :2, 0] = 0  # what the weights are different for
    sample = {"x": x, "mask": np.array([[1, 1, 0, 0]])}
    masking = masking_by(a.graph, "mask")
    pairs = [(sample, Runner(a).run(sample))]
    assert fidelity(Runner(b), pairs, ["y"], masking.kept).cos == pytest.approx(1)
    assert fidelity(Runner(b), pairs, ["y"]).cos < 0.99


def test_what_the_table_says_of_biases_is_not_done_twice(held: tuple[Module, Samples]) -> None:
    module, samples = held
    tuned = tune(module, samples, "fast", ranges(samples))
    biases: dict[bool, list[Any]] = {}
    for correct in (True, False):
        pipeline = Deployment(correct_bias=correct).stages().pipeline
        deployed = run(tuned.module, pipeline, table=tuned.table)
        stored = [c for c in deployed.constants.values() if c.tensor.elem is Elem.I32]
        biases[correct] = [c.data.array().tolist() for c in stored]
    assert biases[True] == biases[False]
    assert all(isinstance(v.type, TensorType) for v in tuned.module.graph.outputs)


def test_a_layer_that_stays_float_reads_its_tuned_weight_in_floats(
    held: tuple[Module, Samples],
) -> None:
    """Stored integers would be cast in every run: no float convolution takes them."""
    module, samples = held
    found = tune(module, samples, "balanced", ranges(samples))
    deployed = deploy(found.module, table=found.table, qtable=Qtable.of({"z": "F32"}))
    makers = {n.name: n for n in deployed.module.graph.nodes()}
    weight = makers["z"].need("weight")
    assert isinstance(weight, Constant)
    assert (weight.elem, weight.quant) == (Elem.F32, None)
    tuned = found.module.value("z")
    assert tuned is not None
    assert tuned.producer is not None
    stored = tuned.producer.need("weight")
    assert isinstance(stored, Constant)
    np.testing.assert_array_equal(weight.data.array(), numbers(stored))
    assert deployed.check(CheckSamples(samples, "calibration")).passed
