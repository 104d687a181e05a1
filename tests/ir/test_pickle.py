"""Modules go to another process and come back equal, with their weights."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.loc import Loc, Position
from qdqc.ir.op import OPS
from qdqc.ir.types import Elem, OptionalType, Quant, Range, SequenceType, TensorType
from qdqc.ops import Add, Opaque, Relu, Shape
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @all {opsets = {"" = 17, "com.microsoft" = 1}, notes = ["a", "b"]} {
  const %w : f32[2] = dense[1, 2]
  const %i : i4[2,2] q(axis = 0, scale = [0.5, 0.25]) = dense[1, -2, 3, -8]
  const %s : string[2] = dense["a", "b"]
  const %big : f32[4,8] = elided("sha256:0123abcd")
  graph (%c : bool[], %x : f32[2] range(-1, 2, 2) {mean = [1, 2]}) -> (%y, %x) {
    %z = onnx(%x) {type = "Odd", domain = "my", label = "x", n = [1, 2]} : seq<f32[2]>
    %y = if(%c) : f32[2] {
      graph () -> (%t) {
        %t = add(%x, %w) {clamp = [0, inf]} : f32[2] mode(F32) loc("/t")
      }
      graph () -> (%e) {
        %e = relu(%x) : f32[2] range(0, 2, 2) loc("/e", "/f")
      }
    } loc("/if")
  }
}
"""


def back(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj))


def test_a_module_comes_back_equal() -> None:
    module = parse_module(TEXT)
    found = back(module)
    assert print_module(found) == print_module(module)
    assert found == module
    assert found.constants["i"].data.array().tolist() == [[1, -2], [3, -8]]
    assert found.graph.outputs[1].users == tuple(
        n for n in found.walk() if any(v.name == "x" for v in n.present_operands)
    )
    position = next(n for n in found.walk() if n.name == "t").loc.position
    assert position == next(n for n in module.walk() if n.name == "t").loc.position


def test_nothing_that_changes_is_shared_by_a_deep_copy() -> None:
    module = parse_module(TEXT)
    found = copy.deepcopy(module)
    found.graph.input_attrs["x"]["mean"] = 3
    found.header["notes"] = ()
    for node in found.walk():
        node.mode = "INT8"
    assert print_module(module) == TEXT
    assert found.constants["w"].data is module.constants["w"].data


def test_weights_are_in_the_pickle(tmp_path: Path) -> None:
    """A mapped file may be gone when the module comes back."""
    numbers = np.arange(1000, dtype=np.float32)
    path = tmp_path / "weights"
    numbers.tofile(path)
    mapped = np.memmap(path, np.uint8, "r")
    module = Module()
    constant = module.add_constant("w", Data(Elem.F32, (1000,), mapped))
    module.graph.set_outputs([constant])
    written = pickle.dumps(module)
    del module, constant, mapped
    path.unlink()
    array = pickle.loads(written).constants["w"].data.array()
    assert np.array_equal(array, numbers)
    assert not array.flags.writeable


def test_a_deep_graph_is_no_deep_pickle() -> None:
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (2,)))
    value = x
    for index in range(10_000):
        value = module.graph.insert(Relu(), [value], [x.type], [f"r{index}"]).result
    module.graph.set_outputs([value])
    found = back(module)
    assert len(found.graph) == 10_000
    assert found == module


def test_another_process_reads_it(tmp_path: Path) -> None:
    (tmp_path / "module").write_bytes(pickle.dumps(parse_module(TEXT)))
    script = (
        "import pathlib, pickle, sys\n"
        "module = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "from qdqc.text.printer import print_module\n"
        "sys.stdout.write(print_module(module))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "module")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == TEXT


def test_a_broken_module_comes_back_as_it_is() -> None:
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (2,)))
    first = module.graph.insert(Add(), [x, x], names=["a"])
    second = module.graph.insert(Relu(), [first.result], names=["b"])
    first.set_operand(1, second.result)
    module.graph.set_outputs([second.result])
    assert print_module(back(module)) == print_module(module)


QUANT = Quant.make([0.5, 0.25], [1, 2], axis=0)


@pytest.mark.parametrize(
    "obj",
    [
        *Elem,
        Range(-1.0, 2.0, 2.0),
        QUANT,
        TensorType(Elem.I8, (2, symbol("N") + 1, None), QUANT),
        SequenceType(OptionalType(TensorType(Elem.STRING))),
        Loc(("/a", "/b"), Position("m.qir", 3, 4)),
        Data.of(np.arange(3, dtype=np.int16)),
        Data.of(np.array([1, -2, 3]).astype(Elem.I4.dtype)),
        Data.of(["a", "b"]),
        Data.elided(Elem.F32, (4,), "0123"),
        Opaque(type="Odd", domain="my"),
    ],
    ids=lambda part: str(part).split(" object at")[0],
)
def test_parts_that_stand_alone(obj: Any) -> None:
    for found in (back(obj), copy.deepcopy(obj)):
        assert found == obj
        assert hash(found) == hash(obj)


def test_arrays_of_a_scale_stay_read_only() -> None:
    QUANT.digest  # noqa: B018 - what is worked out once is not carried along half
    for found in (back(QUANT), copy.deepcopy(QUANT)):
        assert not found.scale.flags.writeable
        assert not found.zero_point.flags.writeable


def test_contents_that_inference_knows_are_kept() -> None:
    module = Module()
    x = module.graph.add_input("x", TensorType(Elem.F32, (2, symbol("N"))))
    module.graph.set_outputs([module.graph.insert(Shape(), [x]).result])
    assert back(module).graph.outputs[0].tensor.value == (2, symbol("N"))


def test_what_is_part_of_a_module_does_not_leave_it() -> None:
    module = parse_module(TEXT)
    node = next(module.graph.nodes())
    parts = (module.constants["w"], node, node.result, module.graph)
    for part in parts:
        with pytest.raises(TypeError, match="part of a module"):
            pickle.dumps(part)
        with pytest.raises(TypeError, match="part of a module"):
            copy.deepcopy(part)


def test_every_op_class_is_found_by_its_name() -> None:
    for name in OPS.names():
        assert back(OPS[name]) is OPS[name]
