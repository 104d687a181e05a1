"""What a target is: its types, and which nodes it can run in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Clip
from qdqc.quant.finite import is_finite
from qdqc.registry import Registry

__all__ = ["TARGETS", "KernelCosts", "Target", "activations", "target_named"]


TARGETS: Registry[Target] = Registry("target", home="qdqc.quant.targets")


class KernelCosts(Protocol):
    """What nodes and casts cost in microseconds, by the shapes of values."""

    def node(
        self, node: Node[Any], sizes: Mapping[str, tuple[int, ...]]
    ) -> tuple[float, float] | None:
        """In float and in integers; None where nothing is known."""
        ...

    def quantized(self, value: Value, shape: tuple[int, ...]) -> float:
        """A cast to integers."""
        ...

    def dequantized(self, value: Value, shape: tuple[int, ...]) -> float:
        """A cast to float."""
        ...


class Target:
    """Data and rules of one target; defining a subclass with a ``name`` of its own registers it.

    ``weighted``, ``arithmetic`` and ``preserving`` are names of ops that have an integer kernel
    there. ``float_result`` are weighted ops whose integer kernel may also give float numbers;
    the others need a quantized result. ``rules`` are names of ``rules.RULES`` that a typed
    module must keep, ``preferences`` those of them that models of other tools may break and run
    in integers all the same, the likeliest cause of float kernels first. Stored weights lie in
    ``-weight_limit..weight_limit``. A ``bias`` of f32 stays as it is. ``runtime`` is what runs the
    model, as people call it; ``costs`` say what its kernels take, where that is known, and
    ``dynamic_lstm`` whether it has onnxruntime's LSTM whose scales the run finds. A subclass may
    refine ``refusal`` and ``spell``.
    """

    name: ClassVar[str] = ""
    activation: ClassVar[Elem] = Elem.U8
    weight: ClassVar[Elem] = Elem.I8
    bias: ClassVar[Elem] = Elem.I32
    weighted: ClassVar[frozenset[str]] = frozenset()
    arithmetic: ClassVar[frozenset[str]] = frozenset()
    preserving: ClassVar[frozenset[str]] = frozenset()
    float_result: ClassVar[frozenset[str]] = frozenset()
    rules: ClassVar[frozenset[str]] = frozenset()
    preferences: ClassVar[tuple[str, ...]] = ()
    weight_limit: ClassVar[int] = 127
    runtime: ClassVar[str] = "onnxruntime"
    costs: ClassVar[KernelCosts | None] = None
    dynamic_lstm: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            TARGETS.add(cls.name, cls())

    def refusal(self, node: Node[Any], traits: QuantTraits) -> str | None:
        """Why the target can't run a node in integers; None when it can."""
        return (
            self.no_kernel(node, traits)
            or self._weight_refusal(node, traits)
            or self._range_refusal(node, traits)
        )

    def no_kernel(self, node: Node[Any], traits: QuantTraits) -> str | None:
        """Says so where the target has no integer kernel for the op.

        A clip needs none: integers saturate.
        """
        kernels = {
            Kind.WEIGHTED: self.weighted,
            Kind.ARITHMETIC: self.arithmetic,
            Kind.PRESERVING: self.preserving,
        }
        name = node.op.name
        if isinstance(node.op, Clip) or name in kernels.get(traits.kind, frozenset()):
            return None
        return f"{self.name} has no integer kernel for '{name}'"

    def _weight_refusal(self, node: Node[Any], traits: QuantTraits) -> str | None:
        if traits.kind is not Kind.WEIGHTED or traits.weight is None:
            return None
        weight = node.at(traits.weight)
        if not isinstance(weight, Constant):
            return "the weight is no constant"
        bias = node.at(traits.bias)
        if bias is not None and not isinstance(bias, Constant):
            return "the bias is no constant"
        if weight.data.is_elided or (bias is not None and bias.data.is_elided):
            return "the weight is elided"
        quant = weight.tensor.quant
        if quant is not None and (quant.block is not None or weight.tensor.elem.bits < 8):
            return f"the weight is stored as {weight.tensor.elem.text} in a form of its own"
        if weight.tensor.expressed().elem is not Elem.F32:
            return f"the weight is {weight.tensor.elem.text}"
        return None

    def keeps(self, weight: Constant, traits: QuantTraits) -> bool:
        """Whether an integer weight can stay as it is: the target's type, axis and zero point."""
        quant = weight.tensor.quant
        return (
            quant is not None
            and weight.tensor.elem is self.weight
            and quant.axis in (None, traits.axis)
            and not quant.zero_point.any()
            and _largest(weight) <= self.weight_limit
        )

    def _range_refusal(self, node: Node[Any], traits: QuantTraits) -> str | None:
        """A value that must be quantized needs a calibrated range, or one that the op bounds."""
        for index in activations(node, traits):
            value = node.operands[index]
            if isinstance(value, Constant) and not is_finite(value):
                return f"{value} is not finite"
            if value is None or isinstance(value, Constant):
                continue
            if value.tensor.range is None and value.tensor.quant is None:
                return f"{value} has no calibrated range"
        result = node.result.tensor
        if result.expressed().elem is not Elem.F32:
            return f"its result is {result.elem.text}"
        if traits.fixed is not None or traits.kind is Kind.PRESERVING or result.range is not None:
            return None
        if traits.kind is Kind.WEIGHTED and node.op.name in self.float_result:
            return None
        return f"{node.result} has no calibrated range"

    def spell(self, node: Node[Any]) -> int:
        """Respell a node that stays float so that the target runs its neighbours in integers.

        Called after quantization on every node; returns the number of changes.
        """
        return 0


def target_named(name: str) -> Target:
    """The target of that name. Raises QdqcError that lists the known ones."""
    return TARGETS[name]


def _largest(weight: Constant) -> int:
    return int(np.abs(weight.data.array().astype(np.int64)).max(initial=0))


def activations(node: Node[Any], traits: QuantTraits) -> list[int]:
    """Indices of the operands that are quantized as activations: float, no weight, no bias."""
    indices: list[int] = []
    parameters = {traits.weight, traits.bias, traits.float_bias, *traits.stored}
    for index, value in enumerate(node.operands):
        if value is None or index in parameters:
            continue
        if traits.kind is Kind.PRESERVING and index > 0:
            continue
        if isinstance(value.type, TensorType) and value.type.expressed().elem is Elem.F32:
            indices.append(index)
    return indices
