"""The base of all ops: an op is a frozen dataclass of its attributes.

A subclass states its facts in one place: operands, results, attributes, type inference, ONNX
spelling, and how quantization sees it. What a pass or a target chooses stands beside that pass
or target.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast, dataclass_transform

from qdqc.ir.fields import encode
from qdqc.ir.spelling import print_type
from qdqc.ir.types import TensorType, Type
from qdqc.registry import Registry

if TYPE_CHECKING:
    from qdqc.ir.core import Node
    from qdqc.ir.expansion import Parts

__all__ = ["OPS", "Kind", "Onnx", "Op", "OperandSpec", "QuantTraits"]

OPS: Registry[type[Op]] = Registry("op")


@dataclass(frozen=True)
class OperandSpec:
    """``x`` is required, ``x?`` may be absent, ``xs*`` takes all that are left."""

    name: str
    optional: bool = False
    variadic: bool = False

    @classmethod
    def parse(cls, text: str) -> OperandSpec:
        return cls(text.rstrip("?*"), text.endswith("?"), text.endswith("*"))


@dataclass(frozen=True)
class Onnx:
    """How an op is spelt in ONNX.

    ``attr_inputs`` names fields that newer opsets take as an input instead of an attribute:
    field name to (opset where it became an input, input index). ``renames`` maps field names to
    ONNX attribute names where they differ. ``since`` is the lowest opset that has the op in
    the form that the exporter writes. ``ignored`` are ONNX attributes that say nothing about
    the result.

    ``elems`` are fields that name an element type (``i64``), which ONNX writes as a number;
    booleans are 0 and 1 there, and a ``Data`` is a tensor. ``field_since`` gives the opset of
    fields that are younger than ``since``: a value other than the default needs it.
    ``result_count`` is the field that holds the number of results where no other field tells
    it; opsets before its ``field_since`` only count the outputs. ``stated`` are fields that are
    written at their default too: onnx's own inference reads their absence as something else.
    """

    type: str
    domain: str = ""
    since: int = 7
    attr_inputs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    elems: tuple[str, ...] = ()
    field_since: Mapping[str, int] = field(default_factory=dict)
    result_count: str | None = None
    stated: tuple[str, ...] = ()


class Kind(enum.Enum):
    """What quantization may do with an op."""

    WEIGHTED = "weighted"
    """A product with a constant weight: the work that integers are for."""
    PRODUCT = "product"
    """A product of two activations."""
    ARITHMETIC = "arithmetic"
    """Element by element or pooling: takes any scales, needs its own on the result."""
    PRESERVING = "preserving"
    """Moves or selects values: operand 0 and the result share one scale."""
    FLOAT = "float"
    """Has no integer form of its own."""


@dataclass(frozen=True)
class QuantTraits:
    """How quantization sees one node.

    ``weight`` and ``bias`` are operand indices; ``axis`` is the weight's axis of output
    channels. ``float_bias`` is a bias that is added behind the integer kernel and stays float.
    ``fixed`` is the range of the result where the op itself bounds it. ``stored`` are operands
    that hold stacks of matrices [count, out, in] which the op multiplies by as it steps along: a
    node of kind FLOAT may still have them as integers, with a scale for each row.
    """

    kind: Kind = Kind.FLOAT
    weight: int | None = None
    bias: int | None = None
    axis: int | None = None
    fixed: tuple[float, float] | None = None
    float_bias: int | None = None
    stored: tuple[int, ...] = ()


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """Base class of ops; defining a subclass makes it a frozen dataclass and registers it.

    Class attributes without annotation are the op's facts, annotated ones its attributes.
    Equality and hash go by the printed attributes, so NaN equals NaN and 0.0 differs from -0.0.
    """

    name: ClassVar[str] = ""
    operands: ClassVar[tuple[str, ...]] = ()
    results: ClassVar[tuple[str, ...]] = ("y",)
    graphs: ClassVar[tuple[str, ...]] = ()
    onnx: ClassVar[Onnx | None] = None
    random: ClassVar[bool] = False
    any_type: ClassVar[bool] = False
    """Whether operands may be sequences and optionals as well as tensors."""
    elementwise: ClassVar[bool] = False
    """Whether each element of the result comes of the operands' elements at its place alone,
    operands broadcast: the op computes the same in any layout that all of them have."""
    permutes: ClassVar[bool] = False
    """Whether the result has the elements of operand 0, each once, in some order."""
    keeps_order: ClassVar[bool] = False
    """Whether that order is the operand's own, so that only the shape changes."""
    not_negative: ClassVar[bool] = False
    """Whether no float that the op computes is below zero, whatever the operands."""
    clamp = cast("tuple[float, float] | None", None)
    """A fused activation. Not annotated: it is a field only of the ops that declare it as one."""
    operand_specs: ClassVar[tuple[OperandSpec, ...]] = ()
    result_specs: ClassVar[tuple[OperandSpec, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__annotations__" in vars(cls):  # what has no fields of its own inherits all it needs
            dataclass(frozen=True, kw_only=True, eq=False, repr=False, match_args=False)(cls)
        cls.operand_specs = tuple(OperandSpec.parse(s) for s in cls.operands)
        cls.result_specs = tuple(OperandSpec.parse(s) for s in cls.results)
        if cls.name:
            OPS.add(cls.name, cls)

    def infer(self, *operands: Any, **named: Any) -> tuple[Type, ...]:
        """Types of the results from types of the operands (absent ones are None).

        Gives shapes and the element type of the numbers that are meant; never scales or
        ranges. Raises ValueError, in words for the user, where operands do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        """As ``infer``, for ops that look at more than types; None leaves a type as it is."""
        types = node.operand_types()
        if not self.any_type:
            _need_tensors(types, self.operand_specs)
        return self.infer(*types)

    def quant(self, *operands: Any, **named: Any) -> QuantTraits:
        """How quantization sees the op on operands of these types."""
        return QuantTraits()

    def live(self) -> tuple[float, float] | None:
        """The numbers of operand 0 that the op tells apart: its result stays as it is beyond them.

        None where there are no such bounds.
        """
        return None

    @classmethod
    def takes_clamp(cls) -> bool:
        """Whether a clip behind the op can become its ``clamp``."""
        return "clamp" in cls.__dataclass_fields__

    def expand(self, parts: Parts, *operands: Any, **named: Any) -> Any:
        """The result made of older ops, in ``parts``, for opsets below ``onnx.since``.

        The operands are values of ``parts``. None where the op has no such form; the method is
        not overridden where it never has one.
        """
        return None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={text}" for name, text in encode(self))
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and encode(self) == encode(other)

    def __hash__(self) -> int:
        return hash((type(self).__name__, tuple(encode(self))))


def _need_tensors(types: Sequence[Type | None], specs: Sequence[OperandSpec]) -> None:
    """Raises ValueError for an operand that is not a tensor, or a hole among any number of them."""
    for index, type in enumerate(types):
        spec = specs[min(index, len(specs) - 1)]
        name = f"operand {index}" if spec.variadic else spec.name
        if type is None and spec.variadic:
            raise ValueError(f"{name} is absent, but none of '{spec.name}' may be")
        if type is not None and not isinstance(type, TensorType):
            raise ValueError(f"{name} is {print_type(type)}, but a tensor is needed")
