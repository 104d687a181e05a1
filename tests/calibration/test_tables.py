from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.collection import collect
from qdqc.calibration.methods.kl import Kl
from qdqc.calibration.tables import calibrate, make_table
from qdqc.diagnostics import Diagnostic, QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Conv, HardSwish

F32 = TensorType(Elem.F32, (2, 3))


class Opaque(Op):
    """Stands for any op; it is not registered."""


def module() -> Module:
    """x -> double -> (y, index); a node with a nested graph; a constant."""
    out = Module()
    graph = out.graph
    x = graph.add_input("x", F32)
    graph.add_input("ids", TensorType(Elem.I64, (2,)))
    w = out.add_constant("w", Data.of(np.ones((2, 3), np.float32)))
    double = graph.insert(Opaque(), [x, w], [F32], ["double"])
    node = graph.insert(
        Opaque(), [double.result], [F32, TensorType(Elem.I64, (2,))], ["y", "index"]
    )
    inner = Graph(out)
    inner.insert(Opaque(), [x], [F32], ["inner"])
    graph.insert(Opaque(), [x], [F32], ["outer"], graphs=[inner])
    graph.set_outputs([node.result])
    return out


def open_taps(names: Sequence[str], /) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def look(sample: Mapping[str, Any]) -> dict[str, Any]:
        x = np.asarray(sample["x"], np.float32)
        ids = np.array(sample.get("ids", [0, 1]))
        with np.errstate(invalid="ignore"):
            every = {"x": x, "double": 2 * x, "y": np.maximum(x, 0), "outer": 0 * x, "ids": ids}
        return {name: every[name] for name in names}

    return look


SAMPLES = [{"x": np.full((2, 3), v)} for v in (1.0, -3.0, 2.0)]


def test_the_table_of_max() -> None:
    warnings: list[Diagnostic] = []
    seen: list[tuple[int, int]] = []
    tables = calibrate(
        module(),
        SAMPLES,
        open_taps,
        ["use_max"],
        header={"model": "m.qir"},
        progress=lambda *told: seen.append(told),
        warn=warnings.append,
    )
    table = tables["max"]
    assert table.rows["double"] == Range(-6, 4, 6)
    assert table.rows["y"] == Range(0, 2, 2)
    assert table.observed["double"] == (-6, 4)
    assert table.header == {
        "model": "m.qir",
        "method": "max",
        "histogram bins": "2048",
        "samples": "3",
    }
    assert seen == [(3, 3)]
    (warning,) = warnings
    assert "'outer' is zero in all samples" in warning.message


def test_one_pass_serves_every_method() -> None:
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((200, 300)) ** 3} for _ in range(3)]
    collector = collect(module().graph, samples, open_taps)
    tables = {m: make_table(collector, m).rows["x"] for m in ("kl", "max", "percentile9999")}
    largest = max(float(np.abs(s["x"]).max()) for s in samples)
    assert tables["max"].threshold == pytest.approx(largest)
    assert tables["percentile9999"].threshold < tables["kl"].threshold <= tables["max"].threshold


def test_tables_bear_the_spelling_of_their_methods_and_say_the_options() -> None:
    methods = [Kl(bins=512), "kl", "percentile9999{percentile=99.5}", "use_KL", "Max"]
    tables = calibrate(module(), SAMPLES, open_taps, methods)
    assert list(tables) == ["kl{bins=512}", "kl", "percentile9999{percentile=99.5}", "max"]
    plain = {"method": "kl", "histogram bins": "2048", "samples": "3"}
    assert [list(t.header.items()) for t in tables.values()] == [
        list((plain | {"histogram bins": "512"}).items()),
        list(plain.items()),
        list((plain | {"method": "percentile9999", "percentile": "99.5"}).items()),
        list((plain | {"method": "max"}).items()),
    ]


def test_nan_names_the_first_value() -> None:
    warnings: list[Diagnostic] = []
    samples = [*SAMPLES, {"x": np.array([[np.nan, 1, 1], [np.inf, 1, 1]])}]
    (table,) = calibrate(module(), samples, open_taps, ["max"], warn=warnings.append).values()
    assert warnings[0].message.startswith(
        "'x' has 1 NaN and 1 infinite elements, first in sample 3, and 3 other values"
    )
    assert table.rows["x"] == Range(-3, 2, 3)


def test_nan_names_the_value_that_stands_first_in_the_graph() -> None:
    late, early = np.zeros((2, 3)), np.zeros((2, 3))

    numbers = itertools.count()

    def open_some(names: Sequence[str], /) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        def look(sample: Mapping[str, Any]) -> dict[str, Any]:
            number = next(numbers)
            late[0, 0] = np.nan if number == 1 else 0
            early[0, 0] = np.nan if number == 2 else 0
            return {**open_taps(names)(sample), "double": early.copy(), "y": late.copy()}

        return look

    warnings: list[Diagnostic] = []
    calibrate(module(), SAMPLES, open_some, ["max"], warn=warnings.append)
    assert warnings[0].message.startswith("'double' has 1 NaN and 0 infinite elements, first in")
    assert "in sample 2, and 1 other values" in warnings[0].message


def test_integer_inputs_have_extremes_and_no_range() -> None:
    samples = [{"x": 1.0, "ids": [5, 7]}, {"x": 2.0, "ids": [-2, 6]}]
    (table,) = calibrate(module(), samples, open_taps, ["max"]).values()
    assert table.observed["ids"] == (-2, 7)
    assert "ids" not in table.rows
    assert list(table.rows) == ["x", "double", "y", "outer"]


def convolution() -> Module:
    """x -> conv with a bias -> y."""
    out = Module()
    x = out.graph.add_input("x", TensorType(Elem.F32, (1, 2, 2, 2)))
    w = out.add_constant("w", Data.of(np.ones((3, 2, 1, 1), np.float32)))
    b = out.add_constant("b", Data.of(np.zeros(3, np.float32)))
    out.graph.set_outputs([out.graph.insert(Conv(), [x, w, b], None, ["y"]).result])
    return out


def test_the_table_holds_means_per_channel_of_what_convolutions_read() -> None:
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(3, 1, (1, 2, 2, 2)).astype(np.float32)} for _ in range(5)]

    def open_some(names: Sequence[str], /) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        assert list(names) == ["x", "y"]
        return lambda sample: {"x": sample["x"], "y": np.zeros((1, 3, 2, 2), np.float32)}

    (table,) = calibrate(convolution(), samples, open_some, ["max"]).values()
    assert list(table.channel_means) == ["x"]
    expected = np.mean([s["x"] for s in samples], axis=(0, 1, 3, 4), dtype=np.float64)
    np.testing.assert_allclose(table.channel_means["x"], expected, rtol=1e-6)


def test_bad_requests() -> None:
    with pytest.raises(QdqcError, match="there are no samples"):
        calibrate(module(), [], open_taps)
    with pytest.raises(QdqcError, match="calibration method 'mox'; did you mean 'max'"):
        calibrate(module(), SAMPLES, open_taps, ["mox"])
    with pytest.raises(QdqcError, match="less than 128"):
        calibrate(module(), SAMPLES, open_taps, ["kl{bins=64}"])
    with pytest.raises(QdqcError, match=r"percentile 0\.9999 is not a percentage"):
        calibrate(module(), SAMPLES, open_taps, ["percentile9999{percentile=0.9999}"])
    with pytest.raises(QdqcError, match="no float32 values"):
        calibrate(Module(), SAMPLES, open_taps)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_input_that_is_never_finite_is_named(number: float) -> None:
    samples = [{"x": np.full((2, 3), number)}] * 3
    with pytest.raises(QdqcError, match="input 'x' has no finite number in any of 3 samples"):
        calibrate(module(), samples, open_taps)


def test_a_model_that_makes_no_finite_number_of_finite_data_is_refused() -> None:
    def lost(names: Sequence[str], /) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        look = open_taps(names)
        return lambda sample: {
            n: a if n in ("x", "ids") else np.full((2, 3), np.nan, np.float32)
            for n, a in look(sample).items()
        }

    with pytest.raises(QdqcError, match="'double' and all behind it have no finite number"):
        calibrate(module(), SAMPLES, lost)


def test_an_empty_sample_counts_for_nothing() -> None:
    samples = [*SAMPLES, {"x": np.zeros((2, 0))}]
    with_empty = calibrate(module(), samples, open_taps)
    without = calibrate(module(), SAMPLES, open_taps)
    assert [t.rows for t in with_empty.values()] == [t.rows for t in without.values()]


def test_ranges_lie_within_what_readers_tell_apart() -> None:
    """The input of hard_swish is sought below -3 by no method; what was seen is kept."""
    out = Module()
    x = out.graph.add_input("x", F32)
    double = out.graph.insert(Opaque(), [x], [F32], ["double"]).result
    out.graph.set_outputs([out.graph.insert(HardSwish(), [double], [F32], ["y"]).result])
    for method in ("max", "mse", "kl", "percentile9999"):
        (table,) = calibrate(out, SAMPLES, open_taps, [method]).values()
        assert -3 <= table.rows["double"].min < 0
        assert table.rows["double"].max <= 4
        assert table.observed["double"] == (-6, 4)
        assert table.rows["x"].min <= -2.9, "an input is given as it is"
