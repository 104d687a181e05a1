"""Quality of models on samples, against straight computations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from search_nets import Net, residual, samples_of, table_of

from qdqc.calibration.masking import Masking
from qdqc.ir.graph import Module
from qdqc.ops import Sigmoid, Softmax
from qdqc.runtime.sessions.session import Runner
from qdqc.search.auto.judge import Judge, judged_by
from qdqc.search.trials.mixed_models import MixedModels


def pairs_of(module: Module, samples: list[Any]) -> tuple[Module, list[Any], list[Any]]:
    """The INT8 module, and the outputs of it and of the float one."""
    lowered = MixedModels(module).lowered(table_of(module, samples))
    exact, ours = Runner(module, threads=1), Runner(lowered, threads=1)
    return lowered, [ours.run(s)["y"] for s in samples], [exact.run(s)["y"] for s in samples]


def test_the_sqnr_is_that_of_all_samples_and_sure_is_less_by_its_standard_error() -> None:
    module = residual()
    samples = samples_of(module, 6)
    lowered, ours, exact = pairs_of(module, samples)
    quality, seconds = Judge(module, ["y"], samples).judged(lowered)
    both = list(zip(ours, exact, strict=True))
    noise = np.array([np.square(a.astype(float) - b).sum() for a, b in both])
    signal = np.array([np.square(b.astype(float)).sum() for b in exact])
    share = noise.sum() / signal.sum()
    error = math.sqrt(6 / 5 * np.square(noise - share * signal).sum()) / signal.sum()
    assert quality.sqnr == pytest.approx(-10 * math.log10(share), abs=1e-3)
    assert quality.sure == pytest.approx(-10 * math.log10(share + error), abs=1e-3)
    assert quality.score == quality.sure
    assert seconds > 0


def test_one_sample_has_no_error_and_the_float_model_no_noise() -> None:
    module = residual()
    samples = samples_of(module, 1)
    lowered, *_ = pairs_of(module, samples)
    judge = Judge(module, ["y"], samples)
    quality, _ = judge.judged(lowered)
    assert quality.sure == quality.sqnr < math.inf
    assert judge.judged(module)[0].sqnr == math.inf


def test_positions_that_a_mask_leaves_out_do_not_count() -> None:
    module = residual()
    samples = [{**s, "kept": np.array([[1, 0]])} for s in samples_of(module, 2)]

    class Second(Masking):
        def kept(self, name: str, array: Any, sample: Any) -> Any:
            return array[:, :1]

    lowered, ours, exact = pairs_of(module, samples)
    quality, _ = Judge(module, ["y"], samples, masking=Second("kept", {})).judged(lowered)
    both = [(a[:, :1].astype(float), b[:, :1]) for a, b in zip(ours, exact, strict=True)]
    noise = sum(np.square(a - b).sum() for a, b in both)
    signal = sum(np.square(b.astype(float)).sum() for _, b in both)
    assert quality.sqnr == pytest.approx(-10 * math.log10(noise / signal), abs=1e-3)


def test_a_module_that_onnxruntime_refuses_is_worth_nothing(monkeypatch: Any) -> None:
    module = residual()
    judge = Judge(module, ["y"], samples_of(module, 2))
    other = residual()
    other.graph.drop_inputs([])
    next(n for n in other.graph.nodes() if n.name == "y").op = Softmax(axis=7)
    quality, seconds = judge.judged(other)
    assert quality.score == -math.inf
    assert seconds == math.inf


def test_a_few_saturated_numbers_are_judged_before_their_sigmoid_as_well() -> None:
    net = Net(1, 4, 8, 8)
    logit = net.conv("logit", net.x, 1)
    module = net.returns(net.op("y", Sigmoid(), logit))
    assert judged_by(module) == ["y"]  # rows of eight
    few = Net(1, 4, 2, 2)
    module = few.returns(few.op("y", Sigmoid(), few.conv("logit", few.x, 1)))
    assert judged_by(module) == ["y", "logit"]
