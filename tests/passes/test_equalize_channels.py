"""Channels are scaled between two products, and pairs that can't be say why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.calibration.table import save_table
from qdqc.calibration.tables import calibrate
from qdqc.ir.core import Constant
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv
from qdqc.passes.equalize_channels import EqualizeChannels
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module
from qdqc.tuning.columns import Product, product_of

PAIR = """module @pair {
  const %w : f32[2,1,1,1] = dense[8, 0.5]
  const %b : f32[2] = dense[16, 1]
  const %v : f32[1,2,1,1] = dense[0.5, 8]
  graph (%x : f32[1,1,2,2]) -> (%y) {
    %a = conv(%x, %w, %b) {clamp = [0, inf]} : f32[1,2,2,2]
    %y = conv(%a, %v) : f32[1,1,2,2]
  }
}"""


def equalized(text: str, **options: int) -> tuple[Module, dict[str, str]]:
    """The module after the pass, and why nodes were left alone."""
    module, ctx = parse_module(text), PassContext(mismatches=[])
    changes = EqualizeChannels(**options).run(module.graph, ctx)
    assert changes == ctx.statistics["pairs equalized"]
    return module, {m.node: m.reason for m in ctx.mismatches or ()}


def operand(module: Module, node: str, index: int) -> npt.NDArray[np.float32]:
    value = module.value(node)
    assert value is not None
    assert value.producer is not None
    held = value.producer.operands[index]
    assert isinstance(held, Constant)
    return held.data.array().reshape(-1).astype(np.float32)


def test_both_weights_hold_a_channel_in_the_same_range() -> None:
    """f = sqrt(r2 / r1) is 1/4 and 4."""
    module, _ = equalized(PAIR)
    np.testing.assert_allclose(operand(module, "a_scaled", 1), [2, 2], rtol=1e-6)
    np.testing.assert_allclose(operand(module, "a_scaled", 2), [4, 4], rtol=1e-6)
    np.testing.assert_allclose(operand(module, "y", 1), [2, 2], rtol=1e-6)
    assert module.constants.keys() == {"w_scaled", "b_scaled", "v_scaled"}


def test_what_is_equal_is_left_alone() -> None:
    module, _ = equalized(PAIR)
    again = run(module, "equalize-channels")
    again.header.clear()
    assert again == module


def test_dead_channels_keep_their_weights() -> None:
    module, _ = equalized(PAIR.replace("dense[8, 0.5]", "dense[0, 0.5]"))
    np.testing.assert_allclose(operand(module, "a_scaled", 1), [0, 2], rtol=1e-6)
    np.testing.assert_allclose(operand(module, "y", 1), [0.5, 2], rtol=1e-6)


CHAIN = """module @chain {
  const %w : f32[4,2,1,1] = random
  const %d : f32[4,1,3,3] = random
  const %s : f32[4,1,1] = dense[0.1, 0.2, 0.3, 0.4]
  const %v : f32[3,4,1,1] = random
  const %g : f32[3,2] = random
  graph (%x : f32[1,2,6,6]) -> (%y) {
    %a = conv(%x, %w) {clamp = [0, inf]} : f32[1,4,6,6]
    %b = conv(%a, %d) {group = 4} : f32[1,4,4,4]
    %c = prelu(%b, %s) : f32[1,4,4,4]
    %p = max_pool(%c) {kernel_shape = [2, 2]} : f32[1,4,3,3]
    %e = conv(%p, %v) : f32[1,3,3,3]
    %r = relu(%e) : f32[1,3,3,3]
    %m = global_average_pool(%r) : f32[1,3,1,1]
    %f = flatten(%m) : f32[1,3]
    %y = gemm(%f, %g) : f32[1,2]
  }
}"""


def test_a_chain_settles_through_activations_and_pools(rewritten: Any) -> None:
    """Each product but the first reads what another gives, in the end in equal ranges."""
    done = rewritten(CHAIN, "equalize-channels").after
    products = [p for n in done.graph.nodes() if isinstance(p := product_of(n), Product)]
    assert [p.node.op.name for p in products] == ["conv", "conv", "conv", "gemm"]
    for first, second in itertools.pairwise(products):
        rows = np.abs(first.rows(first.weight.data.array())).max(axis=2).reshape(-1)
        np.testing.assert_allclose(rows, second.input_reach(len(rows)), rtol=0.01)


def test_values_with_other_numbers_have_other_names(rewritten: Any) -> None:
    """``rewritten`` compares all names that both modules have."""
    done = rewritten(CHAIN, "equalize-channels")
    assert done.names == [f"{n}_scaled" for n in "abcpermf"] + ["y"]
    again = rewritten(done.after, "equalize-channels{sweeps=1}")
    assert again.names == done.names


DECLINED = {
    "conv has the bounds [0.0, 6.0]": "%a = conv(%x, %w) {clamp = [0, 6]} : f32[1,2,4,4]",
    "%a is read elsewhere too, by relu %z": (
        "%a = conv(%x, %w) : f32[1,2,4,4]\n    %z = relu(%a) : f32[1,2,4,4]"
    ),
    "a factor does not go through add": (
        "%q = conv(%x, %w) : f32[1,2,4,4]\n    %a = add(%q, %q) : f32[1,2,4,4]"
    ),
    "a factor does not go through sigmoid": (
        "%q = conv(%x, %w) : f32[1,2,4,4]\n    %a = sigmoid(%q) : f32[1,2,4,4]"
    ),
    "the bias of conv is not a float constant with data": "%a = conv(%x, %w, %t) : f32[1,2,4,4]",
    "its input comes from mul": "%a = mul(%x, %s) : f32[1,2,4,4]",
    "%x is an input": "%a = identity(%x) : f32[1,2,4,4]",
}


@pytest.mark.parametrize("reason", DECLINED)
def test_pairs_that_are_declined(reason: str) -> None:
    made = DECLINED[reason]
    outputs = "%y, %z" if "%z" in made else "%y"
    text = f"""module @m {{
      const %w : f32[2,2,1,1] = dense[8, 0.5, 1, 1]
      const %s : f32[2,1,1] = dense[3, 4]
      const %v : f32[1,2,1,1] = dense[0.5, 8]
      graph (%x : f32[1,2,4,4], %t : f32[2]) -> ({outputs}) {{
        {made}
        %y = conv(%a, %v) : f32[1,1,4,4]
      }}
    }}"""
    before = parse_module(text)
    module, reasons = equalized(text)
    assert reasons["y"] == reason
    assert module == before


def test_an_output_keeps_its_numbers() -> None:
    text = PAIR.replace("-> (%y)", "-> (%a, %y)")
    assert equalized(text)[1]["y"] == "%a is an output"


def per_tensor_error(module: Module, samples: list[dict[str, Any]], table: Path) -> float:
    """Of the outputs, quantized with one scale a weight, beside their squares."""
    taps = partial(_taps, module)
    (ranges,) = calibrate(module, samples, taps).values()
    save_table(ranges, table)
    steps = f'import-calibration{{table="{table}"}},assign-precision'
    done = run(module, f'{steps},quantize{{scheme="per-tensor"}}')
    runner, plain, lost, held = Runner(done), Runner(module), 0.0, 0.0
    for sample in samples:
        exact = plain.run(sample)["y"].astype(np.float64)
        lost += float(np.square(runner.run(sample)["y"] - exact).sum())
        held += float(np.square(exact).sum())
    return lost / held


def _taps(module: Module, names: Sequence[str]) -> Any:
    return Runner(module, names).run


def test_weights_with_one_scale_lose_less(tmp_path: Path) -> None:
    """Channels whose scales lie 10,000 times apart, as folded normalizations leave them."""
    rng = np.random.default_rng(0)
    module = spread_network(rng)
    samples = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    before = per_tensor_error(module, samples, tmp_path / "t")
    after = per_tensor_error(run(module, "equalize-channels"), samples, tmp_path / "t")
    assert after < before / 20


def spread_network(rng: np.random.Generator) -> Module:
    """conv, relu, conv whose inner channels are scaled by 0.01 to 100, and back."""
    factors = (10.0 ** rng.uniform(-2, 2, 16)).reshape(-1, 1, 1, 1)
    module = Module("spread", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (1, 3, 8, 8)))
    first = (rng.normal(size=(16, 3, 3, 3)) * factors).astype(np.float32)
    second = (rng.normal(size=(4, 16, 1, 1)) / factors.reshape(1, -1, 1, 1)).astype(np.float32)
    a = module.graph.insert(
        Conv(clamp=(0.0, math.inf)), [x, module.add_constant("w", Data.of(first))], None, ["a"]
    )
    y = module.graph.insert(
        Conv(), [a.result, module.add_constant("v", Data.of(second))], None, ["y"]
    )
    module.graph.set_outputs([y.result])
    return module
