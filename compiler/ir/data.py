"""Contents of constants: bytes, often of a mapped file, that are known by their digest."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.mapped import check_whole, spilled
from qdqc.ir.types import Array, Elem

__all__ = ["Data", "Widened", "pack", "packed_size", "unpack"]

Buffer: TypeAlias = npt.NDArray[np.uint8]


def packed_size(elem: Elem, count: int) -> int:
    """Bytes that ``count`` elements take; types under 8 bits are packed, low bits first."""
    return -(-count * elem.bits // 8)


def pack(array: Array, elem: Elem) -> Buffer:
    """Little-endian bytes of an array, as ONNX raw_data has them: uint8 [bytes]."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if elem.bits >= 8:
        return flat.view(np.uint8)
    per_byte = 8 // elem.bits
    codes = flat.view(np.uint8) & ((1 << elem.bits) - 1)
    padded = np.zeros(-(-codes.size // per_byte) * per_byte, np.uint8)
    padded[: codes.size] = codes
    shifts = (np.arange(per_byte) * elem.bits).astype(np.uint8)
    return np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)


def unpack(buffer: Buffer, elem: Elem, shape: tuple[int, ...]) -> Array:
    """The array that ``pack`` took; a view of the buffer where elements are whole bytes."""
    if elem.bits >= 8:
        return buffer.view(elem.dtype).reshape(shape)
    per_byte = 8 // elem.bits
    shifts = (np.arange(per_byte) * elem.bits).astype(np.uint8)
    codes = (buffer[:, None] >> shifts) & np.uint8((1 << elem.bits) - 1)
    values = codes.reshape(-1)[: math.prod(shape)]
    if elem.text[0] == "i":
        sign = np.uint8(1 << (elem.bits - 1))
        values = (values ^ sign) - sign
        return values.view(np.int8).astype(elem.dtype).reshape(shape)
    if elem.text[0] == "u":
        return values.astype(elem.dtype).reshape(shape)
    return values.view(elem.dtype).reshape(shape)


class Data:
    """Immutable contents of a constant of ``elem`` and ``shape``.

    Strings are held as such. Everything else is bytes (``buffer``, uint8), a memory map as a rule,
    so that a module of any size opens at once. Elided data know only (the beginning of) their
    digest: passes run on them, execution does not. Equal are data of one type, shape and digest.
    """

    def __init__(
        self,
        elem: Elem,
        shape: tuple[int, ...],
        buffer: Buffer | None,
        digest: str | None = None,
        strings: tuple[str, ...] | None = None,
    ) -> None:
        self.elem = elem
        self.shape = shape
        self._buffer = buffer
        self._digest = digest
        self.strings = strings

    @classmethod
    def of(cls, array: npt.ArrayLike, elem: Elem | None = None) -> Data:
        """Data of an array that must not change from here on.

        Of many large ones the bytes go to a temporary file.
        """
        whole = np.asarray(array)
        stored = elem or Elem.of(whole.dtype)
        if stored is Elem.STRING:
            strings = tuple(str(s) for s in whole.reshape(-1))
            return cls(stored, whole.shape, None, strings=strings)
        packed = pack(whole.astype(stored.dtype, copy=False), stored)
        return cls(stored, whole.shape, spilled(packed))

    @classmethod
    def elided(cls, elem: Elem, shape: tuple[int, ...], digest: str) -> Data:
        """Contents that were left out of a text; only the digest is known."""
        return cls(elem, shape, None, digest)

    @property
    def is_elided(self) -> bool:
        return self._buffer is None and self.strings is None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the sidecar."""
        return packed_size(self.elem, self.size)

    def buffer(self) -> Buffer:
        """The bytes, uint8 [nbytes]. Raises ValueError for strings and elided data.

        Raises QdqcError where the file that they are mapped from was cut short.
        """
        if self._buffer is None:
            kind = "strings have no bytes" if self.strings is not None else "data are elided"
            raise ValueError(f"{kind}: {self.elem.text}{list(self.shape)} {self._digest}")
        check_whole(self._buffer)
        return self._buffer

    def array(self) -> Array:
        """The contents as a read-only array of ``shape``."""
        if self.strings is not None:
            out: Array = np.array(self.strings, dtype=np.object_).reshape(self.shape)
        else:
            out = unpack(self.buffer(), self.elem, self.shape).view()
        out.flags.writeable = False
        return out

    @cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the bytes; for elided data what the text gave of it."""
        if self._digest is not None:
            return self._digest
        if self.strings is not None:
            return hashlib.sha256(json.dumps(self.strings).encode()).hexdigest()
        return hashlib.sha256(self.buffer().data).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Data):
            return NotImplemented
        mine, others = ((d.elem, d.shape, d.is_elided, d.strings is None) for d in (self, other))
        return self is other or (mine == others and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash((self.elem, self.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        """Bytes of a mapped file are copied into the pickle."""
        buffer = None if self._buffer is None else np.asarray(self._buffer)
        return Data, (self.elem, self.shape, buffer, self._digest, self.strings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Data:
        return self


class Widened(Data):
    """Halves as f32, made of them whenever somebody asks, so that a mapped file stays mapped."""

    def __init__(self, halves: Data) -> None:
        super().__init__(Elem.F32, halves.shape, None)
        self._halves = halves

    @property
    def is_elided(self) -> bool:
        return False

    def buffer(self) -> Buffer:
        return pack(self._halves.array().astype(np.float32), Elem.F32)

    def __reduce__(self) -> tuple[Any, ...]:
        return Widened, (self._halves,)
