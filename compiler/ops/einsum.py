"""Sums of products over named axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qdqc.ir.dims import Dim, broadcast
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import broadcast_shapes, same_elem

__all__ = ["Einsum"]


class Einsum(Op):
    """The sum of products that ``equation`` states, as in ``bhid,bhjd->bhij``."""

    name = "einsum"
    operands = ("xs*",)
    onnx = Onnx("Einsum", since=12)

    equation: str

    def infer(self, *xs: TensorType) -> tuple[TensorType]:
        if not xs:
            raise ValueError("at least one operand is needed")
        same_elem(**{f"operand {i}": x for i, x in enumerate(xs)})
        terms, result = self.terms()
        if len(terms) != len(xs):
            raise ValueError(f"'{self.equation}' names {len(terms)} operands, not {len(xs)}")
        known = [x.shape for x in xs if x.shape is not None]
        if len(known) < len(xs):
            count = None if "..." in result else len(result)
            return (TensorType(xs[0].elem, None if count is None else (None,) * count),)
        sizes: dict[str, Dim] = {}
        batch: tuple[Dim, ...] = ()
        for term, shape in zip(terms, known, strict=True):
            named, rest = self._match(term, shape)
            for label, dim in named:
                sizes[label] = self._joined(label, sizes[label], dim) if label in sizes else dim
            batch = broadcast_shapes(batch, rest) or ()
        unknown = sorted(set(result.replace("...", "")) - set(sizes))
        if unknown:
            raise ValueError(f"the result of '{self.equation}' has an unknown axis {unknown[0]}")
        head, dots, tail = result.partition("...")
        shape = (*(sizes[c] for c in head), *(batch if dots else ()), *(sizes[c] for c in tail))
        return (TensorType(xs[0].elem, shape),)

    def _joined(self, label: str, before: Dim, dim: Dim) -> Dim:
        try:
            return broadcast(before, dim)
        except ValueError as error:
            raise ValueError(f"axis {label} of '{self.equation}': {error}") from None

    def terms(self) -> tuple[list[str], str]:
        """Axes of the operands and of the result."""
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        if arrow:
            return terms, right
        counts = Counter(c for term in terms for c in term if c != ".")
        dots = "..." if any("..." in term for term in terms) else ""
        return terms, dots + "".join(sorted(c for c, n in counts.items() if n == 1))

    def _match(
        self, term: str, shape: Sequence[Dim]
    ) -> tuple[list[tuple[str, Dim]], tuple[Dim, ...]]:
        """Sizes of the named axes of one operand, and the shape behind its dots."""
        head, dots, tail = term.partition("...")
        spare = len(shape) - len(head) - len(tail)
        if spare < 0 or (spare and not dots):
            raise ValueError(f"'{term}' of '{self.equation}' does not fit rank {len(shape)}")
        front, back = len(head), len(head) + spare
        named = [*zip(head, shape[:front], strict=True), *zip(tail, shape[back:], strict=True)]
        return named, tuple(shape[front:back])

    def quant(self, *xs: TensorType) -> QuantTraits:
        product = len(xs) == 2 and xs[0].elem is Elem.F32
        return QuantTraits(Kind.PRODUCT) if product else QuantTraits()
