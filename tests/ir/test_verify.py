"""The verifier finds what a careless pass breaks, and says it where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, Quant, Range, SequenceType, TensorType, Type
from qdqc.ir.verify import check, verify
from qdqc.text.parser import parse_module

F = TensorType(Elem.F32, (1, 3))

Add: Any = None
Cond: Any = None


@pytest.fixture(scope="module", autouse=True)
def _ops():
    with OPS.scratch():

        class _Add(Op):
            name, operands = "test.add", ("x", "y?")

            def infer(self, x: TensorType, y: TensorType | None = None) -> tuple[Type, ...]:
                if y is not None and y.shape != x.shape:
                    raise ValueError(f"x has shape {x.shape}, y {y.shape}")
                return (x,)

        class _Cond(Op):
            name, operands, results, graphs = "test.cond", ("c",), ("ys*",), ("then", "other")

            def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
                return (None,) * len(node.results)

        globals().update(Add=_Add, Cond=_Cond)
        yield


def chain(count: int = 3) -> tuple[Module, list[Node[Any]]]:
    module = Module()
    value = module.graph.add_input("x", F)
    nodes: list[Node[Any]] = []
    for index in range(count):
        loc = Loc((f"/n{index}",))
        nodes.append(module.graph.insert(Add(), [value], None, [f"v{index}"], loc=loc))
        value = nodes[-1].result
    module.graph.set_outputs([value])
    return module, nodes


def messages(module: Module) -> str:
    return "\n".join(d.message for d in verify(module))


def test_a_sound_module():
    module, nodes = chain()
    module.add_constant("c", Data.of(np.zeros((1, 3), np.float32)))
    nodes[1].set_operands([nodes[0].result, module.value("c")])
    assert verify(module) == []
    check(module)


def test_use_before_definition():
    module, nodes = chain()
    module.graph.move(nodes[2], nodes[1])
    assert "operand %v1 is not defined before the node" in messages(module)


def test_values_of_a_nested_graph_stay_inside():
    module, nodes = chain(1)
    inner = [Graph(module), Graph(module)]
    made = inner[0].insert(Add(), [nodes[0].result], None, ["in"])
    inner[0].set_outputs([made.result])
    inner[1].set_outputs([nodes[0].result])
    module.graph.insert(Cond(), [nodes[0].result], [F], ["r"], graphs=inner)
    assert verify(module) == []
    outer = module.graph.insert(Add(), [made.result], None, ["leak"])
    module.graph.set_outputs([outer.result])
    assert "%in is not defined before the node, or not in sight of it" in messages(module)
    inner[1].set_outputs([made.result])
    assert "graph output %in is not defined in the graph" in messages(module)


def test_operands_of_another_module():
    module, nodes = chain()
    other, _ = chain()
    nodes[0].set_operand(0, other.graph.inputs[0])
    assert "operand %x is not part of the module any more" in messages(module)


def test_use_lists_in_both_directions():
    module, nodes = chain()
    nodes[0].result.drop_use(nodes[1], 0)
    assert "uses of %v0 are not what reads it (listed: no node)" in messages(module)
    nodes[0].result.add_use(nodes[1], 0)
    assert verify(module) == []
    nodes[0].result.add_use(nodes[2], 0)
    assert "uses of %v0" in messages(module)


def test_erased_nodes_leave_no_use():
    module, nodes = chain()
    nodes[2].erased = True
    assert "not linked into its graph" in messages(module)


def test_broken_links():
    module, nodes = chain()
    nodes[1].prev = nodes[2]
    found = messages(module)
    assert "not linked into its graph" in found
    nodes[1].prev = nodes[0]
    nodes[2].next = nodes[0]
    assert "not linked into its graph" in messages(module)
    nodes[2].next = None
    nodes[0].next = nodes[2]
    nodes[2].prev = nodes[0]
    assert "a graph has 2 nodes, but counts 3" in messages(module)


def test_names():
    module, nodes = chain()
    module.leave(nodes[0].result)
    assert "the name %v0 belongs to another value" in messages(module)
    module.enter(nodes[0].result)
    Value(module, "ghost", F)
    assert messages(module) == "the name %ghost is held by a value that is gone"


def test_counts_of_operands_results_and_graphs():
    module, nodes = chain()
    x = module.graph.inputs[0]
    nodes[0].set_operands([])
    nodes[1].set_operands([nodes[0].result, x, x])
    module.graph.insert(Cond(), [x], [F], ["r"])
    module.graph.insert(Add(), [x], [F, F], ["a", "b"])
    found = messages(module)
    assert "lacks its operand 'x'" in found
    assert "has 3 operands, takes at most 2" in found
    assert "has 0 nested graphs, needs 2" in found
    assert "has 2 results, takes at most 1" in found


def test_owners_of_nested_graphs():
    module, nodes = chain(1)
    inner = [Graph(module), Graph(module)]
    node = module.graph.insert(Cond(), [nodes[0].result], [F], ["r"], graphs=inner)
    inner[0].owner = None
    assert "does not belong to the node" in messages(module)
    inner[0].owner = node
    assert verify(module) == []


def test_results_know_their_producer():
    module, nodes = chain()
    nodes[0].result.producer = nodes[1]
    assert "result %v0 does not know its producer" in messages(module)


def test_attributes_of_inputs_that_are_gone():
    module, _ = chain()
    module.graph.input_attrs["gone"] = {"mean": 1}
    assert "attributes are given for 'gone'" in messages(module)


def test_declared_and_inferred_types():
    module, nodes = chain()
    nodes[1].result.type = TensorType(Elem.F32, (1, 4))
    assert "result %v1 is declared f32[1,4], but the operands give f32[1,3]" in messages(module)
    nodes[1].result.type = TensorType(Elem.F32, (1, None))
    assert verify(module) == []
    nodes[1].result.type = TensorType(Elem.F16, (1, 3))
    assert "is declared f16[1,3]" in messages(module)
    nodes[1].result.type = SequenceType(F)
    nodes[2].set_operands([nodes[0].result])
    assert "is declared seq<f32[1,3]>" in messages(module)


def test_a_quantized_result_stands_for_floats():
    module, nodes = chain()
    nodes[1].result.type = TensorType(Elem.U8, (1, 3), Quant.make(0.5, 128))
    assert verify(module) == []


def q(elem: Elem, shape: Any, *args: Any, **kwargs: Any) -> TensorType:
    return TensorType(elem, shape, Quant.make(*args, **kwargs))


@pytest.mark.parametrize(
    ("type", "message"),
    [
        (q(Elem.U8, (4,), 0.0), "its scale is not finite and above 0"),
        (q(Elem.U8, (4,), -1.0), "its scale is not finite and above 0"),
        (q(Elem.U8, (4,), np.nan), "its scale is not finite and above 0"),
        (q(Elem.U8, (2,), [1, np.inf], axis=0), "its scale is not finite and above 0"),
        (q(Elem.I8, (4,), 1, 128), "zero point is outside i8 (-128 to 127)"),
        (q(Elem.U4, (4,), 1, -1), "zero point is outside u4 (0 to 15)"),
        (q(Elem.F8E4M3FN, (4,), 1, 1), "zero point is outside f8e4m3fn (0 to 0)"),
        (q(Elem.F32, (4,), 1), "f32 can't be quantized"),
        (q(Elem.BOOL, (4,), 1), "bool can't be quantized"),
        (q(Elem.I8, (4,), [1, 2], axis=0), "2 scales along axis 0, whose size is 4"),
        (q(Elem.I8, (4,), [1, 2], axis=1), "its axis 1 is outside a rank of 1"),
        (q(Elem.I8, (4,), [1, 2], axis=-1), "its axis -1 is outside"),
        (q(Elem.I8, (4,), [1, 2]), "several scales, or a block, but no axis"),
        (q(Elem.I8, (4,), 1, axis=0), "scales along an axis are a list"),
        (q(Elem.I8, (4, 6), np.ones((4, 2)), axis=1, block=4), "does not divide axis 1"),
        (q(Elem.I8, (4, 6), np.ones((4, 2)), axis=1, block=2), "2 scales along axis 1"),
        (q(Elem.I8, (4, 6), np.ones((3, 2)), axis=1, block=3), "3 scales along axis 0"),
        (q(Elem.I8, (4, 6), [1, 2], axis=1, block=3), "have rank 1, the value has 2"),
        (q(Elem.I8, (4, 6), np.ones((4, 2)), axis=1, block=0), "is not above 0"),
        (F.with_range(Range(1, 0, 1)), "its range is inverted: min 1, max 0"),
        (F.with_range(Range(0, np.nan, 1)), "its range holds a NaN"),
        (F.with_range(Range(0, 1, -1)), "negative threshold"),
    ],
)
def test_unsound_types(type: TensorType, message: str):
    module = Module()
    module.graph.add_input("x", SequenceType(type))
    assert messages(module).startswith("graph input %x: ")
    assert message in messages(module)


@pytest.mark.parametrize(
    "type",
    [
        q(Elem.U8, (4,), 0.1, 255),
        q(Elem.I8, ("N",), [1, 2], axis=0),
        q(Elem.I8, None, [1, 2], axis=3),
        q(Elem.I4, (4, 6), np.ones((4, 2)), axis=1, block=3),
        q(Elem.F8E4M3FN, (4,), 0.1),
        F.with_range(Range(-np.inf, np.inf, np.inf)),
        F.with_range(Range(0, 0, 0)),
    ],
)
def test_sound_types(type: TensorType):
    module = Module()
    module.graph.add_input("x", type)
    assert verify(module) == []


def test_constants_hold_what_their_type_says():
    module = Module()
    module.add_constant("c", Data.of(np.zeros(3, np.int8)), TensorType(Elem.U8, (3,)))
    module.add_constant("d", Data.of(np.zeros(3, np.int8)), TensorType(Elem.I8, (4,)))
    found = messages(module)
    assert "constant %c : u8[3] holds data of type i8[3]" in found
    assert "constant %d : i8[4] holds data of type i8[3]" in found


def test_the_error_tells_where_operands_come_from():
    text = """module @m {
  graph (%x : f32[1,4], %z : f32[1,3]) -> (%b) {
    %a = test.add(%x) : f32[1,4] loc("/pool")
    %b = test.add(%a, %z) : f32[1,4] loc("/add")
  }
}"""
    with pytest.raises(QdqcError) as caught:
        check(parse_module(text, file="m.qir"), "pass 'fuse-pad' (3 of 9)")
    assert str(caught.value).splitlines() == [
        "m.qir:4:10: error: 'test.add': x has shape (1, 4), y (1, 3)",
        '      %b = test.add(%a, %z) : f32[1,4] loc("/add")',
        "           ^",
        'note: ONNX node "/add"',
        "note: %a : f32[1,4] is produced by 'test.add', ONNX node \"/pool\"",
        "note: %z : f32[1,3] is a graph input",
        "note: found after pass 'fuse-pad' (3 of 9)",
    ]


def test_further_checks_run_on_sound_modules_only():
    module, nodes = chain()
    asked: list[Module] = []

    def target(found: Module) -> list[Diagnostic]:
        asked.append(found)
        return [Diagnostic(Severity.ERROR, "no such kernel")]

    with pytest.raises(QdqcError, match="no such kernel"):
        check(module, checks=[target])
    nodes[0].set_operands([])
    with pytest.raises(QdqcError, match="lacks its operand"):
        check(module, checks=[target])
    assert len(asked) == 1
