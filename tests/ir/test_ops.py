"""What the base class of ops gives to a subclass, and where a node came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from typing import Any

import pytest

from qdqc.ir.graph import Module
from qdqc.ir.loc import UNKNOWN, Loc, Position
from qdqc.ir.op import OPS, Kind, Op, OperandSpec, QuantTraits
from qdqc.ir.types import Elem, OptionalType, SequenceType, TensorType

F = TensorType(Elem.F32, (2,))


@pytest.fixture(autouse=True)
def scratch() -> Generator[None]:
    with OPS.scratch():
        yield


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x", OperandSpec("x")),
        ("bias?", OperandSpec("bias", optional=True)),
        ("xs*", OperandSpec("xs", variadic=True)),
    ],
)
def test_operands_are_stated_as_text(text: str, spec: OperandSpec):
    assert OperandSpec.parse(text) == spec


def scaled() -> type[Any]:
    class Scale(Op):
        """Scales."""

        name, operands = "t.scale", ("x", "by?")
        factor: float = 1.0
        axes: tuple[int, ...] = ()

        def infer(self, x: TensorType, by: TensorType | None = None) -> tuple[TensorType]:
            return (x,)

    return Scale


def test_a_subclass_is_a_frozen_dataclass_and_registered():
    cls = scaled()
    assert OPS["t.scale"] is cls
    op = cls(factor=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        op.factor = 3.0
    with pytest.raises(TypeError):
        cls(2.0)
    assert [s.name for s in cls.operand_specs] == ["x", "by"]
    assert [s.name for s in cls.result_specs] == ["y"]


def test_a_class_without_a_name_is_shared_and_not_registered():
    before = OPS.names()

    class Shared(Op):
        axis: int = 0

    class Last(Shared):
        name = "t.last"

    assert OPS.names() == sorted([*before, "t.last"])
    assert Last(axis=3).axis == 3
    assert Last(axis=3) == Last(axis=3)


def test_ops_are_equal_by_what_they_print():
    cls = scaled()
    assert cls(factor=math.nan) == cls(factor=math.nan)
    assert cls(factor=0.0) != cls(factor=-0.0)
    assert cls(factor=1) == cls()
    assert cls(axes=(1,)) == cls(axes=[1])
    assert len({cls(), cls(factor=1.0), cls(factor=2.0)}) == 2
    assert cls() != "t.scale"


def test_another_class_with_the_same_attributes_is_another_op():
    class Twin(Op):
        name, operands = "t.twin", ("x",)
        factor: float = 1.0
        axes: tuple[int, ...] = ()

    assert scaled()(factor=2.0) != Twin(factor=2.0)


def test_what_an_op_does_not_say_it_does_not_know():
    class Silent(Op):
        name, operands = "t.silent", ("x",)

    assert Silent().quant(F) == QuantTraits(Kind.FLOAT)
    with pytest.raises(NotImplementedError, match=r"Silent\.infer"):
        Silent().infer(F)


@pytest.mark.parametrize("odd", [SequenceType(F), OptionalType(F)])
def test_an_operand_that_is_no_tensor_is_named(odd: Any):
    module = Module()
    found = module.graph.add_input("s", odd)
    with pytest.raises(ValueError, match=r"^x is (seq|opt)<f32\[2\]>, but a tensor is needed"):
        module.graph.insert(scaled()(), [found])
    assert not found.is_used


def test_ops_of_any_type_take_sequences():
    class Length(Op):
        name, operands, any_type = "t.length", ("s",), True

        def infer(self, s: Any) -> tuple[TensorType]:
            return (TensorType(Elem.I64, ()),)

    module = Module()
    found = module.graph.add_input("s", SequenceType(F))
    node = module.graph.insert(Length(), [found])
    assert node.result.type == TensorType(Elem.I64, ())
    with pytest.raises(TypeError, match="%s is not a tensor"):
        _ = found.tensor


def test_a_hole_among_any_number_of_operands_is_named():
    class Join(Op):
        name, operands = "t.join", ("x", "rest*")

        def infer(self, *xs: TensorType) -> tuple[TensorType]:
            return (xs[0],)

    module = Module()
    x = module.graph.add_input("x", F)
    module.graph.insert(Join(), [x, x, x])
    with pytest.raises(ValueError, match="operand 2 is absent, but none of 'rest' may be"):
        module.graph.insert(Join(), [x, x, None, x])


def test_an_operand_by_its_place():
    module = Module()
    x = module.graph.add_input("x", F)
    node = module.graph.insert(scaled()(), [x])
    assert (node.at(0), node.at(1), node.at(None), node.at(-1)) == (x, None, None, None)


def test_the_last_operand_that_is_taken_away_leaves_no_hole():
    module = Module()
    x = module.graph.add_input("x", F)
    node = module.graph.insert(scaled()(), [x, x])
    node.set_operand(1, None)
    assert node.operands == (x,)
    node.set_operands([x, x])
    node.set_operand(0, None)
    assert node.operands == (None, x)
    node.set_operand(1, None)
    assert node.operands == ()
    assert not x.is_used


HERE, THERE = Position("m.qir", 3, 7), Position("m.qir", 9, 1)


def test_locations_merge_in_order_and_without_repeats():
    merged = Loc(("a", "b")).merge(Loc(("b", "c")), UNKNOWN, Loc(("a", "d")))
    assert merged.names == ("a", "b", "c", "d")
    assert UNKNOWN.merge(UNKNOWN) == UNKNOWN
    assert Loc(("a",)).merge() == Loc(("a",))


def test_the_first_known_position_stays():
    assert Loc(("a",)).merge(Loc(("b",), THERE), Loc(("c",), HERE)).position == THERE
    assert Loc(("a",), HERE).merge(Loc(("b",), THERE)).position == HERE
    assert Loc().merge().position is None


def test_a_position_is_no_part_of_equality():
    assert Loc(("a",), HERE) == Loc(("a",), THERE)
    assert str(HERE) == "m.qir:3:7"
