"""Ops that make tensors from sizes and bounds."""

from __future__ import annotations

from collections.abc import Sequence

from qdqc.ir.data import Data
from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType
from qdqc.ops.inference import dims_operand, elem_named, least, need_rank, same_elem, typed

__all__ = [
    "Bernoulli",
    "ConstantOfShape",
    "EyeLike",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Range",
]


class ConstantOfShape(Op):
    """A tensor of ``shape``, an i64 operand of rank 1, full of one ``value`` (default f32 0)."""

    name = "constant_of_shape"
    operands = ("shape",)
    onnx = Onnx("ConstantOfShape", since=9)

    value: Data | None = None

    def infer(self, shape: TensorType) -> tuple[TensorType]:
        elem = Elem.F32 if self.value is None else self.value.elem
        if self.value is not None and self.value.size != 1:
            raise ValueError(f"value has {self.value.size} elements, but one is needed")
        dims = dims_operand(shape, "shape")
        if any(isinstance(d, int) and d < 0 for d in dims or ()):
            raise ValueError("the shape holds a negative size")
        return (typed(elem, dims, self._contents(elem, dims)),)

    def _contents(self, elem: Elem, dims: Sequence[Dim] | None) -> tuple[int, ...] | None:
        if self.value is None or self.value.is_elided or dims is None or len(dims) > 1:
            return None
        if not (elem.is_integer or elem is Elem.BOOL):
            return None
        count = dims[0] if dims else 1
        if not isinstance(count, int) or count > VALUE_LIMIT:
            return None
        return (int(self.value.array().reshape(-1)[0]),) * count


class Range(Op):
    """Numbers from ``start`` up to but without ``limit`` in steps of ``delta``, all rank 0."""

    name = "range"
    operands = ("start", "limit", "delta")
    onnx = Onnx("Range", since=11, field_since={"stash_type": 27})

    stash_type: int = 1

    def infer(self, start: TensorType, limit: TensorType, delta: TensorType) -> tuple[TensorType]:
        same_elem(start=start, limit=limit, delta=delta)
        for name, type in {"start": start, "limit": limit, "delta": delta}.items():
            need_rank(type, name, 0, 1)
        known = [t.value[0] for t in (start, limit, delta) if t.value]
        if len(known) < 3:
            return (TensorType(start.elem, (None,)),)
        return (self._counted(start.elem, known[0], known[1], known[2]),)

    def _counted(self, elem: Elem, start: Dim, limit: Dim, delta: Dim) -> TensorType:
        if delta == 0:
            raise ValueError("delta is 0")
        if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
            count = max(0, -((start - limit) // delta))
            numbers = range(start, limit, delta) if count <= VALUE_LIMIT else None
            return typed(elem, (count,), numbers)
        if start is None or limit is None or not isinstance(delta, int):
            return TensorType(elem, (None,))
        span = limit - start if delta > 0 else start - limit
        bound = least(span)
        if bound is None or bound < 0:
            return TensorType(elem, (None,))
        return TensorType(elem, ((span + abs(delta) - 1) // abs(delta),))


class _Like(Op):
    """What ops share whose result has x's shape, and x's element type unless ``dtype`` is set."""

    operands = ("x",)

    dtype: str | None = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem if self.dtype is None else elem_named(self.dtype), x.shape),)


class EyeLike(_Like):
    """Ones on diagonal ``k`` of a matrix of x's shape, zeros elsewhere."""

    name = "eye_like"
    onnx = Onnx("EyeLike", since=9, elems=("dtype",))

    k: int = 0

    def infer(self, x: TensorType) -> tuple[TensorType]:
        need_rank(x, "x", 2)
        return super().infer(x)


class RandomNormalLike(_Like):
    """Normally distributed numbers in x's shape."""

    name = "random_normal_like"
    onnx = Onnx("RandomNormalLike", elems=("dtype",))
    random = True

    mean: float = 0.0
    scale: float = 1.0
    seed: float | None = None


class RandomUniformLike(_Like):
    """Evenly distributed numbers in x's shape."""

    name = "random_uniform_like"
    onnx = Onnx("RandomUniformLike", elems=("dtype",))
    random = True

    low: float = 0.0
    high: float = 1.0
    seed: float | None = None


class Bernoulli(_Like):
    """1 with the probability that x gives, else 0."""

    name = "bernoulli"
    onnx = Onnx("Bernoulli", since=15, elems=("dtype",))
    random = True

    seed: float | None = None


class Multinomial(Op):
    """Indices drawn ``sample_size`` times for each row of unnormalized log probabilities x."""

    name = "multinomial"
    operands = ("x",)
    onnx = Onnx("Multinomial", elems=("dtype",))
    random = True

    sample_size: int = 1
    dtype: str = "i32"
    seed: float | None = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        need_rank(x, "x", 2)
        if self.sample_size < 1:
            raise ValueError(f"sample_size {self.sample_size} needs to be 1 or more")
        rows = None if x.shape is None else x.shape[0]
        return (TensorType(elem_named(self.dtype), (rows, self.sample_size)),)


class _Random(Op):
    """What generators of a given shape share."""

    random = True

    shape: tuple[int, ...]
    dtype: str = "f32"
    seed: float | None = None

    def infer(self) -> tuple[TensorType]:
        if any(d < 0 for d in self.shape):
            raise ValueError(f"shape {list(self.shape)} holds a negative size")
        return (TensorType(elem_named(self.dtype), self.shape),)


class RandomNormal(_Random):
    """Normally distributed numbers."""

    name = "random_normal"
    onnx = Onnx("RandomNormal", elems=("dtype",))

    mean: float = 0.0
    scale: float = 1.0


class RandomUniform(_Random):
    """Evenly distributed numbers."""

    name = "random_uniform"
    onnx = Onnx("RandomUniform", elems=("dtype",))

    low: float = 0.0
    high: float = 1.0
