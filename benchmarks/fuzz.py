"""Mutated models and mutated IR text: each is read or refused with a located error.

    python benchmarks/fuzz.py [--count 10000] [--seed 0] [--jobs 2]

A model's bytes are flipped, or fields of its messages dropped, doubled, swapped and altered; what
comes in goes through @transform, print, parse and export. A process that dies, a traceback or a
case of more than ten seconds fails, and its number with the seed makes it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from qdqc.ir.graph import Module

__all__ = ["imported", "main", "mutated_model", "mutated_text", "seeds"]

_LIMIT = 10
_CHUNK = 100
_WORD = re.compile(r"(?P<value>%[\w.]+)|(?P<number>-?\d+(\.\d+)?)|(?P<word>[a-z_]\w*)")
_ODD = ("0", "-1", "2", "99999999999")


def main(argv: Sequence[str] | None = None) -> int:
    """Run both fuzzers; 1 when one case does what it may not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args(argv)
    bad = 0
    for kind in ("models", "texts"):
        start = time.perf_counter()
        total: Counter[str] = Counter()
        chunks = range(0, args.count, _CHUNK)
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
            work = [pool.submit(_chunk, kind, args.seed, c, args.count) for c in chunks]
            for first, found in zip(chunks, work, strict=True):
                try:
                    counts, wrong = found.result()
                except Exception as error:
                    counts, wrong = Counter(), [f"from case {first} on: {error!r}"]
                total += counts
                bad += len(wrong)
                for line in wrong[:5]:
                    print(f"seed {args.seed}, {kind}, {line}")
        seconds = time.perf_counter() - start
        print(f"{kind}: {dict(sorted(total.items()))} in {seconds:.0f} s")
    return 1 if bad else 0


def _chunk(kind: str, seed: int, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """Cases from ``first`` on: counts of what came of them, and what must not be."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for case in range(first, min(first + _CHUNK, count)):
        rng = random.Random(f"{seed}/{kind}/{case}")
        signal.alarm(_LIMIT)
        try:
            counts[_one_model(rng) if kind == "models" else _one_text(rng)] += 1
        except Exception as error:
            wrong.append(f"case {case}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            signal.alarm(0)
    return counts, wrong


def _too_long(*_: object) -> None:
    raise TimeoutError(f"it took more than {_LIMIT} s")


def _one_model(rng: random.Random) -> str:
    import qdqc

    model = mutated_model(rng)
    if model is None:
        return "no protobuf"
    try:
        module = imported(model)
    except qdqc.QdqcError:
        return "refused"
    try:
        module = qdqc.run(module, "@transform")
        again = qdqc.from_text(qdqc.to_text(module), weights=module)
        qdqc.export_onnx(again)
    except qdqc.QdqcError:
        return "refused later"
    return "read"


def _one_text(rng: random.Random) -> str:
    import qdqc

    source = imported(rng.choice(seeds()))
    try:
        module = qdqc.from_text(mutated_text(rng, source), weights=source)
        qdqc.to_text(qdqc.run(module, "@transform"))
    except qdqc.QdqcError:
        return "refused"
    return "read"


def mutated_model(rng: random.Random) -> ModelProto | None:
    """A seed model with one to three changes; None where no protobuf is left."""
    model = ModelProto()
    model.CopyFrom(rng.choice(seeds()))
    if rng.random() < 0.3:
        data = bytearray(model.SerializeToString())
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            if rng.random() < 0.7:
                data[at] = rng.randrange(256)
            else:
                del data[at]
        try:
            return ModelProto.FromString(bytes(data))
        except DecodeError:
            return None
    for _ in range(rng.randint(1, 3)):
        _change(model, rng)
    return model


def _change(message: Message, rng: random.Random) -> None:
    """Alter a random field of a message, or of one inside it."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    repeated = hasattr(value, "append") or hasattr(value, "add")
    if repeated and len(value) and rng.random() < 0.3:
        at = rng.randrange(len(value))
        if rng.random() < 0.5:
            del value[at]
        else:
            value.append(value[at])
        return
    inner = value[rng.randrange(len(value))] if repeated and len(value) else value
    if isinstance(inner, Message):
        if rng.random() < 0.9:
            _change(inner, rng)
        else:
            message.ClearField(field.name)
    elif repeated and len(value):
        value[rng.randrange(len(value))] = _other(inner, rng)
    elif not repeated:
        try:
            setattr(message, field.name, _other(value, rng))
        except (TypeError, ValueError):
            message.ClearField(field.name)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([0, -1, 1, 2, value + 1, 1 << 20, (1 << 31) - 1, rng.randrange(40)])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    if isinstance(value, bytes):
        return value[: rng.randrange(len(value) + 1)]
    return rng.choice(
        ["", "x", "w", "y", "Add", "Reshape", "Loop", "ai.onnx", "../x", "link.bin", value * 2]
    )


def mutated_text(rng: random.Random, source: Module) -> str:
    """The text of a module with pieces cut, doubled, altered, or one word put for another.

    Most cut pieces are refused by the grammar; words for their like come further.
    """
    import qdqc

    text = qdqc.to_text(source)
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            words = list(_WORD.finditer(text))
            old = rng.choice(words)
            like = [w[0] for w in words if w.lastgroup == old.lastgroup]
            text = text[: old.start()] + rng.choice([*like, *_ODD]) + text[old.end() :]
        return text
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        length = rng.choice([1, 1, 2, 5, 20, 80])
        piece = text[at : at + length]
        other = rng.choice(
            ["", piece * 2, "9", "-", "%x", "f32[", ")", '"', "\0", "é", "none", "}"]
        )
        text = text[:at] + other + text[at + length :]
    return text


def seeds() -> list[ModelProto]:
    """Small models of several families; the last reads ``w.bin`` beside it."""
    made = [_convolutions(), _shapes(), _branches(), _quantized(), _functions(), _sparse()]
    return [*made, _external()]


def imported(model: ModelProto) -> Module:
    """The module of a model that lies in a folder beside ``w.bin`` and a link out of it."""
    import qdqc

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        (folder / "w.bin").write_bytes(np.ones(12, np.float32).tobytes())
        (folder / "link.bin").symlink_to("/etc/passwd")
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        return qdqc.import_onnx(folder / "m.onnx")


def _made(nodes: list[Any], inputs: list[Any], held: list[TensorProto]) -> ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _array(name: str, values: Any, kind: str = "f4") -> TensorProto:
    return numpy_helper.from_array(np.asarray(values).astype(kind), name)


def _convolutions() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="/conv"),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
        node("Clip", ["n", "low", "high"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["a"]),
        node("Flatten", ["a"], ["f"]),
        node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    held = [_array("w", np.ones((4, 3, 3, 3))), _array("s", np.ones(4)), _array("low", 0)]
    held += [_array("high", 6), _array("g", np.ones((5, 4)))]
    return _made(nodes, [_info("x", ["N", 3, 8, 8])], held)


def _shapes() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"], axis=0),
        node("Concat", ["b", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("Transpose", ["r"], ["u"], perm=[0, 2, 1]),
        node("MatMul", ["u", "w"], ["m"]),
        node("Add", ["m", "bias"], ["a"]),
        node("Slice", ["a", "zero", "two", "zero"], ["y"]),
    ]
    held = [_array("zero", [0], "i8"), _array("two", [2], "i8"), _array("rest", [4, -1], "i8")]
    held += [_array("w", np.ones((4, 6))), _array("bias", np.ones(6))]
    return _made(nodes, [_info("x", ["N", 2, 6])], held)


def _branches() -> ModelProto:
    node = helper.make_node
    body = helper.make_graph([node("Abs", ["x"], ["t"])], "b", [], [_info("t", None)])
    steps = helper.make_graph(
        [node("Add", ["v", "x"], ["o"]), node("Identity", ["k"], ["l"])],
        "loop",
        [_info("i", [], TensorProto.INT64), _info("k", [], TensorProto.BOOL), _info("v", [4])],
        [_info("l", [], TensorProto.BOOL), _info("o", [4])],
    )
    nodes = [
        node("If", ["c"], ["e"], then_branch=body, else_branch=body),
        node("Loop", ["count", "c", "e"], ["y"], body=steps),
    ]
    inputs = [_info("x", [4]), _info("c", [], TensorProto.BOOL)]
    return _made(nodes, inputs, [_array("count", 3, "i8")])


def _quantized() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["v"], axis=0),
        node("Conv", ["d", "v"], ["c"]),
        node("QuantizeLinear", ["c", "sx", "zx"], ["k"]),
        node("DequantizeLinear", ["k", "sx", "zx"], ["y"]),
    ]
    held = [_array("sx", 0.1), _array("zx", 3, "u1"), _array("w", np.ones((2, 3, 1, 1)), "i1")]
    held += [_array("sw", [0.1, 0.2]), _array("zw", [0, 0], "i1")]
    return _made(nodes, [_info("x", [1, 3, 4, 4])], held)


def _functions() -> ModelProto:
    """Calls with and without the attribute, and a function that calls the other."""
    node = helper.make_node
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    default = [helper.make_attribute("alpha", 0.25)]
    functions = [
        helper.make_function("f", "Leaky", ["a"], ["b"], [leaky], opsets, [], default),
        helper.make_function(
            "f",
            "Twice",
            ["a"],
            ["b"],
            [node("Leaky", ["a"], ["t"], domain="f"), node("Leaky", ["t"], ["b"], domain="f")],
            opsets,
        ),
    ]
    nodes = [
        node("Twice", ["x"], ["t"], domain="f"),
        node("Leaky", ["t"], ["y"], domain="f", alpha=0.5),
    ]
    made = _made(nodes, [_info("x", ["N", 3])], [])
    made.opset_import.append(opsets[1])
    made.functions.extend(functions)
    return made


def _sparse() -> ModelProto:
    """A sparse initializer, a sparse Constant, and a Scan over what they make."""
    node = helper.make_node
    indices = _array("i", [1, 4], "i8")
    held = helper.make_sparse_tensor(_array("s", [5, 7]), indices, [2, 3])
    other = helper.make_sparse_tensor(_array("v", [5, 7]), indices, [2, 3])
    body = helper.make_graph(
        [node("Add", ["h", "k"], ["n"]), node("Identity", ["n"], ["o"])],
        "scan",
        [_info("h", [3]), _info("k", [3])],
        [_info("n", [3]), _info("o", [3])],
    )
    nodes = [
        node("Constant", [], ["c"], sparse_value=other),
        node("Add", ["s", "c"], ["a"]),
        node("Scan", ["x", "a"], ["l", "y"], body=body, num_scan_inputs=1),
    ]
    made = _made(nodes, [_info("x", [3])], [])
    made.graph.sparse_initializer.append(held)
    return made


def _external() -> ModelProto:
    """Two weights in one file, at offsets that meet."""
    node = helper.make_node
    weights: list[TensorProto] = []
    for name, offset, shape in (("w", 0, (2, 3)), ("b", 24, (6,))):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        size = 4 * int(np.prod(shape))
        for key, value in (("location", "w.bin"), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Concat", ["m", "m"], ["j"], axis=1),
        node("Add", ["j", "b"], ["y"]),
    ]
    return _made(nodes, [_info("x", ["N", 2])], weights)


if __name__ == "__main__":
    raise SystemExit(main())
