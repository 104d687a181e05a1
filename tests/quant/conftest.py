"""Small networks to quantize, and what is asked of each of them."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from qdqc.ir.clone import clone
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import Op
from qdqc.ir.spelling import print_type
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ir.verify import verify
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Dequantize, Quantize
from qdqc.pipeline.manager import run
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.session import Runner, open_session
from qdqc.text.printer import print_module

Feeds = dict[str, npt.NDArray[Any]]
SAMPLES = 4
FLOAT_PRODUCTS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


class Net:
    """Builds a module: inputs, constants and nodes by name, with a location for each node."""

    def __init__(self, seed: int = 0) -> None:
        self.module = Module("net", {"": 17})
        self.rng = np.random.default_rng(seed)

    def input(self, name: str, *shape: int) -> Value:
        return self.module.graph.add_input(name, TensorType(Elem.F32, shape))

    def const(self, name: str, array: npt.ArrayLike) -> Value:
        held = np.asarray(array)
        found = held.astype(np.float32) if held.dtype == np.float64 else held
        return self.module.add_constant(name, Data.of(found))

    def weight(self, name: str, *shape: int) -> Value:
        return self.const(name, self.rng.normal(0, 0.4, shape))

    def op(self, name: str, op: Op, *operands: Value | None) -> Value:
        loc = Loc((f"/{name}",))
        return self.module.graph.insert(op, list(operands), None, [name], loc=loc).result

    def node(self, names: Sequence[str], op: Op, *operands: Value | None) -> Node[Any]:
        return self.module.graph.insert(op, list(operands), None, names, loc=Loc((f"/{names[0]}",)))

    def returns(self, *values: Value) -> Net:
        self.module.graph.set_outputs(values)
        return self

    def feeds(self, seed: int) -> Feeds:
        rng = np.random.default_rng(seed)
        return {
            v.name: rng.normal(0, 1, v.tensor.static_shape).astype(np.float32)
            for v in self.module.graph.inputs
        }


@dataclass
class Quantized:
    """A network in all its stages. ``ranges`` are what the float values were on the samples."""

    float: Module
    typed: Module
    lowered: Module
    feeds: list[Feeds]
    ranges: Mapping[str, Range]
    kernels: collections.Counter[str] = field(default_factory=collections.Counter)

    def node(self, name: str, stage: str = "typed") -> Node[Any]:
        value = getattr(self, stage).value(name)
        assert value is not None, f"no %{name} in the {stage} module"
        assert value.producer is not None
        return value.producer

    def floats_left(self) -> list[str]:
        return sorted(k for k in FLOAT_PRODUCTS if self.kernels[k])


def set_ranges(module: Module, feeds: Sequence[Feeds]) -> dict[str, Range]:
    """Run the module and put the extremes of all float values onto them."""
    names = [
        v.name
        for v in (*module.graph.inputs, *(r for n in module.walk() for r in n.present_results))
        if v.tensor.elem is Elem.F32
    ]
    runner = Runner(module, names, optimise="off", threads=1)
    seen: dict[str, list[npt.NDArray[Any]]] = {n: [] for n in names}
    for feed in feeds:
        values = runner.run(feed)
        for name in names:
            seen[name].append(values[name].reshape(-1))
    found: dict[str, Range] = {}
    for name, arrays in seen.items():
        every = np.concatenate(arrays)
        low, high = float(every.min(initial=0)), float(every.max(initial=0))
        found[name] = Range(low, high, max(abs(low), abs(high)))
        value = module.value(name)
        assert value is not None
        value.type = value.tensor.with_range(found[name])
    return found


def no_errors(module: Module) -> None:
    assert not [d.render() for d in verify(module)]


@pytest.fixture
def net() -> type[Net]:
    return Net


@pytest.fixture
def calibrated() -> Any:
    """Ranges of a network on random inputs, put onto its values."""

    def apply(made: Net) -> Module:
        set_ranges(made.module, [made.feeds(s) for s in range(SAMPLES)])
        return made.module

    return apply


@pytest.fixture
def quantized(tmp_path: Path) -> Any:
    """Quantize a network and hold it to what must be true of every one of them.

    The stages verify; the typed module and the lowered one give the same numbers; graph inputs
    and outputs keep their names; onnxruntime gives the same numbers, within two steps of an
    output, with its optimisations off and on; and no product is left float unless ``floats``
    names its kernel.
    """

    def apply(
        made: Net,
        quantize: str = "quantize",
        precision: str = "assign-precision",
        floats: Sequence[str] = (),
        inverse: bool = True,
    ) -> Quantized:
        feeds = [made.feeds(s) for s in range(SAMPLES)]
        ranges = set_ranges(made.module, feeds)
        typed = run(made.module, f"{precision},{quantize}")
        run(typed, "verify-target")
        lowered = run(typed, "lower-to-qdq")
        for stage in (made.module, typed, lowered):
            no_errors(stage)
            assert [v.name for v in stage.graph.inputs] == [
                v.name for v in made.module.graph.inputs
            ]
            assert [v.name for v in stage.graph.outputs] == [
                v.name for v in made.module.graph.outputs
            ]
        again = run(lowered, "import-qdq")
        assert (text_of(again) == text_of(typed)) is inverse
        if inverse:
            assert text_of(run(again, "lower-to-qdq")) == text_of(lowered)
        relaid = run(typed, f"unquantize,{precision},{quantize}")
        assert integer_types(relaid) == integer_types(typed)
        done = Quantized(made.module, typed, lowered, feeds, ranges)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        proto = export_onnx(lowered)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)
        done.kernels = collections.Counter(n.op_type for n in optimised_model(path).graph.node)
        check_numbers(done, proto)
        assert done.floats_left() == sorted(floats), done.kernels
        return done

    return apply


def text_of(module: Module) -> list[str]:
    """Lines of the text but for the pipeline that made the module, constants by name."""
    copy = clone(module)
    copy.header.pop("pipeline")
    lines = print_module(copy, elide=True).splitlines()
    return sorted(lines, key=lambda line: line if line.startswith("  const") else "~")


def integer_types(module: Module) -> dict[str, list[str]]:
    """The quantized types around each node: of its operands and of its results."""
    found = {
        n.name: [
            print_type(v.type)
            for v in (*n.present_operands, *n.present_results)
            if isinstance(v.type, TensorType) and v.type.quant is not None
        ]
        for n in module.graph.nodes()
        if not isinstance(n.op, Quantize | Dequantize)
    }
    return {name: types for name, types in found.items() if types}


def check_numbers(done: Quantized, proto: onnx.ModelProto) -> None:
    """The stages agree, and onnxruntime's optimisations change no output by over two steps."""
    plain = open_session(proto, optimise="off", threads=1)
    fast = open_session(proto, optimise="all", threads=1)
    typed = Runner(done.typed, optimise="off", threads=1)
    names = [v.name for v in done.typed.graph.outputs]
    for feed in done.feeds:
        expected = dict(zip(names, plain.run(names, feed), strict=True))
        found = dict(zip(names, fast.run(names, feed), strict=True))
        again = typed.run(feed)
        for name in names:
            np.testing.assert_array_equal(again[name], expected[name])
            held = done.ranges.get(name, Range(0.0, 0.0, 0.0))
            step = (max(held.max, 0.0) - min(held.min, 0.0)) / 255
            worst = np.abs(found[name].astype(np.float64) - expected[name]).max(initial=0)
            assert worst <= 2.01 * step, f"{name}: off by {worst}, a step is {step}"


def integer_nodes(module: Module) -> list[str]:
    """Names of the nodes of a typed module that give or take integers; casts left out."""
    return [
        n.name
        for n in module.graph.nodes()
        if not isinstance(n.op, Quantize | Dequantize)
        and any(
            isinstance(v.type, TensorType) and v.type.quant is not None
            for v in (*n.present_operands, *n.present_results)
        )
    ]


@pytest.fixture
def integers() -> Any:
    return integer_nodes
