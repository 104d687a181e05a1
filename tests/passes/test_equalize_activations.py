"""Channels that grouped convolutions read reach equally far, and INT8 loses less by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.calibration.tables import calibrate
from qdqc.ir.core import Constant
from qdqc.ir.graph import Module
from qdqc.passes.equalize_activations import EqualizeActivations
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.text.digest import module_digest
from qdqc.text.parser import parse_module
from qdqc.tuning.recipe import RECIPES

Samples = list[dict[str, npt.NDArray[Any]]]
CHANNELS = 8


REACH = np.logspace(-1, 1, CHANNELS)


def numbers(*shape: int, seed: int, by: npt.ArrayLike = 1.0) -> str:
    """Random ones, each row times its factor."""
    array = np.random.default_rng(seed).normal(size=shape)
    array *= np.reshape(by, (-1, *[1] * (len(shape) - 1)))
    return f"f32[{','.join(map(str, shape))}] = dense[{', '.join(map(str, array.reshape(-1)))}]"


STEM = f"""module @stem {{opsets = {{"" = 17}}}} {{
  const %w : {numbers(CHANNELS, 3, 3, 3, seed=0, by=REACH)}
  const %b : {numbers(CHANNELS, seed=1, by=REACH)}
  const %d : {numbers(CHANNELS, 1, 3, 3, seed=2, by=1 / REACH)}
  const %e : {numbers(CHANNELS, 1, 3, 3, seed=3)}
  const %v : {numbers(4, CHANNELS, 1, 1, seed=4)}
  graph (%x : f32[1,3,16,16]) -> (%y) {{
    %a = conv(%x, %w, %b) {{clamp = [0, inf]}} : f32[1,8,14,14]
    %c = conv(%a, %d) {{group = 8}} : f32[1,8,12,12]
    %r = relu(%c) : f32[1,8,12,12]
    %f = conv(%r, %e) {{group = 8}} : f32[1,8,10,10]
    %y = conv(%f, %v) : f32[1,4,10,10]
  }}
}}"""
"""Channels that the first depthwise layer reads lie 100 times apart, and all count alike."""


def samples(count: int = 8, start: int = 0) -> Samples:
    drawn = [np.random.default_rng(start + i) for i in range(count)]
    return [{"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for rng in drawn]


def equalized(module: Module, given: Samples, **options: Any) -> tuple[Module, dict[str, str]]:
    """A copy after the pass, and why nodes were left alone."""
    out, ctx = run(module, ""), PassContext(samples=given, mismatches=[])
    changes = EqualizeActivations(**options).run(out.graph, ctx)
    assert changes == ctx.statistics["values equalized"]
    return out, {m.node: m.reason for m in ctx.mismatches or ()}


def reach(module: Module, name: str, given: Samples) -> npt.NDArray[np.float32]:
    runner = Runner(module, [name])
    seen = [np.abs(runner.run(s)[name]).max(axis=(0, 2, 3)) for s in given]
    return np.max(seen, axis=0)


def noise(module: Module, exact: Module, given: Samples) -> float:
    """Of the deployed INT8 output over the signal, by numpy."""
    header = {"digest": module_digest(module)}
    taps = lambda names: Runner(module, names, threads=1).run  # noqa: E731
    (table,) = calibrate(module, given, taps, ["max"], header=header).values()
    runner, plain = Runner(MixedModels(module).lowered(table)), Runner(exact)
    held = samples(8, start=100)
    y, r = (np.stack([q.run(s)["y"] for s in held]).astype(np.float64) for q in (runner, plain))
    return float(np.square(r - y).sum() / np.square(r).sum())


def test_channels_reach_equally_far_on_the_data() -> None:
    module, given = parse_module(STEM), samples()
    done, _ = equalized(module, given, most=1e9)
    before = reach(module, "a", given)
    assert before.max() > 10 * before.min()
    for name, now in (("a", "a_scaled"), ("r", "r_scaled")):
        np.testing.assert_allclose(reach(done, now, given), reach(module, name, given).max(), 1e-5)


def test_the_function_stays_and_int8_is_nearer_to_it() -> None:
    module, given = parse_module(STEM), samples()
    done, _ = equalized(module, given)
    for sample in samples(4, start=50):
        expected, found = (Runner(m, optimise="off").run(sample)["y"] for m in (module, done))
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))
    assert noise(done, module, given) < 0.2 * noise(module, module, given)


def test_no_channel_is_scaled_by_more_than_most() -> None:
    module, given = parse_module(STEM), samples()
    done, _ = equalized(module, given, most=2.0)
    before, after = reach(module, "a", given), reach(done, "a_scaled", given)
    np.testing.assert_allclose(after, np.minimum(2 * before, before.max()), rtol=1e-5)


def test_a_second_run_changes_nothing() -> None:
    given = samples()
    done, _ = equalized(parse_module(STEM), given, most=1e9)
    again, why = equalized(done, given)
    again.header, done.header = {}, {}
    assert again == done
    assert why["c_scaled"] == "the channels of %a_scaled reach equally far"


def test_what_is_not_finite_has_no_reach() -> None:
    """A channel that overflowed on the data says nothing of the others."""
    module = parse_module(STEM)
    bad = samples(2)
    bad[1]["x"][0, 0, 8, 8] = np.inf
    with np.errstate(all="ignore"):
        done, _ = equalized(module, bad)
    for constant in done.constants.values():
        assert np.isfinite(constant.data.array()).all()


def test_a_depthwise_layer_with_more_outputs_than_inputs() -> None:
    """Rows of one input channel are all divided by its factor."""
    text = f"""module @m {{
      const %w : {numbers(2, 3, 1, 1, seed=0, by=[1, 10])}
      const %d : {numbers(4, 1, 3, 3, seed=2)}
      graph (%x : f32[1,3,16,16]) -> (%y) {{
        %a = conv(%x, %w) : f32[1,2,16,16]
        %y = conv(%a, %d) {{group = 2}} : f32[1,4,14,14]
      }}
    }}"""
    module, given = parse_module(text), samples()
    done, why = equalized(module, given)
    assert not why
    held = [c.data.array() for c in (module.constants["d"], done.constants["d_scaled"])]
    by_row = (held[0] / held[1]).reshape(4, -1).mean(axis=1)
    assert by_row.max() > 1.5
    np.testing.assert_allclose(by_row[[0, 2]], by_row[[1, 3]], rtol=1e-6)
    for sample in given:
        expected, found = (Runner(m, optimise="off").run(sample)["y"] for m in (module, done))
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("recipe", ["balanced", "best"])
def test_recipes_calibrate_again_behind_it(recipe: str) -> None:
    stages = {s.name: s for s in RECIPES[recipe].stages}
    assert stages["equalize-activations"].exact


def test_constants_that_others_read_stay_for_them() -> None:
    module = parse_module(STEM)
    weight = module.constants["w"]
    extra = module.graph.insert(
        next(module.graph.nodes()).op, [module.graph.inputs[0], weight], None, ["z"]
    )
    module.graph.set_outputs([*module.graph.outputs, extra.result])
    done, _ = equalized(module, samples())
    held = done.constants["w"]
    assert isinstance(held, Constant)
    np.testing.assert_array_equal(held.data.array(), weight.data.array())
