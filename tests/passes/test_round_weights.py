"""Weights as integers that keep what their products give, judged by onnxruntime's own outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant, Node
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv, Gemm, MatMul
from qdqc.passes.round_weights import RoundWeights
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.arithmetic import numbers
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

Floats = npt.NDArray[np.float32]
Samples = list[dict[str, npt.NDArray[Any]]]


def net(op: Op, x: tuple[int, ...], w: tuple[int, ...], bias: tuple[int, ...] | None) -> Module:
    rng = np.random.default_rng(3)
    module = Module("net", {"": 17})
    held = module.graph.add_input("x", TensorType(Elem.F32, x))
    weight = (rng.normal(0, 1, w) * np.exp(rng.normal(0, 1, w))).astype(np.float32)
    operands = [held, module.add_constant("w", Data.of(weight))]
    if bias is not None:
        operands.append(module.add_constant("b", Data.of(rng.normal(size=bias).astype("f4"))))
    node = module.graph.insert(op, operands, None, ["y"])
    module.graph.set_outputs([node.result])
    return module


def dependent(shape: tuple[int, ...], seed: int, axis: int = 1) -> Floats:
    """Numbers of mean 2 whose channels are mixtures of a few sources, the same for any seed."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(9)
    channels = shape[axis]
    others = [s for i, s in enumerate(shape) if i != axis % len(shape)]
    sources = max(1, channels // 3)
    drawn = rng.normal(size=(*others, sources)) @ mixing.normal(size=(sources, channels))
    noisy = drawn + 0.05 * rng.normal(size=drawn.shape) + 2
    return np.moveaxis(noisy, -1, axis).astype(np.float32)


CASES: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, int]] = {
    "conv": (Conv(pads=(1, 1, 1, 1)), (2, 9, 8, 7), (6, 9, 3, 3), (6,), 1),
    "conv without bias": (Conv(strides=(2, 2)), (2, 9, 8, 7), (6, 9, 1, 1), None, 1),
    "groups": (Conv(group=2), (2, 24, 6, 6), (8, 12, 1, 1), (8,), 1),
    "gemm": (Gemm(), (30, 12), (12, 7), (7,), 1),
    "gemm, transposed": (Gemm(trans_b=True), (30, 12), (7, 12), None, 1),
    "matmul": (MatMul(), (2, 20, 64), (64, 7), (7,), -1),
    "matmul without bias": (MatMul(), (2, 20, 64), (64, 7), None, -1),
}


def case(name: str) -> tuple[Module, Samples, Samples]:
    """The network, samples to tune on and others to judge on."""
    op, x, w, bias, axis = CASES[name]
    drawn = [{"x": dependent(x, seed, axis)} for seed in range(24)]
    return net(op, x, w, bias), drawn[:16], drawn[16:]


def rounded(module: Module, samples: Samples, **options: Any) -> tuple[Module, dict[str, int]]:
    """A copy after the pass, and what it counted."""
    out = run(module, "")
    ctx = PassContext(samples=samples)
    changes = RoundWeights(**options).run(out.graph, ctx)
    assert (changes > 0) == (print_module(out, elide=True) != print_module(module, elide=True))
    return out, {name: count for name, count in ctx.statistics.items() if count}


def node_of(module: Module) -> Node[Any]:
    return next(module.graph.nodes())


def weight_of(module: Module) -> Constant:
    found = node_of(module).at(1)
    assert isinstance(found, Constant)
    return found


def outputs(module: Module, samples: Samples) -> npt.NDArray[np.float64]:
    runner = Runner(module, optimise="off")
    return np.stack([runner.run(s)["y"] for s in samples]).astype(np.float64)


def error(module: Module, exact: Module, samples: Samples) -> float:
    return float(np.square(outputs(module, samples) - outputs(exact, samples)).mean())


@pytest.mark.parametrize("name", CASES)
def test_outputs_on_new_data_are_nearer_than_rounded_to_nearest(name: str) -> None:
    exact, taught, judges = case(name)
    plain, _ = rounded(exact, taught, method="nearest")
    tuned, counted = rounded(exact, taught)
    assert error(tuned, exact, judges) < 0.7 * error(plain, exact, judges)
    assert counted["weights of 8 bits"] == 1
    assert 0 < counted["rows that err less than rounded to nearest"] <= 8


@pytest.mark.parametrize("name", [n for n in CASES if "matmul without" not in n])
@pytest.mark.parametrize("method", ["gptq", "nearest"])
def test_the_bias_takes_the_mean_of_the_error(name: str, method: str) -> None:
    """Zeros of the padding count: the mean over all outputs of the samples is that of float."""
    exact, taught, _ = case(name)
    tuned, _ = rounded(exact, taught, method=method)
    channel = 1 if isinstance(node_of(exact).op, Conv) else -1
    lost = np.moveaxis(outputs(tuned, taught) - outputs(exact, taught), channel + (channel > 0), -1)
    means = lost.reshape(-1, lost.shape[-1]).mean(axis=0)
    assert np.abs(means).max() < 2e-4 * np.abs(outputs(exact, taught)).max()


def test_a_matmul_without_a_bias_gets_none() -> None:
    exact, taught, _ = case("matmul without bias")
    tuned, _ = rounded(exact, taught)
    assert node_of(tuned).operand("bias") is None


@pytest.mark.parametrize("name", CASES)
def test_nearest_is_rounding_by_numpy(name: str) -> None:
    exact, taught, _ = case(name)
    tuned, counted = rounded(exact, taught, method="nearest")
    array, held = weight_of(exact).data.array(), weight_of(tuned)
    axis = node_of(exact).op.quant(*node_of(exact).operand_types()).axis
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.abs(array).max(axis=others, keepdims=True) / np.float32(127)
    np.testing.assert_array_equal(held.data.array(), np.rint(array / scale))
    np.testing.assert_allclose(numbers(held), np.rint(array / scale) * scale, rtol=1e-6)
    assert held.tensor.elem is Elem.I8
    assert counted == {"weights of 8 bits": 1}


@pytest.mark.parametrize("method", ["gptq", "nearest"])
def test_four_bits_in_blocks(method: str) -> None:
    exact, taught, judges = case("matmul")
    tuned, counted = rounded(exact, taught, bits=4, group_size=16, method=method)
    held = weight_of(tuned)
    assert held.tensor.elem is Elem.U4
    assert held.tensor.quant is not None
    assert (held.tensor.quant.block, held.tensor.quant.scale.shape) == (16, (4, 7))
    assert counted["weights of 4 bits"] == 1
    signal = float(np.square(outputs(exact, judges)).mean())
    assert error(tuned, exact, judges) < (0.002 if method == "gptq" else 0.02) * signal


def test_what_has_no_blocks_takes_eight_bits() -> None:
    exact, taught, _ = case("gemm")
    tuned, counted = rounded(exact, taught, bits=4)
    assert weight_of(tuned).tensor.elem is Elem.I8
    assert "weights of 4 bits" not in counted


def test_one_scale_for_the_whole_weight() -> None:
    exact, taught, _ = case("conv")
    tuned, _ = rounded(exact, taught, scheme="per-tensor")
    quant = weight_of(tuned).tensor.quant
    assert quant is not None
    assert quant.axis is None
    assert float(quant.scale) == np.abs(weight_of(exact).data.array()).max() / np.float32(127)


def test_seven_bits_for_processors_without_vnni() -> None:
    exact, taught, _ = case("conv")
    tuned, _ = rounded(exact, taught, target="ort-cpu-avx2")
    assert np.abs(weight_of(tuned).data.array().astype(int)).max() == 63


def test_the_deployed_weight_is_the_tuned_one(tmp_path: Path) -> None:
    """``quantize`` keeps the integers, and ``correct-bias`` leaves the bias alone."""
    exact, taught, judges = case("conv")
    tuned, _ = rounded(exact, taught)
    table = tmp_path / "t"
    table.write_text("x 9 -9 9\ny 300 -300 300\n#channel_mean x 9 2 2 2 2 2 2 2 2 2\n")
    steps = f'import-calibration{{table="{table}"}},assign-precision,'
    done = run(tuned, f'{steps}correct-bias{{table="{table}"}},quantize')
    integers = [c for c in done.constants.values() if c.tensor.elem is Elem.I8]
    np.testing.assert_array_equal(integers[0].data.array(), weight_of(tuned).data.array())
    plain = run(exact, f"{steps}quantize")
    assert error(done, exact, judges) < error(plain, exact, judges)


MODULE = """module @m {
  const %w : f32[2,2,1,1] = dense[1, 2, 3, 4]
  const %e : f32[64,64] = elided("sha256:9f2c41d0")
  graph (%x : f32[1,2,2,2], %u : f32[4,64]) -> (%y, %z, %v) {
    %y = conv(%x, %w) : f32[1,2,2,2] mode(F32)
    %z = conv(%x, %w) {auto_pad = "SAME_UPPER"} : f32[1,2,2,2]
    %v = matmul(%u, %e) : f32[4,64]
  }
}"""


def test_what_is_left_alone_says_why() -> None:
    module = parse_module(MODULE)
    ctx = PassContext(samples=[], mismatches=[])
    assert RoundWeights().run(module.graph, ctx) == 0
    assert ctx.mismatches is not None
    assert {m.node: m.reason for m in ctx.mismatches} == {
        "y": "its mode is F32",
        "z": "its padding is SAME_UPPER",
        "v": "its weight is elided",
    }


def test_a_second_run_changes_nothing() -> None:
    exact, taught, _ = case("conv")
    tuned, _ = rounded(exact, taught)
    again, counted = rounded(tuned, taught)
    assert again == tuned
    assert counted == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gtpq"}, "unknown method 'gtpq'; did you mean 'gptq'?"),
        ({"bits": 5}, "weights have no form of 5 bits"),
        ({"bits": 4, "group_size": 24}, "groups of 24 weights have no kernel"),
        ({"scheme": "per-row"}, "unknown scheme 'per-row'"),
        ({"target": "cpu"}, "unknown target 'cpu'"),
        ({"damping": -1.0}, "a damping of -1"),
        ({"mask": "y"}, "no input 'y' to mask by"),
        ({"dataset": "nowhere"}, "there is no such file or folder"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    exact, taught, _ = case("conv")
    with pytest.raises(QdqcError) as caught:
        rounded(exact, taught, **options)
    assert message in caught.value.diagnostic.render()


def test_without_data() -> None:
    exact, _, _ = case("conv")
    with pytest.raises(QdqcError, match="measures the module on data, and there are none"):
        run(exact, "round-weights")
    with pytest.raises(QdqcError, match="no samples to measure"):
        run(exact, "round-weights", samples=[])


def test_numbers_that_are_not_finite_leave_the_weight_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact, taught, _ = case("conv")
    taught[3]["x"][0, 0, 0, 0] = np.inf
    done = run(exact, "round-weights", samples=taught)
    assert weight_of(done).tensor.elem is Elem.F32
    assert "%x is not finite on the data" in capsys.readouterr().err


def test_data_of_a_file(tmp_path: Path) -> None:
    """The option reads what the caller could have given."""
    exact, taught, _ = case("conv")
    file = tmp_path / "calib.npz"
    np.savez(file, x=np.concatenate([s["x"] for s in taught]))
    tuned, _ = rounded(exact, taught)
    found = run(exact, f'round-weights{{dataset="{file}"}}')
    found.header.clear()
    tuned.header.clear()
    assert found == tuned
