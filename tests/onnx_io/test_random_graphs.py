"""Random small graphs: what comes in goes out with equal outputs, whatever it is made of.

Each step of a graph takes tensors of [N, 3] and gives one of [N, 3], so that steps can be put
together in any way, in nested graphs too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from protos import run

from qdqc.ir.verify import check
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run as run_pipeline
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

F, INT, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ELEMS = ["f4", "f8", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]
PIECES = (
    "a",
    "v",
    "0",
    " ",
    "/",
    "%",
    '"',
    "'",
    "\\",
    ":",
    "#",
    "é",
    "層",
    "\t",
    "{",
    ")",
    "->",
    ".",
)
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
FEED = {
    "x": np.array([[-1.5, 0.25, 3.0], [2.0, -0.5, 0.125]], np.float32),
    "cond": np.array(True),
}


@dataclass
class Draft:
    """A graph in the making; ``seen`` are the tensors of [N, 3] that a step may read."""

    draw: Any
    taken: set[str]
    seen: list[str]
    depth: int
    nodes: list[NodeProto] = field(default_factory=list)
    held: list[TensorProto] = field(default_factory=list)

    def name(self) -> str:
        wish = self.draw(NAMES)
        while wish in self.taken:
            wish += "_"
        self.taken.add(wish)
        return wish

    def pick(self) -> str:
        return self.draw(st.sampled_from(self.seen))

    def constant(self, array: Any) -> str:
        """An initializer or a Constant node."""
        name, whole = self.name(), np.asarray(array)
        if self.draw(st.booleans()):
            self.held.append(numpy_helper.from_array(whole, name))
        else:
            value = numpy_helper.from_array(whole)
            self.nodes.append(make_node("Constant", [], [name], value=value))
        return name

    def node(self, type: str, inputs: list[str], **attrs: Any) -> str:
        """A node with one result; node names repeat, are missing, and may be odd."""
        name = self.name()
        label = self.draw(st.sampled_from(("", "n", "n", "a b", "/x/y%")))
        self.nodes.append(make_node(type, inputs, [name], name=label, **attrs))
        return name

    def inner(self) -> Draft:
        return Draft(self.draw, self.taken, list(self.seen), self.depth - 1)

    def step(self) -> None:
        makers = STEPS if self.depth else [s for s in STEPS if s not in NESTING]
        self.seen.append(self.draw(st.sampled_from(makers))(self))


def unary(d: Draft) -> str:
    types = ("Relu", "Neg", "Abs", "Tanh", "Identity", "Softsign")
    return d.node(d.draw(st.sampled_from(types)), [d.pick()])


def binary(d: Draft) -> str:
    return d.node(d.draw(st.sampled_from(("Add", "Sub", "Max"))), [d.pick(), d.pick()])


def clip(d: Draft) -> str:
    """Both bounds are optional, and either may be left out."""
    bounds = [d.constant(np.float32(v)) if d.draw(st.booleans()) else "" for v in (-1, 1)]
    return d.node("Clip", [d.pick(), *bounds])


def of_any_type(d: Draft) -> str:
    """An initializer of some element type, read through a Cast."""
    elem = d.draw(st.sampled_from(ELEMS))
    return d.node("Add", [d.pick(), d.node("Cast", [d.constant(np.array([0, 1, 1], elem))], to=F)])


def there_and_back(d: Draft) -> str:
    """Reshape to a vector, and back by the shape of the tensor."""
    x = d.pick()
    flat = d.node("Reshape", [x, d.constant(np.array([-1]))])
    return d.node("Reshape", [flat, d.node("Shape", [x])])


def computed_shape(d: Draft) -> str:
    """Reshape to [N, -1], where N is cut from the shape."""
    x = d.pick()
    first = d.node("Gather", [d.node("Shape", [x]), d.constant(np.array([0]))])
    target = d.node("Concat", [first, d.constant(np.array([-1]))], axis=0)
    return d.node("Reshape", [d.node("Relu", [x]), target])


def expanded(d: Draft) -> str:
    x = d.pick()
    row = d.constant(np.array([[0.5, -0.5, 0.0]], np.float32))
    return d.node("Mul", [x, d.node("Expand", [row, d.node("Shape", [x])])])


def filled(d: Draft) -> str:
    x = d.pick()
    value = numpy_helper.from_array(np.array([0.75], np.float32))
    return d.node("Add", [x, d.node("ConstantOfShape", [d.node("Shape", [x])], value=value)])


def rotated(d: Draft) -> str:
    """Columns cut apart and joined in another order; the steps of a Slice are optional."""
    x, one, axis = d.pick(), d.constant(np.array([1])), d.constant(np.array([1]))
    far = d.constant(np.array([np.iinfo(np.int64).max]))
    last = d.node("Slice", [x, one, far, axis])
    first = d.node("Slice", [x, d.constant(np.array([0])), one, axis, one])
    return d.node("Concat", [last, first], axis=-1)


def unused_results(d: Draft) -> str:
    """Only the first of two results is read; the second has a name or, where it may, none."""
    name, second = d.name(), d.name()
    if d.draw(st.booleans()):
        d.nodes.append(
            make_node("Dropout", [d.pick()], [name, d.draw(st.sampled_from(("", second)))])
        )
        return name
    inputs = [d.pick(), d.constant(np.array([3]))]
    d.nodes.append(make_node("TopK", inputs, [name, second], axis=1))
    return name


def skipped_input(d: Draft) -> str:
    """Resize has its scales behind an input that is left out."""
    scales = d.constant(np.array([1, 1], np.float32))
    return d.node("Resize", [d.pick(), "", scales], mode="nearest")


def branch(d: Draft) -> GraphProto:
    inner = d.inner()
    for _ in range(d.draw(st.integers(0, 2))):
        inner.step()
    out = inner.node("Neg", [inner.pick()])
    return finished(inner, "branch", [], [make_tensor_value_info(out, F, None)])


def either(d: Draft) -> str:
    then, other = branch(d), branch(d)
    return d.node("If", ["cond"], then_branch=then, else_branch=other)


def repeated(d: Draft) -> str:
    """A Loop of two rounds that carries a tensor, reads outer ones and stacks none."""
    inner = d.inner()
    count, going, carried = inner.name(), inner.name(), inner.name()
    inner.seen.append(carried)
    for _ in range(d.draw(st.integers(0, 2))):
        inner.step()
    out = inner.node("Add", [inner.pick(), carried])
    kept = inner.node("Identity", [going])
    inputs = [make_tensor_value_info(count, INT, []), make_tensor_value_info(going, B, [])]
    stated = d.draw(st.booleans())
    carry = make_tensor_value_info(carried, F, None) if stated else untyped(carried)
    outputs = [make_tensor_value_info(kept, B, []), make_tensor_value_info(out, F, None)]
    body = finished(inner, "body", [*inputs, carry], outputs)
    return d.node("Loop", [d.constant(np.int64(2)), "", d.pick()], body=body)


def scanned(d: Draft) -> str:
    """A Scan over rows that gives each row with what came before it added."""
    state, row = d.name(), d.name()
    total, out = d.name(), d.name()
    nodes = [
        make_node("Add", [state, row], [total]),
        make_node("Identity", [total], [out]),
    ]
    inputs = [untyped(state), untyped(row)]
    # onnxruntime must know the shapes of what a Scan gives.
    outputs = [make_tensor_value_info(name, F, [3]) for name in (total, out)]
    body = make_graph(nodes, "scan", inputs, outputs)
    begin = d.constant(np.zeros(3, np.float32))
    last, name = d.name(), d.name()
    x = d.pick()
    d.nodes.append(make_node("Scan", [begin, x], [last, name], body=body, num_scan_inputs=1))
    return name


def untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


NESTING: list[Callable[[Draft], str]] = [either, repeated, scanned]
STEPS: list[Callable[[Draft], str]] = [
    unary,
    binary,
    clip,
    of_any_type,
    there_and_back,
    computed_shape,
    expanded,
    filled,
    rotated,
    unused_results,
    skipped_input,
    *NESTING,
]


def finished(d: Draft, name: str, inputs: list[Any], outputs: list[Any]) -> GraphProto:
    return make_graph(d.nodes, name, inputs, outputs, d.held)


@st.composite
def models(draw: Any, steps: int = 5) -> ModelProto:
    draft = Draft(draw, {"x", "cond"}, ["x"], 2)
    for _ in range(draw(st.integers(1, steps))):
        draft.step()
    outputs = [draft.node("Identity", [name]) for name in draft.seen[-2:]]
    inputs = [make_tensor_value_info("x", F, ["N", 3]), make_tensor_value_info("cond", B, [])]
    shown = [make_tensor_value_info(name, F, [None, 3]) for name in outputs]
    graph = finished(draft, draw(NAMES), inputs, shown)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def nameless(proto: ModelProto) -> ModelProto:
    """onnxruntime refuses nodes that share a name; ONNX allows them."""
    out = ModelProto()
    out.CopyFrom(proto)
    graphs = [out.graph]
    for graph in graphs:
        for node in graph.node:
            node.name = ""
            graphs += [a.g for a in node.attribute if a.HasField("g")]
    return out


FEEDS = [FEED, {"x": FEED["x"][:1] * 3, "cond": np.array(False)}]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("maker", STEPS, ids=lambda maker: maker.__name__)
def test_every_step_gives_a_tensor_of_two_by_three(maker: Callable[[Draft], str]) -> None:
    """The generator itself: each step alone, at what hypothesis draws first."""

    @settings(max_examples=3, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        draft = Draft(data.draw, {"x", "cond"}, ["x"], 1)
        out = maker(draft)
        inputs = [make_tensor_value_info("x", F, ["N", 3]), make_tensor_value_info("cond", B, [])]
        graph = finished(draft, "g", inputs, [make_tensor_value_info(out, F, [None, 3])])
        proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto)
        (found,) = run(nameless(proto), FEED)
        assert found.shape == (2, 3)

    drawn()


@FEW
@given(models())
def test_outputs_are_equal_after_import_and_export(proto: ModelProto) -> None:
    module = import_onnx(proto)
    check(module)
    exported = export_onnx(module)
    onnx.checker.check_model(exported, full_check=True)
    for feed in FEEDS:
        for a, b in zip(run(nameless(proto), feed), run(exported, feed), strict=True):
            np.testing.assert_array_equal(a, b)


@FEW
@given(models())
def test_names_survive(proto: ModelProto) -> None:
    module = import_onnx(proto)
    assert [v.name for v in module.graph.inputs] == [v.name for v in proto.graph.input]
    assert [v.name for v in module.graph.outputs] == [v.name for v in proto.graph.output]
    constants = {n for node in proto.graph.node if node.op_type == "Constant" for n in node.output}
    results = {n for node in proto.graph.node for n in node.output if n} - constants
    found = {r.name for node in module.graph.nodes() for r in node.present_results}
    assert found <= results
    read = {n for node in proto.graph.node for n in node.input} | {
        value.name for value in proto.graph.output
    }
    assert results & read <= found
    labels = {node.name or node.output[0] for node in proto.graph.node}
    assert {name for node in module.graph.nodes() for name in node.loc.names} <= labels


@FEW
@given(models())
def test_the_text_keeps_the_module(proto: ModelProto) -> None:
    module = import_onnx(proto)
    text = print_module(module)
    again = parse_module(text, verify=True)
    assert print_module(again) == text
    assert export_onnx(again) == export_onnx(module)


@FEW
@given(models(), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_is_nothing(proto: ModelProto, rng: random.Random) -> None:
    shuffled = ModelProto()
    shuffled.CopyFrom(proto)
    del shuffled.graph.node[:]
    nodes = list(proto.graph.node)
    rng.shuffle(nodes)
    shuffled.graph.node.extend(nodes)
    found, wanted = export_onnx(import_onnx(shuffled)), run(nameless(proto), FEED)
    onnx.checker.check_model(found, full_check=True)
    for a, b in zip(run(found, FEED), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@FEW
@given(models())
def test_the_float_passes_keep_the_outputs(proto: ModelProto) -> None:
    exported = export_onnx(run_pipeline(import_onnx(proto), "@transform"))
    onnx.checker.check_model(exported, full_check=True)
    for feed in FEEDS:
        for a, b in zip(run(exported, feed), run(nameless(proto), feed), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@FEW
@given(models(steps=3), st.integers(1, 4))
def test_input_shapes_hold_throughout(proto: ModelProto, batch: int) -> None:
    """With the batch fixed, every value has the shape that onnxruntime gives it."""
    module = import_onnx(proto, input_shapes={"x": [batch, 3]})
    feed = {"x": np.ones((batch, 3), np.float32), "cond": np.array(True)}
    shown = ModelProto()
    shown.CopyFrom(nameless(proto))
    del shown.graph.output[:]
    values = [r for node in module.graph.nodes() for r in node.present_results]
    shown.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values)
    for value, array in zip(values, run(shown, feed), strict=True):
        shape = value.tensor.shape
        assert value.tensor.elem.dtype == array.dtype
        assert shape is None or len(shape) == array.ndim
        known = [
            d if isinstance(d, int) else n for d, n in zip(shape or (), array.shape, strict=False)
        ]
        assert shape is None or tuple(known) == array.shape
