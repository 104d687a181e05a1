"""Types of values. They say everything about precision: element type, shape, and either the
calibrated range of a float value or the scale and zero point of a quantized one.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qdqc.ir.dims import Dim, Expr, product

__all__ = [
    "VALUE_LIMIT",
    "Elem",
    "OptionalType",
    "Quant",
    "Range",
    "SequenceType",
    "TensorType",
    "Type",
]

Array: TypeAlias = npt.NDArray[np.generic]

VALUE_LIMIT = 64
"""Contents of integer tensors up to this size take part in shape inference."""


class Elem(enum.Enum):
    """An element type by its name in the text: value = (name, bits per element, numpy dtype)."""

    F64 = ("f64", 64, np.float64)
    F32 = ("f32", 32, np.float32)
    F16 = ("f16", 16, np.float16)
    BF16 = ("bf16", 16, ml_dtypes.bfloat16)
    F8E4M3FN = ("f8e4m3fn", 8, ml_dtypes.float8_e4m3fn)
    F8E4M3FNUZ = ("f8e4m3fnuz", 8, ml_dtypes.float8_e4m3fnuz)
    F8E5M2 = ("f8e5m2", 8, ml_dtypes.float8_e5m2)
    F8E5M2FNUZ = ("f8e5m2fnuz", 8, ml_dtypes.float8_e5m2fnuz)
    F8E8M0 = ("f8e8m0", 8, ml_dtypes.float8_e8m0fnu)
    F4E2M1 = ("f4e2m1", 4, ml_dtypes.float4_e2m1fn)
    I64 = ("i64", 64, np.int64)
    I32 = ("i32", 32, np.int32)
    I16 = ("i16", 16, np.int16)
    I8 = ("i8", 8, np.int8)
    I4 = ("i4", 4, ml_dtypes.int4)
    I2 = ("i2", 2, ml_dtypes.int2)
    U64 = ("u64", 64, np.uint64)
    U32 = ("u32", 32, np.uint32)
    U16 = ("u16", 16, np.uint16)
    U8 = ("u8", 8, np.uint8)
    U4 = ("u4", 4, ml_dtypes.uint4)
    U2 = ("u2", 2, ml_dtypes.uint2)
    BOOL = ("bool", 8, np.bool_)
    C64 = ("c64", 64, np.complex64)
    C128 = ("c128", 128, np.complex128)
    STRING = ("string", 0, np.object_)

    @property
    def text(self) -> str:
        return self.value[0]

    @property
    def bits(self) -> int:
        """Bits of one element in the sidecar; 0 for strings, which stay in the text."""
        return self.value[1]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.value[2])

    @property
    def is_float(self) -> bool:
        return self.text[0] == "f" or self.text[0:2] == "bf"

    @property
    def is_integer(self) -> bool:
        return self.text[0] in "iu"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer element type."""
        if not self.is_integer:
            raise ValueError(f"{self.text} is not an integer type")
        if self.text[0] == "u":
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    @classmethod
    def named(cls, text: str) -> Elem:
        """The element type of that name. Raises KeyError."""
        return _ELEMS[text]

    @classmethod
    def of(cls, dtype: npt.DTypeLike) -> Elem:
        """The element type of a numpy dtype. Raises KeyError for one that ONNX has not."""
        plain = np.dtype(dtype)
        if plain.kind in "OUST":
            return cls.STRING
        return _DTYPES[plain]


_ELEMS = {e.text: e for e in Elem}
_DTYPES = {e.dtype: e for e in Elem}


@dataclass(frozen=True)
class Range:
    """Calibrated range of a float value.

    Asymmetric quantization uses ``min`` and ``max``, symmetric uses ``threshold``
    (the largest absolute value that is represented).
    """

    min: float
    max: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Quant:
    """Affine quantization ``real = scale * (stored - zero_point)``.

    Per tensor: ``axis`` is None, both arrays have shape []. Per axis: both have shape
    [size of the axis]. Per block: ``block`` elements along ``axis`` share a scale, and both
    arrays have the value's rank. Scales are float32, zero points int64.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None
    block: int | None = None

    @classmethod
    def make(
        cls,
        scale: npt.ArrayLike,
        zero_point: npt.ArrayLike = 0,
        axis: int | None = None,
        block: int | None = None,
    ) -> Quant:
        """From anything array-like; the zero point is broadcast to the scale's shape."""
        scales = np.array(scale, dtype=np.float32)
        zeros = np.broadcast_to(np.asarray(zero_point, dtype=np.int64), scales.shape).copy()
        scales.flags.writeable = False
        zeros.flags.writeable = False
        return cls(scales, zeros, axis, block)

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew, for a pickled array is no longer read-only."""
        return Quant.make, (self.scale, self.zero_point, self.axis, self.block)

    @cached_property
    def digest(self) -> str:
        """sha256 over both arrays, the axis and the block."""
        state = hashlib.sha256(f"{self.scale.shape}{self.axis}{self.block}".encode())
        state.update(self.scale.tobytes())
        state.update(self.zero_point.tobytes())
        return state.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quant) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; ``shape`` is None for an unknown rank.

    ``value`` is a fact that inference carries from producer to consumer: the contents of a
    small tensor of integers or booleans, as dimensions, the last axis counting fastest. It is
    never printed and never compared.
    """

    elem: Elem
    shape: tuple[Dim, ...] | None = None
    quant: Quant | None = None
    range: Range | None = None
    value: tuple[Dim, ...] | None = field(default=None, compare=False, repr=False)

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if every dimension is a number, else None."""
        if self.shape is None:
            return None
        sizes = tuple(d for d in self.shape if isinstance(d, int))
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return None if self.shape is None else product(self.shape)

    def expressed(self) -> TensorType:
        """The type as inference sees it: a quantized value stands for float32 numbers."""
        if self.quant is None:
            if self.range is None:
                return self
            return TensorType(self.elem, self.shape, value=self.value)
        return TensorType(Elem.F32, self.shape)

    def with_shape(self, shape: tuple[Dim, ...] | None) -> TensorType:
        return replace(self, shape=shape, value=None)

    def with_quant(self, elem: Elem, quant: Quant) -> TensorType:
        return TensorType(elem, self.shape, quant)

    def with_range(self, range: Range | None) -> TensorType:
        return replace(self, range=range)

    def substitute(self, values: Mapping[str, int | Expr]) -> TensorType:
        """The type with symbols of its shape replaced."""
        if self.shape is None:
            return self
        return self.with_shape(
            tuple(d.substitute(values) if isinstance(d, Expr) else d for d in self.shape)
        )


@dataclass(frozen=True)
class SequenceType:
    """ONNX Sequence; lives on opaque nodes only."""

    item: Type


@dataclass(frozen=True)
class OptionalType:
    """ONNX Optional; lives on opaque nodes only."""

    item: Type


Type: TypeAlias = TensorType | SequenceType | OptionalType
