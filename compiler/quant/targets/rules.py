"""What a target demands of a typed module: named rules, each checked node by node.

A rule holds of the nodes that run in integers: those that take a quantized activation. A
weight-only product (float activations, integer weight) has no rule here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Elem
from qdqc.ops import CASTS, Gemm, MatMul
from qdqc.quant.arithmetic import BIAS_LIMIT, absorbs, bias_quant
from qdqc.quant.targets.target import Target, activations

__all__ = ["RULES", "Broken", "Case", "broken_rules", "rule", "verdicts"]


@dataclass(frozen=True)
class Case:
    """A node under a rule."""

    target: Target
    node: Node[Any]
    traits: QuantTraits


Check = Callable[[Case], str | None]

RULES: dict[str, Check] = {}
"""The rules by name. ``Target.rules`` holds the names of those that a target demands."""


@dataclass(frozen=True)
class Broken:
    """A node that breaks a rule, and how."""

    rule: str
    node: Node[Any]
    message: str


def broken_rules(graph: Graph, target: Target) -> Iterator[Broken]:
    """All that the target would not run in integers as the types say, in graph order.

    Raises QdqcError where the target demands a rule that is not defined.
    """
    for name in sorted(target.rules - RULES.keys()):
        raise QdqcError(
            f"target '{target.name}' demands the rule '{name}', which is not "
            f"defined{suggestion(name, RULES)}"
        )
    for node in graph.nodes():
        for name, message in verdicts(node, target):
            if message is not None:
                yield Broken(name, node, message)


def verdicts(node: Node[Any], target: Target) -> Iterator[tuple[str, str | None]]:
    """Each rule of the target for an integer node: None where it is kept, else how it is broken.

    There are none for casts and for nodes that read and give no integers.
    """
    traits = node.traits
    if isinstance(node.op, CASTS) or not _is_integer(node, traits):
        return
    for name, check in RULES.items():
        if name in target.rules:
            yield name, check(Case(target, node, traits))


def rule(name: str) -> Callable[[Check], Check]:
    """Enters a check as the rule of that name: None, or how a node breaks it.

    A file of a target may define rules of its own. Raises ValueError where another file has one
    of that name.
    """

    def register(check: Check) -> Check:
        present = RULES.get(name)
        if present is not None and present.__module__ != check.__module__:
            raise ValueError(f"rule '{name}' is already that of {present.__module__}")
        RULES[name] = check
        return check

    return register


def _is_integer(node: Node[Any], traits: QuantTraits) -> bool:
    read = [node.at(i) for i in activations(node, traits)]
    given = node.present_results if traits.kind is not Kind.FLOAT else ()
    return any(_is_quantized(v) for v in (*read, *given))


def _is_quantized(value: Value | None) -> bool:
    return value is not None and value.tensor.quant is not None


def _activations(case: Case) -> list[Value]:
    """Quantized values that are no weight and no bias: operands first, then results."""
    read = [case.node.operands[i] for i in activations(case.node, case.traits)]
    return [v for v in (*read, *case.node.present_results) if v is not None and _is_quantized(v)]


def _weight(case: Case) -> Value | None:
    weighted = case.traits.kind is Kind.WEIGHTED and case.traits.weight is not None
    return case.node.at(case.traits.weight) if weighted else None


@rule("kernel")
def _kernel(case: Case) -> str | None:
    """The target has an integer kernel for the op."""
    return case.target.no_kernel(case.node, case.traits)


@rule("operands")
def _operands(case: Case) -> str | None:
    """All activations and the weight are integers, or none is."""
    read = [case.node.at(i) for i in activations(case.node, case.traits)]
    for value in (*read, _weight(case)):
        if value is not None and not _is_quantized(value):
            return f"{value} is float beside integers"
    return None


@rule("activation-type")
def _activation_type(case: Case) -> str | None:
    """Activations have the target's element type."""
    for value in _activations(case):
        if value.tensor.elem is not case.target.activation:
            return f"{value} is {value.tensor.elem.text}, not {case.target.activation.text}"
    return None


@rule("activation-scale")
def _activation_scale(case: Case) -> str | None:
    """An activation has one scale for the whole tensor."""
    for value in _activations(case):
        if value.tensor.quant is not None and value.tensor.quant.axis is not None:
            return f"{value} has a scale per channel, an activation has one"
    return None


@rule("result")
def _result(case: Case) -> str | None:
    """The result is quantized, save that of an op whose kernel also gives float numbers."""
    if case.traits.kind is Kind.WEIGHTED and case.node.op.name in case.target.float_result:
        return None
    if _is_quantized(case.node.result):
        return None
    return f"its result {case.node.result} is float"


@rule("shared-scale")
def _shared_scale(case: Case) -> str | None:
    """What only moves values has one type, scale and zero point before and behind it."""
    source, given = case.node.operands[0], case.node.result.tensor
    if case.traits.kind is not Kind.PRESERVING or source is None:
        return None
    same = (source.tensor.elem, source.tensor.quant) == (given.elem, given.quant)
    return None if same else f"{case.node.result} has another scale or zero point than {source}"


@rule("weight-type")
def _weight_type(case: Case) -> str | None:
    """A weight has the target's element type."""
    weight = _weight(case)
    if weight is None or not _is_quantized(weight) or weight.tensor.elem is case.target.weight:
        return None
    return f"the weight is {weight.tensor.elem.text}, not {case.target.weight.text}"


@rule("weight-axis")
def _weight_axis(case: Case) -> str | None:
    """A weight has one scale, or one for each output channel."""
    weight = _weight(case)
    quant = weight.tensor.quant if weight is not None else None
    if quant is None or (quant.axis in (None, case.traits.axis) and quant.block is None):
        return None
    return f"the weight's scales run along axis {quant.axis}, not {case.traits.axis}"


@rule("weight-symmetric")
def _weight_symmetric(case: Case) -> str | None:
    """A weight has zero point 0."""
    weight = _weight(case)
    quant = weight.tensor.quant if weight is not None else None
    if quant is None or not quant.zero_point.any():
        return None
    return f"the weight's zero point is {int(quant.zero_point.flat[0])}, not 0"


@rule("weight-range")
def _weight_range(case: Case) -> str | None:
    """Stored weights of the target's type lie within ``Target.weight_limit`` of zero."""
    weight = _weight(case)
    if not isinstance(weight, Constant) or not _is_quantized(weight) or weight.data.is_elided:
        return None
    if weight.tensor.elem is not case.target.weight:
        return None  # of another type, sums are another kernel's
    largest = int(np.abs(weight.data.array().astype(np.int64)).max(initial=0))
    limit = case.target.weight_limit
    return None if largest <= limit else f"a stored weight is {largest}, over {limit}"


def _bias(case: Case) -> Value | None:
    return case.node.at(case.traits.bias) if case.traits.kind is Kind.WEIGHTED else None


@rule("bias-type")
def _bias_type(case: Case) -> str | None:
    """A bias is an integer constant of the target's type with zero point 0."""
    bias = _bias(case)
    if bias is None:
        return None
    if bias.tensor.quant is None or bias.tensor.elem is not case.target.bias:
        return f"the bias is {bias.tensor.elem.text}, not {case.target.bias.text} with a scale"
    return "the bias has a zero point" if bias.tensor.quant.zero_point.any() else None


@rule("bias-float")
def _bias_float(case: Case) -> str | None:
    """A bias stays float: the runtime adds it after the sums are scaled."""
    bias = _bias(case)
    if bias is None or (bias.tensor.quant is None and bias.tensor.elem is Elem.F32):
        return None
    return f"the bias is {bias.tensor.elem.text}, not f32"


@rule("bias-scale")
def _bias_scale(case: Case) -> str | None:
    """``s_b = s_x * s_w`` in float32, one for each scale of the weight.

    onnxruntime up to 1.23 adds the stored bias whatever its scale says, and is silently wrong.
    """
    bias, x, weight = _bias(case), case.node.at(0), _weight(case)
    if bias is None or x is None or weight is None:
        return None
    stated, by, of = bias.tensor.quant, x.tensor.quant, weight.tensor.quant
    if stated is None or by is None or of is None:
        return None
    wanted = bias_quant(by.scale, of).scale
    same = stated.scale.shape == wanted.shape and bool((stated.scale == wanted).all())
    return None if same else "the bias has another scale than s_x * s_w"


@rule("bias-overflow")
def _bias_overflow(case: Case) -> str | None:
    """A stored bias leaves half of int32 to the sum of products, and was not saturated."""
    bias = _bias(case)
    if not isinstance(bias, Constant) or not _is_quantized(bias) or bias.data.is_elided:
        return None
    largest = int(np.abs(bias.data.array().astype(np.int64)).max(initial=0))
    # the floor of the scale is rounded to float32, so the limit is met but for that rounding
    return None if largest <= BIAS_LIMIT * (1 + 1e-6) else f"a stored bias is {largest}"


@rule("relu-zero-point")
def _relu_zero_point(case: Case) -> str | None:
    """A fused Relu is done by saturation: the zero point is the type's lower end."""
    clamp, quant = case.node.op.clamp, case.node.result.tensor.quant
    if clamp != (0.0, math.inf) or quant is None:
        return None
    zero, low = int(quant.zero_point.flat[0]), case.node.result.tensor.elem.limits[0]
    return None if zero == low else f"the zero point is {zero}, and the Relu wants {low}"


@rule("clip-range")
def _clip_range(case: Case) -> str | None:
    """A fused Clip is done by saturation: integers end at its bounds or before them."""
    clamp, quant = case.node.op.clamp, case.node.result.tensor.quant
    if clamp in (None, (0.0, math.inf)) or quant is None or quant.axis is not None:
        return None
    if absorbs(quant, clamp, case.node.result.tensor.elem):
        return None
    return f"integers reach beyond the clamp {clamp[0]:g}..{clamp[1]:g}"


@rule("gemm-form")
def _gemm_form(case: Case) -> str | None:
    """The integer Gemm has alpha and beta 1, and no transposed first operand."""
    op = case.node.op
    if not isinstance(op, Gemm) or (op.alpha == 1 and op.beta == 1 and not op.trans_a):
        return None
    return "alpha or beta is not 1, or the first operand is transposed"


@rule("matmul-bias")
def _matmul_bias(case: Case) -> str | None:
    """On static shapes of rank 3 or more, the float bias of a product is no vector.

    onnxruntime would rewrite product and sum to a Gemm before it looks for integers.
    """
    if not isinstance(case.node.op, MatMul):
        return None
    bias, shape = case.node.operand("bias"), case.node.result.tensor.static_shape
    if bias is None or bias.tensor.rank != 1 or shape is None or len(shape) < 3:
        return None
    return "the bias of a product of static shape is a vector"
