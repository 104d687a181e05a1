"""What users' models stumbled over: every mode gives what onnxruntime makes of the source file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from reported_models import REPORTED, Feeds, long_loop, with_attribute, without_a_number
from small_models import start_over

import qdqc
from qdqc.flow.deploy import Deployed
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

MODES = ("F32", "F16", "W8", "W4", "DYN8", "INT8")
PRODUCTS = {
    "resized": 1,
    "resized-along-axes": 2,
    "padded": 2,
    "gru": 2,
    "lstm": 2,
    "rnn": 2,
    "halves": 2,
    "product-and-relu": 1,
    "matmul-relu-sin": 1,
    "matmul-bias-relu-sin": 1,
    "gemm-relu-sin": 1,
    "gemm-clip-sin": 1,
    "matmul-clip-sin": 1,
    "empty-cache": 1,
    "known-branch": 1,
    "shared-weight": 20,
    "shared-matmul": 20,
    "one-number": 2,
    "chosen-boxes": 1,
    "weight-behind-reshape": 1,
    "names-of-our-own": 5,
    "names-that-forge": 4,
}
"""All of a model's products, which INT8 and DYN8 run in integers."""
LAYERS = ("gru", "lstm", "rnn")
"""One of the two products is a recurrent layer: of an LSTM there is a kernel in DYN8."""
SURE = {"one-number": 0.99}
"""Least cosine with the source, where it is not .999."""


class Case:
    """A source, what onnxruntime makes of it, and its deployments."""

    def __init__(self, name: str) -> None:
        start_over(2)
        self.proto, self.feeds = REPORTED[name]()
        self.wanted = run(self.proto, self.feeds)
        self.module: qdqc.Module = qdqc.transform(self.proto).module

    @functools.cached_property
    def table(self) -> qdqc.Table:
        return qdqc.calibrate(self.module, self.feeds, method="max")

    @functools.cache  # noqa: B019 (the cases live as long as the tests)
    def deployed(self, mode: str) -> Deployed:
        table = self.table if mode == "INT8" else None
        return qdqc.deploy(self.module, Deployment(mode=mode), table=table)


def run(model: onnx.ModelProto, feeds: Feeds) -> dict[str, list[Any]]:
    """Each output over all samples, as onnxruntime runs the model unoptimised."""
    session = open_session(model, optimise="off", threads=1)
    names = [o.name for o in session.get_outputs()]
    results = [session.run(names, feed) for feed in feeds]
    return {n: [r[i] for r in results] for i, n in enumerate(names)}


def cosine(some: list[Any], others: list[Any]) -> float:
    a, b = (np.concatenate([x.ravel() for x in each]).astype(float) for each in (some, others))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@functools.cache
def case(name: str) -> Case:
    return Case(name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REPORTED)
def test_every_mode_gives_what_the_source_gives(name: str, mode: str) -> None:
    one = case(name)
    made = run(qdqc.export_onnx(one.deployed(mode).module), one.feeds)
    assert list(made) == list(one.wanted)
    for output, wanted in one.wanted.items():
        assert [a.dtype for a in made[output]] == [a.dtype for a in wanted]
        if name == "chosen-boxes" and output == "y":
            continue  # indices
        least = 0.99999 if mode == "F32" else SURE.get(name, 0.999)
        assert cosine(made[output], wanted) > least, output


@pytest.mark.parametrize("mode", ["INT8", "DYN8"])
@pytest.mark.parametrize(("name", "count"), PRODUCTS.items())
def test_every_product_runs_in_integers(name: str, count: int, mode: str, tmp_path: Path) -> None:
    model, _ = case(name).deployed(mode).write(tmp_path / "m.onnx")
    audit = qdqc.prove(model)
    floats = int(name in LAYERS and (name, mode) != ("lstm", "DYN8"))
    runs = len(audit.products("integer")), len(audit.products("float"))
    assert runs == (count - floats, floats)


@pytest.mark.parametrize("mode", ["W8", "W4"])
@pytest.mark.parametrize("name", [n for n in REPORTED if n.endswith("-sin")])
def test_an_activation_behind_stored_weights_leaves_their_kernel(
    name: str, mode: str, tmp_path: Path
) -> None:
    model, _ = case(name).deployed(mode).write(tmp_path / "m.onnx")
    assert len(qdqc.prove(model).products("integer")) == 1


def test_an_empty_value_has_no_range() -> None:
    table = case("empty-cache").table
    assert "past" not in table.rows
    assert {"x", "k", "y"} <= set(table.rows)


def test_halves_come_in_and_go_out() -> None:
    made = qdqc.export_onnx(case("halves").deployed("INT8").module)
    types = {v.name: v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)}
    assert types == dict.fromkeys("xy", TensorProto.FLOAT16)


@pytest.mark.parametrize("name", ["shared-weight", "shared-matmul"])
@pytest.mark.parametrize(
    ("mode", "share"), {"F16": 0.6, "INT8": 0.4, "DYN8": 0.4, "W8": 0.4, "W4": 0.4}.items()
)
def test_a_shared_weight_is_stored_once(name: str, mode: str, share: float, tmp_path: Path) -> None:
    one = case(name)
    model, _ = one.deployed(mode).write(tmp_path / "m.onnx")
    assert model.stat().st_size < share * one.proto.ByteSize()


def test_one_number_is_told_by_how_far_it_is_off() -> None:
    """Its cosine with itself would be 1."""
    one = case("one-number")
    (row,) = one.deployed("INT8").check(one.deployed("INT8").samples()).rows
    made = run(qdqc.export_onnx(one.deployed("INT8").module), one.feeds)["y"]
    apart = max(float(np.abs(a - b).max()) for a, b in zip(made, one.wanted["y"], strict=True))
    assert apart > 0.03
    assert row.few
    assert row.cos < 0.999
    assert row.sqnr < 35
    assert row.max_abs > 0.02


def test_boxes_are_judged_as_numbers_and_chosen_ones_reported() -> None:
    one = case("chosen-boxes")
    deployed = one.deployed("INT8")
    rows = {row.name: row for row in deployed.check(deployed.samples()).rows}
    assert rows["boxes"].passed
    assert rows["scores"].passed
    assert rows["boxes"].sqnr > 30
    assert not rows["y"].judged


@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("F32", "INT8")])
@pytest.mark.parametrize("name", ["w", "b"])
def test_what_is_no_number_is_named_in_every_mode(name: str, mode: str) -> None:
    module = qdqc.transform(without_a_number(name)).module
    with pytest.raises(qdqc.QdqcError, match=f"'{name}' has 1 NaN"):
        qdqc.deploy(module, Deployment(mode=mode))


@pytest.mark.parametrize("name", ["w", "b"])
def test_what_is_no_number_is_named_with_ranges_too(name: str) -> None:
    module = qdqc.transform(without_a_number(name)).module
    feeds = [{"x": np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)}]
    table = qdqc.calibrate(module, feeds)
    with pytest.raises(qdqc.QdqcError, match=f"'{name}' has 1 NaN"):
        qdqc.deploy(module, Deployment(mode="INT8"), table=table)


@pytest.mark.parametrize(
    ("op", "attribute", "value", "message"),
    [
        ("ReduceMin", "keepdims", -3, "'keepdims' is -3, but 0 or 1 is needed"),
        ("Softmax", "axis", float("inf"), "'axis' is FLOAT, but 'Softmax' takes INT"),
    ],
)
def test_attributes_that_mean_nothing_are_named(
    op: str, attribute: str, value: Any, message: str
) -> None:
    with pytest.raises(qdqc.QdqcError, match=message):
        qdqc.transform(with_attribute(op, attribute, value))


def test_a_loop_that_would_not_end_is_refused_before_it_runs() -> None:
    with pytest.raises(qdqc.QdqcError, match="its body would run 1099511627776 times"):
        qdqc.transform(long_loop(2**40))
