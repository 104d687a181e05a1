"""Outliers of activations move into weights, where products lose less by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.ir.core import Node
from qdqc.ir.graph import Module
from qdqc.passes.smooth_activations import SmoothActivations
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module
from qdqc.tuning.smoothing import Inputs, smoothing_of

Samples = list[dict[str, npt.NDArray[Any]]]
WIDTH = 16


def numbers(*shape: int, seed: int, spread: float = 0.0) -> str:
    rng = np.random.default_rng(seed)
    array = rng.normal(size=shape) * 10 ** rng.uniform(-spread, spread, shape[-1])
    return f"f32[{','.join(map(str, shape))}] = dense[{', '.join(map(str, array.reshape(-1)))}]"


def module_of(body: str, output: str = "%y", extra: str = "") -> Module:
    """Tokens [1,6,16]; %g are gains with outliers, %w to %u weights."""
    made = parse_module(f"""module @m {{opsets = {{"" = 23}}}} {{
      const %g : {numbers(WIDTH, seed=0, spread=1)}
      const %h : {numbers(WIDTH, seed=1)}
      const %w : {numbers(WIDTH, WIDTH, seed=2)}
      const %v : {numbers(WIDTH, WIDTH, seed=3)}
      const %u : {numbers(WIDTH, WIDTH, seed=4)}
      const %o : {numbers(WIDTH, 8, seed=5)}
      const %b : {numbers(WIDTH, seed=6)}
      const %split : i64[4] = dense[1, 6, 2, 8]
      const %flat : i64[3] = dense[1, 6, 16]
      graph (%x : f32[1,6,16]{extra}) -> ({output}) {{
        {body}
      }}
    }}""")
    made.drop_unused_constants()
    return made


def samples(count: int = 12, start: int = 0) -> Samples:
    drawn = [np.random.default_rng(start + i) for i in range(count)]
    return [{"x": rng.normal(size=(1, 6, WIDTH)).astype(np.float32)} for rng in drawn]


def smoothed(module: Module, **options: Any) -> tuple[Module, dict[str, int], dict[str, str]]:
    """A copy after the pass, what it counted, and why nodes were left alone."""
    out = run(module, "")
    ctx = PassContext(samples=samples(), mismatches=[])
    SmoothActivations(**options).run(out.graph, ctx)
    reasons = {m.node: m.reason for m in ctx.mismatches or ()}
    return out, {k: n for k, n in ctx.statistics.items() if n}, reasons


def node(module: Module, name: str) -> Node[Any]:
    value = module.value(name)
    assert value is not None
    assert value.producer is not None
    return value.producer


def ops(module: Module) -> list[str]:
    return [n.op.name for n in module.graph.nodes()]


def assert_same(module: Module, changed: Module) -> None:
    for sample in samples(3, start=100):
        expected, found = (Runner(m, optimise="off").run(sample) for m in (module, changed))
        for name, array in expected.items():
            limit = 1e-5 * float(np.abs(array).max())
            np.testing.assert_allclose(found[name], array, rtol=0, atol=limit)


QKV = """%n = layer_normalization(%x, %g, %h) : f32[1,6,16]
        %q = matmul(%n, %w, %b) : f32[1,6,16]
        %k = matmul(%n, %v) : f32[1,6,16]
        %y = add(%q, %k) : f32[1,6,16]"""


def test_products_that_share_a_value_share_its_factors() -> None:
    module = module_of(QKV)
    done, counted, _ = smoothed(module)
    assert_same(module, done)
    assert ops(done) == ops(module)
    assert counted["groups smoothed"] == 1
    before, after = (m.constants for m in (module, done))
    gain = after["g_scaled"].data.array() / before["g"].data.array()
    bias = after["h_scaled"].data.array() / before["h"].data.array()
    assert gain.min() < 0.5 < 2 < gain.max()
    np.testing.assert_allclose(bias, gain, rtol=1e-5)
    for name in ("w", "v"):
        rows = after[f"{name}_scaled"].data.array() / before[name].data.array()
        np.testing.assert_allclose(rows, np.tile(1 / gain[:, None], WIDTH), rtol=1e-4)


def test_the_factors_are_those_of_the_paper() -> None:
    """s = max|x|^a / max|w|^(1-a), up to one number for all channels."""
    module = module_of(QKV)
    done, counted, _ = smoothed(module, strengths=(0.6,))
    assert counted["strength 0.6"] == 1
    read = np.concatenate([Runner(module, ["n"]).run(s)["n"] for s in samples()])
    held = [np.abs(module.constants[n].data.array()).max(axis=1) for n in ("w", "v")]
    factors = np.abs(read).max(axis=(0, 1)) ** 0.6 / np.maximum(*held) ** 0.4
    found = module.constants["g"].data.array() / done.constants["g_scaled"].data.array()
    np.testing.assert_allclose(found / found[0], factors / factors[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("made", "constants"),
    [
        ("rms_normalization(%x, %g)", ["g_scaled"]),
        ("mul(%x, %g)", ["g_scaled"]),
        ("mul(%g, %x)", ["g_scaled"]),
        ("matmul(%x, %v, %h)", ["v_scaled", "h_scaled"]),
        ("matmul(%x, %v, %h) {clamp = [0, inf]}", ["v_scaled", "h_scaled"]),
    ],
)
def test_where_the_division_goes(made: str, constants: list[str]) -> None:
    module = module_of(f"%n = {made} : f32[1,6,16]\n%y = matmul(%n, %w) : f32[1,6,16]")
    done, counted, _ = smoothed(module, worth=10.0, insert=False)
    assert counted["groups smoothed"] == 1
    assert_same(module, done)
    assert ops(done) == ops(module)
    assert set(constants) <= done.constants.keys()
    assert "n_scaled" in done.value_names()


ATTENTION = """%q = matmul(%x, %w) : f32[1,6,16]
        %k = matmul(%x, %v) : f32[1,6,16]
        %val = matmul(%x, %u, %b) : f32[1,6,16]
        %q4 = reshape(%q, %split) : f32[1,6,2,8]
        %k4 = reshape(%k, %split) : f32[1,6,2,8]
        %v4 = reshape(%val, %split) : f32[1,6,2,8]
        %qt = transpose(%q4) {perm = [0, 2, 1, 3]} : f32[1,2,6,8]
        %kt = transpose(%k4) {perm = [0, 2, 3, 1]} : f32[1,2,8,6]
        %vt = transpose(%v4) {perm = [0, 2, 1, 3]} : f32[1,2,6,8]
        %s = matmul(%qt, %kt) : f32[1,2,6,6]
        %p = softmax(%s) : f32[1,2,6,6]
        %a = matmul(%p, %vt) : f32[1,2,6,8]
        %at = transpose(%a) {perm = [0, 2, 1, 3]} : f32[1,6,2,8]
        %m = reshape(%at, %flat) : f32[1,6,16]
        %y = matmul(%m, %o) : f32[1,6,8]"""


def test_what_an_output_projection_reads_is_scaled_in_the_values() -> None:
    module = module_of(ATTENTION)
    done, counted, reasons = smoothed(module, worth=10.0, insert=False)
    assert_same(module, done)
    assert counted["groups smoothed"] == 1
    assert reasons == dict.fromkeys(("q", "k", "val"), "%x is an input")
    assert {"u_scaled", "b_scaled", "o_scaled", "w", "v"} <= done.constants.keys()
    names = done.value_names()
    assert {"val_scaled", "v4_scaled", "vt_scaled", "a_scaled", "at_scaled", "m_scaled"} <= set(
        names
    )


RESIDUAL = """%n = layer_normalization(%x, %g, %h) : f32[1,6,16]
        %q = matmul(%n, %w) : f32[1,6,16]
        %k = matmul(%n, %v) : f32[1,6,16]
        %s = add(%q, %k) : f32[1,6,16]
        %y = add(%s, %n) : f32[1,6,16]"""


def test_one_mul_serves_all_products_where_a_residual_reads_the_value() -> None:
    module = module_of(RESIDUAL)
    done, counted, _ = smoothed(module)
    assert_same(module, done)
    assert counted["Mul put in"] == 1
    assert ops(done) == ["layer_normalization", "mul", "matmul", "matmul", "add", "add"]
    made = node(done, "n_smooth")
    assert {u.name for u in made.result.users} == {"q", "k"}
    assert node(done, "y").operands[1] is done.value("n")


def test_without_insert_a_residual_is_declined() -> None:
    module = module_of(RESIDUAL)
    done, counted, reasons = smoothed(module, insert=False)
    assert done == module
    assert counted == {}
    assert reasons == dict.fromkeys(("q", "k"), "%n is read elsewhere too, by add %y")


def test_no_mul_goes_between_integers() -> None:
    """A max_pool's result comes in integers: a Mul in float would cost two casts."""
    body = "%n = max_pool(%x) {kernel_shape = [1]} : f32[1,6,16]\n%y = matmul(%n, %w) : f32[1,6,16]"
    module = module_of(body)
    done, counted, reasons = smoothed(module, worth=10.0)
    assert done == module
    assert "groups smoothed" not in counted
    assert reasons["y"] == "the factors vary inside of the windows of max_pool"


def test_what_gains_too_little_is_left_alone() -> None:
    module = module_of(QKV)
    done, counted, reasons = smoothed(module, worth=0.001)
    assert done == module
    assert counted == {}
    assert reasons == dict.fromkeys(("q", "k"), "no strength errs less on %n")


def deployed_error(weight: npt.NDArray[Any], rows: npt.NDArray[Any]) -> float:
    """Both sides in 8 bits by numpy: u8 with a free zero point, s8 by output."""
    low, high = min(0.0, float(rows.min())), float(rows.max())
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    near = (np.clip(np.rint(rows / scale) + zero, 0, 255) - zero) * scale
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    held = np.rint(weight / step) * step
    return float(np.square(near @ held.T - rows @ weight.T).sum())


def test_errors_are_those_of_both_sides_in_eight_bits() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(50, 8)) * 10 ** rng.uniform(-1, 1, 8)).astype(np.float32)
    weight = rng.normal(size=(5, 8)).astype(np.float32)
    inputs = Inputs(rows.min(axis=0), rows.max(axis=0), [rows[:30], rows[30:]])
    plain, choices = smoothing_of([weight], inputs, [0.5, 0.8], 127)
    assert plain == pytest.approx(deployed_error(weight, rows), rel=0.02)
    assert [c.strength for c in choices] == [0.5, 0.8]
    for choice in choices:
        by = choice.factors.astype(np.float32)
        assert np.log(choice.factors).mean() == pytest.approx(0, abs=1e-9)
        assert choice.error == pytest.approx(deployed_error(weight * by, rows / by), rel=0.02)
    assert min(c.error for c in choices) < 0.5 * plain


def test_channels_that_are_always_zero_do_no_harm() -> None:
    rows = np.zeros((4, 3), np.float32)
    rows[:, 0] = [1, -2, 3, 4]
    weight = np.array([[1, 2, 0], [3, 4, 0]], np.float32)
    inputs = Inputs(rows.min(axis=0), rows.max(axis=0), [rows])
    _, (choice,) = smoothing_of([weight], inputs, [0.5], 127)
    assert np.isfinite(choice.factors).all()
    assert (choice.factors > 0).all()


def test_nothing_is_run_where_there_is_nothing_to_smooth() -> None:
    text = """module @m {
      const %w : f32[1,1,1,1] = dense[2]
      graph (%x : f32[1,1,2,2]) -> (%y) {
        %y = conv(%x, %w) : f32[1,1,2,2]
      }
    }"""
    module = parse_module(text)
    assert SmoothActivations().run(module.graph, PassContext(samples=[])) == 0
