"""The mask among the inputs is found by its use, and what only looks like one is not."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.calibration.found_mask import found_mask, shows_padding
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

HEAD = """module @text {opsets = {"" = 23}} {
  const %one : f32[] = dense[1]
  const %zero : f32[] = dense[0]
  const %two : f32[] = dense[2]
  const %izero : ELEM[] = dense[0]
  const %far : f32[] = dense[-10000]
  const %high : f32[] = dense[10000]
  const %lowest : f32[] = dense[-3.4028235e38]
  const %w : f32[8,8] = dense[WEIGHTS]
  const %bias : f32[1,1,4,4] = dense[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
  const %causal : f32[1,1,4,4] = dense[CAUSAL]
  const %true : bool[1,1,4,4] = dense[TRUE]
  graph (%x : f32[N,4,8], %m : ELEM[N,4]) -> (%y OUTPUTS) {
    %k = transpose(%x) {perm = [0, 2, 1]} : f32[N,8,4]
    %s0 = matmul(%x, %k) : f32[N,4,4]
    %s = unsqueeze(%s0) {axes = [1]} : f32[N,1,4,4]
    %v = unsqueeze(%x) {axes = [1]} : f32[N,1,4,8]
"""
TAIL = """
    %p = softmax(%t) : f32[N,1,4,4]
    %y = matmul(%p, %v) : f32[N,1,4,8]
  }
}"""

UP = "%u = unsqueeze(%m) {axes = [1, 2]} : ELEM[N,1,1,4]\n"
FLOAT = UP + '%f = cast(%u) {to = "f32"} : f32[N,1,1,4]\n'
BOOL = UP + '%c = cast(%u) {to = "bool"} : bool[N,1,1,4]\n'
TURNED = FLOAT + "%i = sub(%one, %f) : f32[N,1,1,4]\n"
ADDED = TURNED + "%a = mul(%i, %far) : f32[N,1,1,4]\n"
SUM = "%t = add(%s, %a) : f32[N,1,4,4]"

ATTENTION = "%y = attention(%v, %v, %v, %d) : f32[N,1,4,8]\n  }\n}"

MASKS = {
    "(1 - m) * -10000 is added": ADDED + SUM,
    "the scores are scaled between": ADDED
    + "%b = add(%s, %a) : f32[N,1,4,4]\n%t = div(%b, %two) : f32[N,1,4,4]",
    "(1 - m) * 10000 is subtracted": TURNED
    + "%a = mul(%i, %high) : f32[N,1,1,4]\n%t = sub(%s, %a) : f32[N,1,4,4]",
    "where m, the scores, else the lowest": BOOL + "%t = where(%c, %s, %lowest) : f32[N,1,4,4]",
    "where m = 0, the lowest": UP
    + "%c = equal(%u, %izero) : bool[N,1,1,4]\n%t = where(%c, %lowest, %s) : f32[N,1,4,4]",
    "where not m, what is added is the lowest": BOOL
    + "%n = not(%c) : bool[N,1,1,4]\n%a = where(%n, %lowest, %zero) : f32[N,1,1,4]\n"
    + SUM,
    "together with what is causal": BOOL
    + "%d = and(%c, %true) : bool[N,1,4,4]\n%a = where(%d, %zero, %lowest) : f32[N,1,4,4]\n"
    + SUM,
    "added to a bias of positions": ADDED
    + "%b = add(%a, %bias) : f32[N,1,4,4]\n%t = add(%s, %b) : f32[N,1,4,4]",
    "the least of it and what is causal": ADDED
    + "%b = min(%a, %causal) : f32[N,1,4,4]\n%t = add(%s, %b) : f32[N,1,4,4]",
    "an operand of attention, truths": BOOL + "%d = and(%c, %true) : bool[N,1,4,4]\n" + ATTENTION,
    "an operand of attention, numbers": ADDED + "%d = add(%a, %bias) : f32[N,1,4,4]\n" + ATTENTION,
    "hidden states are cleared as well": ADDED
    + "%g = unsqueeze(%m) {axes = [1, 3]} : ELEM[N,1,4,1]\n"
    + '%h = cast(%g) {to = "f32"} : f32[N,1,4,1]\n%j = mul(%s, %h) : f32[N,1,4,4]\n'
    + "%t = add(%j, %a) : f32[N,1,4,4]",
}

OTHERS = {
    "it is 1 where there is padding": FLOAT + "%a = mul(%f, %far) : f32[N,1,1,4]\n" + SUM,
    "it is 1 where padding is selected": BOOL + "%t = where(%c, %lowest, %s) : f32[N,1,4,4]",
    "what is added is small": FLOAT + "%t = add(%s, %f) : f32[N,1,4,4]",
    "it chooses between values": BOOL
    + "%o = mul(%s, %two) : f32[N,1,4,4]\n%t = where(%c, %s, %o) : f32[N,1,4,4]",
    "it scales": FLOAT + "%t = mul(%s, %f) : f32[N,1,4,4]",
    "its exponent hides scores": FLOAT
    + "%e = exp(%f) : f32[N,1,1,4]\n%a = mul(%e, %far) : f32[N,1,1,4]\n"
    + SUM,
    "it is read as data as well": ADDED
    + "%e = unsqueeze(%m) {axes = [1, 3]} : ELEM[N,1,4,1]\n"
    + '%g = cast(%e) {to = "f32"} : f32[N,1,4,1]\n%b = add(%s, %g) : f32[N,1,4,4]\n'
    + "%t = add(%b, %a) : f32[N,1,4,4]",
    "only its shape is read": "%n = shape(%m) : i64[2]\n%t = identity(%s) : f32[N,1,4,4]",
    "nothing reads it": "%t = identity(%s) : f32[N,1,4,4]",
    "it is an output": ADDED + SUM,
}


LOWER = np.tri(4, dtype=bool).reshape(-1)
NUMBERS = {
    "WEIGHTS": np.random.default_rng(0).normal(size=64).round(3),
    "CAUSAL": np.where(LOWER, 0, -1e9),
    "TRUE": np.char.lower(LOWER.astype(str)),
}


def parsed(text: str, elem: str = "i64", outputs: str = "") -> Module:
    for name, numbers in NUMBERS.items():
        text = text.replace(name, ", ".join(map(str, numbers)))
    module = parse_module(text.replace("ELEM", elem).replace("OUTPUTS", outputs), verify=True)
    module.drop_unused_constants()
    return module


def text_of(body: str, elem: str = "i64", outputs: str = "") -> Module:
    tail = "" if "%y" in body else TAIL
    return parsed(HEAD + body + tail, elem, outputs)


@pytest.mark.parametrize("elem", ["i64", "i32"])
@pytest.mark.parametrize("body", MASKS)
def test_masks_are_found(body: str, elem: str) -> None:
    assert found_mask(text_of(MASKS[body], elem).graph) == "m"


@pytest.mark.parametrize("body", MASKS)
def test_what_is_found_does_hide_what_stands_at_zeros(body: str) -> None:
    """The judge is onnxruntime: other numbers at padding change no result at the rest."""
    runner = Runner(text_of(MASKS[body]), optimise="off")
    x = np.random.default_rng(1).normal(size=(2, 4, 8)).astype(np.float32)
    other = x.copy()
    other[:, 2:] += 1
    m = np.array([[1, 1, 0, 0]] * 2)
    kept = [runner.run({"x": v, "m": m})["y"][:, :, :2] for v in (x, other)]
    np.testing.assert_allclose(kept[0], kept[1], atol=1e-6)


@pytest.mark.parametrize("body", OTHERS)
def test_what_is_no_mask_is_not_found(body: str) -> None:
    outputs = ", %a" if "output" in body else ""
    assert found_mask(text_of(OTHERS[body], outputs=outputs).graph) is None


def test_a_mask_of_floats() -> None:
    body = "%f = unsqueeze(%m) {axes = [1, 2]} : f32[N,1,1,4]\n"
    rest = "%i = sub(%one, %f) : f32[N,1,1,4]\n%a = mul(%i, %far) : f32[N,1,1,4]\n"
    assert found_mask(text_of(body + rest + SUM, "f32").graph) == "m"
    ready = text_of(body + "%t = add(%s, %f) : f32[N,1,4,4]", "f32")
    assert found_mask(ready.graph) is None


POOLED = """module @pooled {opsets = {"" = 23}} {
  const %w : f32[8,8] = dense[WEIGHTS]
  const %least : f32[] = dense[1e-9]
  graph (%x : f32[N,S,8], %m : i64[N,S]) -> (%y) {
    %h = matmul(%x, %w) : f32[N,S,8]
    %u = unsqueeze(%m) {axes = [2]} : i64[N,S,1]
    %f = cast(%u) {to = "f32"} : f32[N,S,1]
    %k = mul(%h, %f) : f32[N,S,8]
    %sum = reduce_sum(%k) {axes = [1], keepdims = false} : f32[N,8]
    %n = reduce_sum(%f) {axes = [1], keepdims = false} : f32[N,1]
    %c = max(%n, %least) : f32[N,1]
    %q = div(%sum, %c) : f32[N,8]
    %y = OP(%q) : f32[N,8]
  }
}"""


def pooled(op: str = "tanh") -> Module:
    return parsed(POOLED.replace("OP", op))


def test_weights_of_a_mean_over_positions() -> None:
    """Where positions look at each other, what is pooled says nothing of what they look at."""
    assert found_mask(pooled().graph) == "m"
    assert found_mask(pooled("softmax").graph) is None


def test_positions_are_those_of_another_input() -> None:
    alone = POOLED.replace("%m : i64[N,S]", "%m : i64[N,R]").replace("[N,S,1]", "[N,R,1]")
    assert found_mask(parsed(alone.replace("OP", "tanh")).graph) is None


def test_of_two_masks_none_is_taken() -> None:
    body = ADDED + SUM.replace("%t", "%t0")
    second = (
        "\n%u2 = unsqueeze(%m2) {axes = [1, 2]} : i64[N,1,1,4]\n"
        '%c2 = cast(%u2) {to = "bool"} : bool[N,1,1,4]\n'
        "%t = where(%c2, %t0, %lowest) : f32[N,1,4,4]"
    )
    head = HEAD.replace("%m : ELEM[N,4]", "%m : ELEM[N,4], %m2 : i64[N,4]")
    assert found_mask(parsed(head + body + second + TAIL).graph) is None


@pytest.mark.parametrize(
    ("masks", "shows"),
    [
        ([[1, 1, 0], [1, 1, 1]], True),
        ([[1, 1, 1], [1, 1, 1]], False),  # nothing is padded
        ([[1, 1, 0], [2, 1, 1]], False),
        ([[1, 1, 0], [0, 0, 0]], False),  # of a sample nothing would be left
        ([], False),
    ],
)
def test_what_data_say_of_a_mask(masks: list[list[int]], shows: bool) -> None:
    for elem in (np.int64, np.float32):
        samples = [{"m": np.array([m], elem)} for m in masks]
        assert shows_padding(samples, "m") is shows
