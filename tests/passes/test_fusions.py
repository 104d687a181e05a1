"""fuse-pad, fuse-batchnorm and fuse-activation under onnxruntime, before and after."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdqc.onnx_io.importer import import_onnx

RNG = np.random.default_rng(3)


def module(body: str, constants: str = "", x: str = "2,4,7,7", outputs: str = "%y") -> str:
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %w : f32[6,4,3,3] = random
  const %b : f32[6] = random
  {constants}
  graph (%x : f32[{x}]) -> ({outputs}) {{
    {body}
  }}
}}"""


PADS = "const %p : i64[8] = dense[0, 0, 1, 2, 0, 0, 0, 1]"
PADDED = '%a = pad(%x, %p) : f32[2,4,8,10] loc("/pad")'


@pytest.mark.parametrize("own", ["", ", pads = [1, 0, 2, 1]"])
@pytest.mark.parametrize("bias", ["", ", %b"])
def test_zero_padding_moves_into_a_convolution(rewritten: Any, own: str, bias: str) -> None:
    size = "9,9" if own else "6,8"
    body = f"""{PADDED}
    %y = conv(%a, %w{bias}) {{strides = [1, 1]{own}}} : f32[2,6,{size}] loc("/conv")"""
    done = rewritten(module(body, PADS), "infer-shapes,fuse-pad")
    assert done.ops == ["conv"]
    assert done.node("y").loc.names == ("/pad", "/conv")
    assert done.node("y").op.pads == ((2, 2, 2, 2) if own else (1, 2, 0, 1))


@pytest.mark.parametrize("counted", ["", ", count_include_pad = true, pads = [1, 1, 1, 1]"])
def test_zero_padding_moves_into_an_average_pool(rewritten: Any, counted: str) -> None:
    size = "8,10" if counted else "6,8"
    body = f"""{PADDED}
    %y = average_pool(%a) {{kernel_shape = [3, 3]{counted}}} : f32[2,4,{size}]"""
    # Windows of 3 take 2 at most on a side: onnxruntime refuses wider padding.
    pads = PADS if not counted else PADS.replace("1, 2", "1, 1")
    body = body if not counted else body.replace("8,10", "8,9")
    done = rewritten(module(body, pads), "infer-shapes,fuse-pad")
    assert done.ops == ["average_pool"]
    assert done.node("y").op.count_include_pad


@pytest.mark.parametrize(
    ("constants", "body"),
    [
        (PADS, '%a = pad(%x, %p) {mode = "reflect"} : f32[2,4,8,10]'),
        (PADS, '%a = pad(%x, %p) {mode = "edge"} : f32[2,4,8,10]'),
        (f"{PADS}\n  const %v : f32[] = dense[0.5]", "%a = pad(%x, %p, %v) : f32[2,4,8,10]"),
        (
            "const %p : i64[8] = dense[0, 0, 1, 2, 0, 0, 0, -1]",
            "%a = pad(%x, %p) : f32[2,4,8,8]",
        ),
        (
            "const %p : i64[8] = dense[0, 0, 1, 2, 1, 0, 0, 1]",
            "%a = pad(%x, %p) : f32[3,4,8,10]",
        ),
        (
            "const %p : i64[4] = dense[1, 1, 2, 0]\n  const %ax : i64[2] = dense[2, 3]",
            "%a = pad(%x, %p, none, %ax) : f32[2,4,10,8]",
        ),
    ],
)
def test_padding_that_stays(rewritten: Any, constants: str, body: str) -> None:
    shape = body.rpartition("[")[2].rstrip("]").split(",")
    n, h, w = int(shape[0]), int(shape[2]) - 2, int(shape[3]) - 2
    conv = f"\n%y = conv(%a, %w) : f32[{n},6,{h},{w}]"
    text = module(body + conv, constants).replace('"" = 17', '"" = 18')
    assert rewritten(text, "infer-shapes,fuse-pad").ops == ["pad", "conv"]


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        ("kernel_shape = [3, 3], strides = [2, 2], ceil_mode = true", "4,5"),
        ("kernel_shape = [3, 3], pads = [1, 1, 1, 1]", "8,10"),  # its own zeros do not count
        ("kernel_shape = [2, 2]", "7,9"),  # padding as wide as the window
    ],
)
def test_pooling_that_keeps_its_pad(rewritten: Any, pool: str, size: str) -> None:
    body = f"{PADDED}\n%y = average_pool(%a) {{{pool}}} : f32[2,4,{size}]"
    assert rewritten(module(body, PADS), "infer-shapes,fuse-pad").ops == ["pad", "average_pool"]


def test_padding_that_others_read_stays(rewritten: Any) -> None:
    body = f"{PADDED}\n%y = conv(%a, %w) : f32[2,6,6,8]"
    done = rewritten(module(body, PADS, outputs="%a, %y"), "fuse-pad")
    assert done.ops == ["pad", "conv"]


BN = """const %g : f32[6] = random
  const %o : f32[6] = random
  const %m : f32[6] = random
  const %v : f32[6] = dense[0.5, 1, 0.01, 2, 0.3, 1e-6]"""
BATCHNORM = "batch_normalization(%a, %g, %o, %m, %v)"


@pytest.mark.parametrize("bias", ["", ", %b"])
@pytest.mark.parametrize("epsilon", ["1e-5", "0.1"])
def test_a_batchnorm_behind_a_convolution(rewritten: Any, bias: str, epsilon: str) -> None:
    body = f"""%a = conv(%x, %w{bias}) : f32[2,6,5,5] loc("/conv")
    %y = {BATCHNORM} {{epsilon = {epsilon}}} : f32[2,6,5,5] loc("/bn")"""
    done = rewritten(module(body, BN), "fuse-batchnorm")
    assert done.ops == ["conv"]
    assert done.node("y").loc.names == ("/conv", "/bn")


@pytest.mark.parametrize(("op", "group"), [("conv", 2), ("conv_transpose", 1)])
def test_a_batchnorm_behind_other_convolutions(rewritten: Any, op: str, group: int) -> None:
    shape = "6,2,3,3" if op == "conv" else "4,6,3,3"
    size = "5,5" if op == "conv" else "9,9"
    body = f"""%a = {op}(%x, %k, %b) {{group = {group}}} : f32[2,6,{size}]
    %y = batch_normalization(%a, %g, %o, %m, %v) : f32[2,6,{size}]"""
    done = rewritten(module(body, f"{BN}\n  const %k : f32[{shape}] = random"), "fuse-batchnorm")
    assert done.ops == [op]


def test_a_bias_that_is_a_sum_of_its_own_keeps_no_batchnorm_away(rewritten: Any) -> None:
    """Paddle writes conv_transpose, add, batch_normalization, relu."""
    body = """%a = conv(%x, %w) : f32[2,6,5,5]
    %b1 = add(%a, %c) : f32[2,6,5,5]
    %n = batch_normalization(%b1, %g, %o, %m, %v) : f32[2,6,5,5]
    %y = relu(%n) : f32[2,6,5,5]"""
    constant = "const %c : f32[1,6,1,1] = random"
    assert rewritten(module(body, f"{BN}\n  {constant}"), "@transform").ops == ["conv"]


def test_a_shared_weight_is_scaled_for_one_reader_only(rewritten: Any) -> None:
    body = """%a = conv(%x, %w, %b) : f32[2,6,5,5]
    %n = batch_normalization(%a, %g, %o, %m, %v) : f32[2,6,5,5]
    %c = conv(%x, %w, %b) {strides = [1, 1]} : f32[2,6,5,5]
    %y = add(%n, %c) : f32[2,6,5,5]"""
    assert rewritten(module(body, BN), "fuse-batchnorm").ops == ["conv", "conv", "add"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("%a = conv(%x, %w, %b) : f32[2,6,5,5]", "%a, %y"),
        ("%a = conv(%x, %w, %b) {clamp = [0, inf]} : f32[2,6,5,5]", "%y"),
        ("%a = conv_transpose(%x, %k) {group = 2} : f32[2,6,9,9]", "%y"),
    ],
)
def test_a_batchnorm_that_stays(rewritten: Any, body: str, outputs: str) -> None:
    size = body.rpartition("[")[2].rstrip("]")
    body += f"\n%y = batch_normalization(%a, %g, %o, %m, %v) : f32[{size}]"
    constants = f"{BN}\n  const %k : f32[4,3,3,3] = random"
    assert len(rewritten(module(body, constants, outputs=outputs), "fuse-batchnorm").ops) == 2


@pytest.mark.parametrize(
    ("producer", "shape"),
    [
        ("conv(%x, %w, %b)", "2,6,5,5"),
        ("conv_transpose(%x, %k)", "2,3,9,9"),
        ("add(%x, %c)", "2,4,7,7"),
        ("mul(%x, %c)", "2,4,7,7"),
        ("matmul(%x, %d)", "2,4,7,3"),
    ],
)
@pytest.mark.parametrize(
    ("activation", "clamp"),
    [("relu(%a)", (0.0, math.inf)), ("clip(%a) {min = -0.5, max = 0.75}", (-0.5, 0.75))],
)
def test_an_activation_behind_its_producer(
    rewritten: Any, producer: str, shape: str, activation: str, clamp: tuple[float, float]
) -> None:
    constants = """const %k : f32[4,3,3,3] = random
  const %c : f32[4,1,1] = random
  const %d : f32[7,3] = random"""
    body = f"""%a = {producer} : f32[{shape}] loc("/first")
    %y = {activation} : f32[{shape}] loc("/second")"""
    done = rewritten(module(body, constants), "fuse-activation")
    assert len(done.ops) == 1
    assert done.node("y").op.clamp == clamp
    assert done.node("y").loc.names == ("/first", "/second")


def test_an_activation_behind_a_gemm(rewritten: Any) -> None:
    body = "%a = gemm(%x, %d) : f32[5,3]\n%y = relu(%a) : f32[5,3]"
    done = rewritten(module(body, "const %d : f32[7,3] = random", x="5,7"), "fuse-activation")
    assert done.ops == ["gemm"]


@pytest.mark.parametrize(
    ("first", "second", "clamp"),
    [
        ("relu(%a)", "clip(%r) {max = 0.5}", (0, 0.5)),
        ("clip(%a) {min = -0.5, max = 0.5}", "relu(%r)", (0, 0.5)),
        ("clip(%a) {min = -2, max = -1}", "relu(%r)", (0, 0)),
        ("relu(%a)", "clip(%r) {min = -2, max = -1}", (-1, -1)),
        ("clip(%a) {min = 1, max = 2}", "clip(%r) {min = -1, max = 0.5}", (0.5, 0.5)),
    ],
)
def test_activations_in_a_row(
    rewritten: Any, first: str, second: str, clamp: tuple[float, float]
) -> None:
    body = f"""%a = conv(%x, %w, %b) : f32[2,6,5,5]
    %r = {first} : f32[2,6,5,5]
    %y = {second} : f32[2,6,5,5]"""
    done = rewritten(module(body), "fuse-activation")
    assert done.ops == ["conv"]
    assert done.node("y").op.clamp == clamp


@pytest.mark.parametrize(
    ("body", "outputs", "ops"),
    [
        ("%a = conv(%x, %w) : f32[2,6,5,5]\n%y = relu(%a) : f32[2,6,5,5]", "%a, %y", 2),
        ("%a = tanh(%x) : f32[2,4,7,7]\n%y = relu(%a) : f32[2,4,7,7]", "%y", 2),
        ("%y = relu(%x) : f32[2,4,7,7]", "%y", 1),
        (
            """%a = conv(%x, %w) : f32[2,6,5,5]
            %b2 = relu(%a) : f32[2,6,5,5]
            %y = add(%a, %b2) : f32[2,6,5,5]""",
            "%y",
            3,
        ),
    ],
)
def test_an_activation_that_stays(rewritten: Any, body: str, outputs: str, ops: int) -> None:
    assert len(rewritten(module(body, outputs=outputs), "fuse-activation").ops) == ops


def test_an_activation_on_integers(rewritten: Any) -> None:
    body = "%a = add(%i, %i) : i32[4]\n%r = relu(%a) : i32[4]\n%y = sub(%r, %i) : i32[4]"
    text = module(body).replace("%x : f32[2,4,7,7]", "%i : i32[4]")
    rewritten(text, "fuse-activation")


def test_what_is_outside_a_branch_stays_there(rewritten: Any) -> None:
    """A convolution that only a branch reads is computed where it stood: it can be quantized."""
    body = """%a = conv(%x, %w, %b) : f32[2,6,5,5]
    %y = if(%c) : f32[2,6,5,5] {
      graph () -> (%t) { %t = relu(%a) : f32[2,6,5,5] }
      graph () -> (%e) { %e = neg(%z) : f32[2,6,5,5] }
    }"""
    text = module(body).replace("(%x :", "(%c : bool[], %z : f32[2,6,5,5], %x :")
    assert rewritten(text, "fuse-activation,fuse-batchnorm").ops == ["conv", "if"]


def onnx_block() -> onnx.ModelProto:
    """Pad, Conv, BatchNormalization, Clip as an exporter writes them, with a training leftover."""
    held = {
        "w": RNG.normal(0, 1, (4, 3, 3, 3)),
        "s": RNG.normal(1, 0.2, 4),
        "b": RNG.normal(0, 1, 4),
        "m": RNG.normal(0, 1, 4),
        "v": RNG.uniform(0.1, 2, 4),
    }
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in held.items()]
    tensors += [
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "p"),
        numpy_helper.from_array(np.float32(0), "lo"),
        numpy_helper.from_array(np.float32(6), "hi"),
    ]
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["xp"], "pad"),
        helper.make_node("Conv", ["xp", "w"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "bn"),
        helper.make_node("Clip", ["n", "lo", "hi"], ["y"], "clip"),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_an_exported_block_becomes_one_node(rewritten: Any) -> None:
    done = rewritten(import_onnx(onnx_block()), "@transform")
    assert done.ops == ["conv"]
    node = done.node("y")
    assert node.loc.names == ("pad", "conv", "bn", "clip")
    assert (node.op.pads, node.op.clamp) == ((1, 1, 1, 1), (0, 6))
