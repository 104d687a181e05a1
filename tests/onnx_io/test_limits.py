"""Wiring and sizes are checked before a native library sees a model."""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.memory import memory_bytes
from qdqc.onnx_io.importer import import_onnx
from qdqc.tools.arguments import memory
from qdqc.tools.model_transform import main

NEEDS_INFERENCE = helper.make_node("QuickGelu", ["x"], ["q"], domain="com.microsoft")
"""A node whose type only onnxruntime knows: it stands first, so it would be asked about."""


def model(*nodes: onnx.NodeProto, out: str = "y", **graph: Any) -> ModelProto:
    """A model of one float input x[N,4] that calls a function and asks the native libraries."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", out)]
    infos[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    call = helper.make_node("Twice", ["x"], ["t"], domain="f")
    whole = helper.make_graph([NEEDS_INFERENCE, call, *nodes], "g", infos[:1], infos[1:], **graph)
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 17), ("com.microsoft", 1), ("f", 1))]
    function = helper.make_function(
        "f", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets[:1]
    )
    return helper.make_model(whole, opset_imports=opsets, functions=[function], ir_version=8)


def branches(*inner: onnx.NodeProto) -> onnx.NodeProto:
    infos = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    held = helper.make_graph(list(inner), "b", [], infos)
    return helper.make_node("If", ["c"], ["y"], then_branch=held, else_branch=held)


def node(kind: str, reads: str, makes: str) -> onnx.NodeProto:
    return helper.make_node(kind, reads.split(), makes.split())


def weight(name: str, *shape: int) -> TensorProto:
    """A tensor that states a shape and holds nothing."""
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)


CONDITION = numpy_helper.from_array(np.array(True), "c")


def broken_function() -> ModelProto:
    made = model(node("Relu", "t", "y"))
    made.functions[0].node[0].input[1] = "nothing"
    return made


def recursive_function() -> ModelProto:
    made = model(node("Relu", "t", "y"))
    made.functions[0].node[0].op_type = "Twice"
    made.functions[0].node[0].domain = "f"
    del made.functions[0].node[0].input[1:]
    return made


BROKEN: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "a cycle": (lambda: model(node("Add", "t z", "y"), node("Neg", "y", "z")), "has a cycle"),
    "a name made twice": (lambda: model(node("Neg", "t", "y"), node("Abs", "t", "y")), "twice"),
    "a name made nowhere": (lambda: model(node("Neg", "no", "y")), "defined nowhere"),
    "a cycle in a branch": (
        lambda: model(
            branches(node("Add", "t z", "r"), node("Neg", "r", "z")), initializer=[CONDITION]
        ),
        "has a cycle",
    ),
    "a name that is out of sight": (
        lambda: model(branches(node("Neg", "no", "r")), initializer=[CONDITION]),
        "defined nowhere",
    ),
    "a function that reads nothing": (broken_function, "defined nowhere"),
    "a function that calls itself": (recursive_function, "calls itself"),
    "a shape that overflows": (
        lambda: model(node("Add", "t w", "y"), initializer=[weight("w", 1 << 40, 1 << 40)]),
        "overflows",
    ),
    "a negative shape": (
        lambda: model(node("Add", "t w", "y"), initializer=[weight("w", -4)]),
        "negative dimension",
    ),
    "weights over the limit": (
        lambda: model(node("Add", "t w", "y"), initializer=[weight("w", 1 << 18), weight("v", 1)]),
        "the weights of the model take 1048580 bytes, and the memory limit is 1048576",
    ),
}


@pytest.fixture
def natives(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the native entry points that were called."""
    called: list[str] = []
    places = (
        (onnx.inliner, "inline_local_functions"),
        (onnx.shape_inference, "infer_shapes"),
        (onnx.checker, "check_model"),
        (onnxruntime, "InferenceSession"),
    )
    for module, name in places:
        held = getattr(module, name)

        def record(*args: Any, _held: Any = held, _name: str = name, **kwargs: Any) -> Any:
            called.append(_name)
            return _held(*args, **kwargs)

        monkeypatch.setattr(module, name, record)
    return called


@pytest.mark.parametrize("name", BROKEN)
def test_checked_before_any_native_library(name: str, natives: list[str]) -> None:
    make, message = BROKEN[name]
    with pytest.raises(QdqcError, match=message):
        import_onnx(make(), memory_limit=1 << 20)
    assert natives == []


def test_a_sound_model_reaches_them(natives: list[str]) -> None:
    import_onnx(model(node("Add", "t q", "y")), memory_limit=1 << 20)
    assert {"inline_local_functions", "infer_shapes", "InferenceSession"} <= set(natives)


def test_an_input_over_the_limit() -> None:
    with pytest.raises(QdqcError, match="input 'x' takes 1600000 bytes"):
        import_onnx(model(node("Relu", "t", "y")), input_shapes=[[100000, 4]], memory_limit=1 << 20)


def test_a_result_over_the_limit_is_told_at_its_node() -> None:
    """A model of a hundred bytes may ask for any size."""
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 10]), "s")
    made = model(
        helper.make_node("ConstantOfShape", ["s"], ["big"], "/fill"),
        node("Add", "big t", "y"),
        initializer=[shape],
    )
    with pytest.raises(QdqcError) as caught:
        import_onnx(made, memory_limit=1 << 30)
    text = str(caught.value)
    assert "'ConstantOfShape': its result takes 4294967296 bytes" in text
    assert 'ONNX node "/fill"' in text
    assert "`memory_limit`" in text


def test_the_command_takes_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = numpy_helper.from_array(np.ones((4, 300), np.float32), "w")
    onnx.save(model(node("MatMul", "t w", "y"), initializer=[held]), "m.onnx")
    words = ["--model_def", "m.onnx", "--input_shapes", "[[2,4]]"]
    assert main([*words, "--memory_limit", "4.7KB"]) == 1
    assert "the weights of the model take 4800 bytes, and the memory limit is 4700" in (
        capsys.readouterr().err
    )
    assert main([*words, "--memory_limit", "4.7KiB"]) == 0
    assert main(words) == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("2KB", 2000),
        ("2k", 2000),
        ("1.5GiB", 3 << 29),
        ("1 T", 10**12),
        ("3mib", 3 << 20),
    ],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "1X", "1e9", "1 G G"])
def test_what_is_no_size_of_memory(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a size of memory"):
        memory(text)


def test_the_machine_has_memory() -> None:
    found = memory_bytes()
    assert found is None or found > 1 << 26


def test_counts_in_attributes_allocate_nothing() -> None:
    """A Scan may claim two billion slices; the memory for so many is never asked for."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "hk"]
    made = helper.make_tensor_value_info("n", TensorProto.FLOAT, [3])
    body = helper.make_graph([node("Add", "h k", "n")], "b", infos, [made])
    scan = helper.make_node("Scan", ["x", "t"], ["y"], body=body, num_scan_inputs=(1 << 31) - 1)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, limits[1]))
    try:
        with pytest.raises(QdqcError, match="scans 2147483647 of its 2 operands"):
            import_onnx(model(scan))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
