"""Values computed from given numbers, against the nodes written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.graph import Module
from qdqc.quant.arithmetic import numbers
from qdqc.runtime.sessions.forced import ForcedRunner
from qdqc.runtime.sessions.session import Runner


def conv1x1(x: Any, w: Any) -> Any:
    return np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])


def constant(module: Module, name: str) -> Any:
    node = module.value(name).producer
    return numbers(node.operands[1])


def test_each_value_comes_from_the_given_ones(tiny: Module, samples: list[dict[str, Any]]) -> None:
    rng = np.random.default_rng(3)
    exact = Runner(tiny, ["r2", "c3"]).run(samples[0])
    given = {"x": samples[0]["x"], "r2": rng.random(exact["r2"].shape, np.float32)}
    given["c3"] = rng.random(exact["c3"].shape, np.float32)
    found = ForcedRunner(tiny, ["r2", "c3", "p"]).run(given | {"p": exact["c3"][:, :, :1, :1]})
    np.testing.assert_allclose(found["r2"], exact["r2"], atol=1e-5)
    wanted = conv1x1(given["r2"], constant(tiny, "c3"))
    np.testing.assert_allclose(found["c3"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["p"], given["c3"].mean(axis=(2, 3), keepdims=True), rtol=1e-5)


def test_given_values_are_rounded_as_the_module_holds_them(
    quantized: Module, samples: list[dict[str, Any]]
) -> None:
    held, made = quantized.value("r2").tensor.quant, quantized.value("c3").tensor.quant
    given = np.random.default_rng(4).random((4, 8, 8, 8), np.float32)
    runner = ForcedRunner(quantized, ["r2", "c3"])
    found = runner.run({"x": samples[0]["x"], "r2": given, "c3": given})["c3"]
    q = np.clip(np.rint(given / held.scale) + held.zero_point, 0, 255) - held.zero_point
    wanted = conv1x1(q * held.scale, constant(quantized, "c3"))
    low, high = ((end - made.zero_point) * made.scale for end in (0, 255))
    assert np.abs(found - np.clip(wanted, low, high)).max() <= 0.51 * float(made.scale)


def test_the_module_stays_as_it_is(tiny: Module) -> None:
    from qdqc.ir.clone import clone

    before = clone(tiny)
    ForcedRunner(tiny, ["r1", "y"])
    assert tiny == before


def test_names_that_no_node_makes_are_left_out(tiny: Module) -> None:
    assert ForcedRunner(tiny, ["x", "none", "p", "p"]).names == ["p"]
