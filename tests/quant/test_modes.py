"""Modes beside static INT8, each against its formula in numpy, alone and mixed by a qtable."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.ir.verify import verify
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Add, Conv, Gather, Gemm, MatMul, Softmax
from qdqc.pipeline.manager import run
from qdqc.quant.arithmetic import block_quant, dequantize, quantize
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import Runner

PASSES = "quantize-weights,quantize-dynamic,convert-half,quantize,verify-target,lower-to-qdq"
Array = npt.NDArray[Any]


def deployed(module: Module, mode: str, passes: str = PASSES, qtable: str = "") -> Module:
    """The lowered module, which verifies, keeps its ends, and passes onnx's full check."""
    chosen = f' qtable="{qtable}"' if qtable else ""
    made = run(module, f"assign-precision{{mode={mode}{chosen}}},{passes}")
    assert not [d.render() for d in verify(made)]
    for ends in ("inputs", "outputs"):
        before, after = getattr(module.graph, ends), getattr(made.graph, ends)
        assert [(v.name, v.tensor.shape) for v in before] == [
            (v.name, v.tensor.shape) for v in after
        ]
    onnx.checker.check_model(export_onnx(made), full_check=True)
    return made


def kernels(module: Module, folder: Path) -> collections.Counter[str]:
    path = folder / "deployed.onnx"
    onnx.save(export_onnx(module), path)
    return collections.Counter(n.op_type for n in optimised_model(path).graph.node)


def product(net: Any, op: Any = None, k: int = 64, n: int = 48) -> Any:
    made = net()
    x = made.input("x", 3, k)
    shape = (n, k) if isinstance(op, Gemm) and op.trans_b else (k, n)
    w, b = made.weight("w", *shape), made.weight("b", n)
    return made.returns(made.op("y", op or MatMul(), x, w, b))


def ran(module: Module, feeds: Any, optimise: str = "off") -> Array:
    return Runner(module, optimise=optimise, threads=1).run(feeds)["y"]


def numbers_of(module: Module, name: str) -> Array:
    return np.asarray(module.constants[name].data.array())


def dynamic(x: Array, w: Array, b: Array) -> Array:
    """DynamicQuantizeLinear by the ONNX specification, and weights per column, in float64."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    held = np.clip(np.rint(x / scale) + zero, 0, 255)
    steps = np.abs(w).max(axis=0) / 127
    return (held - zero) @ np.rint(w / steps).astype(np.float64) * (scale * steps) + b


@pytest.mark.parametrize("op", [MatMul(), Gemm(), Gemm(trans_b=True), MatMul(clamp=(0.0, 6.0))])
def test_dynamic_products(net: Any, tmp_path: Path, op: Any) -> None:
    made = product(net, op)
    module, feeds = made.module, made.feeds(1)
    lowered = deployed(module, "DYN8")
    w = numbers_of(module, "w")
    w = w.T if isinstance(op, Gemm) and op.trans_b else w
    wanted = dynamic(feeds["x"], w, numbers_of(module, "b"))
    wanted = wanted if op.clamp is None else wanted.clip(*op.clamp)
    for optimise in ("off", "all"):
        np.testing.assert_allclose(ran(lowered, feeds, optimise), wanted, rtol=1e-4, atol=1e-4)
    assert kernels(lowered, tmp_path)["DynamicQuantizeMatMul"] == 1


def convolution(net: Any, op: Any, channels: int = 6, shape: tuple[int, ...] = (8, 6, 3, 3)) -> Any:
    made = net()
    x = made.input("x", 2, channels, 9, 9)
    return made.returns(made.op("y", op, x, made.weight("w", *shape), made.weight("b", shape[0])))


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Conv(pads=(1, 1, 1, 1)), (8, 6, 3, 3)),
        (Conv(pads=(1, 1, 1, 1), group=6, strides=(2, 2)), (6, 1, 3, 3)),
        (Conv(dilations=(2, 2), clamp=(0.0, 6.0)), (8, 6, 3, 3)),
        (Conv(auto_pad="SAME_UPPER", strides=(2, 2)), (8, 6, 2, 2)),
    ],
)
def test_dynamic_convolutions(net: Any, tmp_path: Path, op: Any, shape: tuple[int, ...]) -> None:
    made = convolution(net, op, shape=shape)
    module, feeds = made.module, made.feeds(1)
    lowered = deployed(module, "DYN8")
    x, w = feeds["x"], numbers_of(module, "w")
    step = np.float32((x.max() - x.min()) / 255)
    held = np.clip(np.rint(x / step) + np.rint(-x.min() / step), 0, 255) - np.rint(-x.min() / step)
    steps = np.abs(w).max(axis=(1, 2, 3), keepdims=True) / 127
    plain = run(module, "canonicalize")
    weight = plain.constants["w"]
    weight.data = Data.of((np.rint(w / steps) * steps).astype(np.float32))
    wanted = ran(plain, {"x": (held * step).astype(np.float32)})
    for optimise in ("off", "all"):
        np.testing.assert_allclose(ran(lowered, feeds, optimise), wanted, rtol=1e-4, atol=1e-4)
    assert kernels(lowered, tmp_path)["ConvInteger"] == 1


def test_half_precision_and_its_borders(net: Any) -> None:
    """Two nodes in half precision behind each other share no cast; others read f32."""
    made = net()
    x = made.input("x", 3, 64)
    a = made.op("a", MatMul(), x, made.weight("w", 64, 48))
    b = made.op("b", Softmax(axis=-1), a)
    made.returns(made.op("y", Add(), b, made.weight("c", 48)))
    lowered = deployed(made.module, "F16", qtable="")
    assert [n.op.name for n in lowered.graph.nodes()] == [
        "cast",
        "matmul",
        "softmax",
        "add",
        "cast",
    ]
    feeds = made.feeds(1)
    np.testing.assert_allclose(ran(lowered, feeds), ran(made.module, feeds), rtol=1e-2, atol=2e-3)
    halves = {c.tensor.elem for c in lowered.constants.values()}
    assert halves == {Elem.F16}


def test_what_half_precision_cannot_hold_stays_f32(net: Any, calibrated: Any) -> None:
    made = net()
    x = made.input("x", 2, 4)
    a = made.op("a", MatMul(), x, made.const("w", np.full((4, 4), 7e4)))
    made.returns(made.op("y", MatMul(), a, made.weight("v", 4, 4)))
    module = calibrated(made)
    lowered = deployed(module, "F16")
    assert {v.tensor.elem for n in lowered.walk() for v in n.present_results} == {Elem.F32}
    np.testing.assert_array_equal(ran(lowered, made.feeds(1)), ran(module, made.feeds(1)))


def test_readers_of_one_value_share_its_dynamic_cast(net: Any) -> None:
    made = net()
    x = made.input("x", 2, 16)
    ys = [made.op(f"y{i}", MatMul(), x, made.weight(f"w{i}", 16, 8)) for i in range(3)]
    lowered = deployed(made.returns(*ys).module, "DYN8")
    ops = [n.op.name for n in lowered.graph.nodes()]
    assert ops.count("dynamic_quantize_linear") == 1
    assert ops.count("matmul_integer") == 3


@pytest.mark.parametrize("op", [Gemm(alpha=2.0), Gemm(beta=0.5), Gemm(trans_a=True)])
def test_what_has_no_dynamic_form_stays_float(net: Any, op: Any) -> None:
    made = net()
    x = made.input("x", 16, 16)
    made.returns(made.op("y", op, x, made.weight("w", 16, 8)))
    assert [n.op for n in deployed(made.module, "DYN8").graph.nodes()] == [op]


def test_eight_bit_weights(net: Any) -> None:
    made = product(net)
    module, feeds = made.module, made.feeds(1)
    typed = run(module, "assign-precision{mode=W8},quantize-weights")
    node = next(typed.graph.nodes())
    assert [v.tensor.elem for v in node.present_operands[:2]] == [Elem.F32, Elem.I8]
    assert node.result.tensor.elem is Elem.F32
    w = numbers_of(module, "w")
    steps = np.abs(w).max(axis=0) / 127
    wanted = feeds["x"] @ (np.rint(w / steps) * steps) + numbers_of(module, "b")
    np.testing.assert_allclose(ran(deployed(module, "W8"), feeds), wanted, rtol=1e-4, atol=1e-4)


def test_four_bit_weights_in_blocks(net: Any, tmp_path: Path) -> None:
    made = product(net)
    module, feeds = made.module, made.feeds(1)
    lowered = deployed(module, "W4")
    exact = ran(module, feeds)
    error = np.abs(ran(lowered, feeds) - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.1
    stored = next(c for c in lowered.constants.values() if c.tensor.elem is Elem.U4)
    assert stored.tensor.quant is not None
    assert (stored.tensor.quant.axis, stored.tensor.quant.block) == (0, 32)
    assert stored.tensor.quant.scale.shape == (2, 48)
    assert kernels(lowered, tmp_path)["MatMulNBits"] == 1


def test_rows_that_blocks_do_not_divide_take_eight_bits(net: Any) -> None:
    lowered = deployed(product(net, k=40).module, "W4")
    assert {c.tensor.elem for c in lowered.constants.values()} == {Elem.I8, Elem.F32}


@pytest.mark.parametrize("size", [0, 8, 24, -32])
def test_groups_without_a_kernel(net: Any, size: int) -> None:
    with pytest.raises(QdqcError, match=f"groups of {size} weights have no kernel"):
        run(product(net).module, f"quantize-weights{{group-size={size}}}")


def test_blocks_err_no_more_than_the_whole_range() -> None:
    w = np.random.default_rng(3).standard_t(4, (64, 5)).astype(np.float32)
    w[:32, 0] = 0
    quant = block_quant(w, 32, Elem.U4)
    found = dequantize(quantize(w, quant, Elem.U4), quant)
    assert (found[:32, 0] == 0).all()
    for first in (0, 32):
        for column in range(5):
            part = w[first : first + 32, column]
            low, high = min(part.min(), 0), max(part.max(), 0)
            step = (high - low) / 15 or 1.0
            zero = np.rint(-low / step)
            plain = (np.clip(np.rint(part / step) + zero, 0, 15) - zero) * step
            error = np.square(found[first : first + 32, column] - part).sum()
            assert error <= np.square(plain - part).sum() * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize(("mode", "rows"), [("W8", 20), ("W4", 20), ("INT8", 700), ("DYN8", 700)])
def test_an_embedding_is_picked_as_integers(net: Any, mode: str, rows: int) -> None:
    made = net()
    table = made.weight("t", rows, 6)
    ids = np.array([[1, 19], [0, 1]])
    module = made.returns(made.op("y", Gather(), table, made.const("i", ids))).module
    lowered = deployed(module, mode)
    held = numbers_of(module, "t")
    steps = np.abs(held).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(ran(lowered, {}), (np.rint(held / steps) * steps)[ids], rtol=1e-5)
    picked = [n for n in lowered.graph.nodes() if isinstance(n.op, Gather)]
    assert picked[0].need("x").tensor.elem is Elem.I8


@pytest.mark.parametrize("mode", ["INT8", "DYN8", "F32"])
def test_a_small_table_stays_float(net: Any, mode: str) -> None:
    made = net()
    ids = made.const("i", np.array([1, 19]))
    module = made.returns(made.op("y", Gather(), made.weight("t", 20, 6), ids)).module
    assert [n.op for n in deployed(module, mode).graph.nodes()] == [Gather()]


@pytest.mark.parametrize("seed", range(12))
def test_mixed_chains(net: Any, calibrated: Any, tmp_path: Path, seed: int) -> None:
    """A chain of products in random modes stays near the float one, names and types as given."""
    rng = np.random.default_rng(seed)
    made = net(seed)
    value = made.input("x", 2, 64)
    modes: dict[str, str] = {}
    for index in range(5):
        op = (MatMul(clamp=(0.0, np.inf)), MatMul(), Gemm())[rng.integers(3)]
        name = "y" if index == 4 else f"n{index}"
        value = made.op(
            name, op, value, made.weight(f"w{index}", 64, 64), made.weight(name + "b", 64)
        )
        modes[name] = str(rng.choice(["INT8", "DYN8", "W8", "W4", "F16", "F32"]))
    module = calibrated(made.returns(value))
    table = tmp_path / "q"
    table.write_text("".join(f"{n} {m}\n" for n, m in modes.items()))
    lowered = deployed(module, "F32", qtable=str(table))
    for feeds in (made.feeds(0), made.feeds(1)):
        exact, found = ran(module, feeds), ran(lowered, feeds)
        again = ran(lowered, feeds, "all")
        cosine = (exact * found).sum() / np.linalg.norm(exact) / np.linalg.norm(found)
        assert cosine > 0.97, modes
        assert np.abs(again - found).max() <= 0.05 * np.abs(exact).max(), modes
