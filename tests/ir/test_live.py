"""Live domains: beyond them no reader of a value changes what it gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qdqc.ir.live import live_domains
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

INF = math.inf


def domains(body: str, outputs: str = "%y") -> dict[str, tuple[float, float]]:
    text = f"module @m {{ graph (%x : f32[1,2,4,4]) -> ({outputs}) {{\n{body}\n}} }}"
    return {v.name: d for v, d in live_domains(parse_module(text).graph).items()}


T = ": f32[1,2,4,4]"


@pytest.mark.parametrize(
    ("reader", "domain"),
    [
        (f"%y = relu(%a) {T}", (0.0, INF)),
        (f"%y = clip(%a) {{min = -2, max = 5}} {T}", (-2.0, 5.0)),
        (f"%y = hard_swish(%a) {T}", (-3.0, INF)),
        (f"%y = hard_sigmoid(%a) {{alpha = 0.25}} {T}", (-2.0, 2.0)),
        (f"%y = hard_sigmoid(%a) {{alpha = -0.25}} {T}", (-2.0, 2.0)),
        (f"%y = sigmoid(%a) {T}", None),
        (f"%y = prelu(%a, %a) {T}", None),
    ],
)
def test_what_a_reader_tells_apart(reader: str, domain: tuple[float, float] | None) -> None:
    assert domains(f"%a = sin(%x) {T}\n{reader}").get("a") == domain


def test_the_domain_of_several_readers_holds_all_of_theirs() -> None:
    body = f"%a = sin(%x) {T}\n%b = relu(%a) {T}\n%c = hard_swish(%a) {T}\n%y = add(%b, %c) {T}"
    assert domains(body) == {"a": (-3.0, INF)}
    assert domains(f"{body}\n%z = add(%a, %y) {T}", "%z") == {}
    assert domains(body, "%y, %a") == {}


def test_what_moves_elements_has_the_domain_behind_it() -> None:
    body = (
        f"%a = sin(%x) {T}\n"
        "%b = transpose(%a) {perm = [0, 1, 3, 2]} : f32[1,2,4,4]\n"
        "%c = max_pool(%b) {kernel_shape = [2, 2]} : f32[1,2,3,3]\n"
        "%y = clip(%c) {max = 6, min = 0} : f32[1,2,3,3]"
    )
    assert domains(body) == dict.fromkeys("abc", (0.0, 6.0))


@pytest.mark.parametrize("op", ["relu", "hard_swish", "hard_sigmoid", "clip"])
def test_clipping_to_it_changes_nothing(op: str) -> None:
    options = " {min = -0.5, max = 1.5}" if op == "clip" else ""
    text = f"module @m {{ graph (%x : f32[1,2,4,4]) -> (%y) {{ %y = {op}(%x){options} {T} }} }}"
    module = parse_module(text)
    ((_, (low, high)),) = live_domains(module.graph).items()
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32) * 8
    runner = Runner(module)
    exact, bounded = (runner.run({"x": v})["y"] for v in (x, np.clip(x, low, high)))
    np.testing.assert_allclose(bounded, exact, atol=1e-6)
