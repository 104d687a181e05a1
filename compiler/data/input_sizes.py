"""Sizes for the free dimensions of a graph's inputs, such that its nodes fit together.

A decoder with a cache names ``past``, ``seq`` and ``total`` and takes no three numbers but those
of which the third is the sum. The graph says so where values meet: operands that broadcast, parts
of a concatenation, the depth of a product.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from qdqc.ir.clone import clone
from qdqc.ir.core import Node
from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.graph import Graph
from qdqc.ir.merge import compatible, merge_types
from qdqc.ir.types import OptionalType, SequenceType, TensorType, Type
from qdqc.ops import Attention, Concat, MatMul

__all__ = ["SIZE", "Sizes", "free_sizes", "named_type", "size_of", "tried_sizes"]

SIZE = 2
"""What a free size counts as: the smallest that does not broadcast."""

Sizes: TypeAlias = Mapping[str, int]
"""A size for each symbol; one that is not there counts as ``SIZE``."""

_ROUNDS = 8
_DIGITS = re.compile(r"\d+")
_FEW = 4
_LARGER = (1, 4, 8, 16, 32, 64, 128, 256, 512)


def named_type(name: str, type: Type) -> Type:
    """The type of an input with a symbol for each dimension of which nothing is known.

    Inputs whose names differ in numbers only, such as the caches of layers, have the same ones.
    """
    if isinstance(type, SequenceType | OptionalType):
        return type
    if type.shape is None or None not in type.shape:
        return type
    stem = _DIGITS.sub("#", name)
    dims = (symbol(f"{stem}.{i}") if d is None else d for i, d in enumerate(type.shape))
    return type.with_shape(tuple(dims))


def size_of(dim: Dim, sizes: Sizes) -> int:
    """A dimension with the sizes in place of its symbols; none is below 0."""
    if isinstance(dim, int):
        return dim
    if dim is None:
        return SIZE
    size = dim.substitute({name: sizes.get(name, SIZE) for name in dim.symbols()})
    return max(0, size) if isinstance(size, int) else SIZE


def free_sizes(graph: Graph) -> list[str]:
    """The symbols of the inputs in their order, those of unnamed dimensions among them."""
    names: dict[str, None] = {}
    for value in graph.inputs:
        type = named_type(value.name, value.type)
        for dim in (type.shape or ()) if isinstance(type, TensorType) else ():
            names |= dict.fromkeys(sorted(dim.symbols()) if isinstance(dim, Expr) else ())
    return list(names)


def tried_sizes(graph: Graph) -> Iterator[Sizes]:
    """Sizes in the order of their promise: first those that the graph's own relations give.

    Then one or two of the symbols larger than the others, then all of a size but those that lead
    an input, and one of a few large where the others are 1.
    """
    names = free_sizes(graph)
    relations = _relations(graph, set(names))
    yield {n: size_of(relations.get(n), {}) for n in names}
    if relations:
        yield {}
    for count in (1, 2):
        for chosen in itertools.combinations(names, count) if count < len(names) else ():
            yield from (dict.fromkeys(chosen, size) for size in (2 * SIZE, SIZE + 1))
    leading = _leading(graph)
    for size in _LARGER:
        yield {n: 1 if n in leading else size for n in names}
        if size > 2 * SIZE and 1 < len(names) <= _FEW:
            yield from ({n: size if n == large else 1 for n in names} for large in names)


def _leading(graph: Graph) -> set[str]:
    """The symbols that stand first in an input of two dimensions or more, as batches do."""
    types = (named_type(v.name, v.type) for v in graph.inputs)
    shapes = [t.shape for t in types if isinstance(t, TensorType) and t.shape]
    first = (shape[0] for shape in shapes if len(shape) > 1)
    return {name for dim in first if isinstance(dim, Expr) for name in dim.symbols()}


def _relations(graph: Graph, names: set[str]) -> dict[str, int | Expr]:
    """What symbols must be in terms of others, as far as inference shows it."""
    solved: dict[str, int | Expr] = {}
    module = clone(graph.module)
    types = [named_type(v.name, v.type) for v in module.graph.inputs]
    for _ in range(_ROUNDS):
        for value, type in zip(module.graph.inputs, types, strict=True):
            value.type = type.substitute(solved) if isinstance(type, TensorType) else type
        solutions = (_solution(a, b, names) for a, b in _meetings(module.graph, solved))
        solution = next((s for s in solutions if s is not None and s[0] not in solved), None)
        if solution is None:
            break
        name, dim = solution
        solved = {
            n: d.substitute({name: dim}) if isinstance(d, Expr) else d for n, d in solved.items()
        }
        solved[name] = dim
    return solved


def _meetings(graph: Graph, solved: Mapping[str, int | Expr]) -> Iterator[tuple[Dim, Dim]]:
    """Infer shapes from the inputs on; gives pairs of dimensions that are to be the same."""
    for node in graph.nodes():
        for result in node.present_results:
            if isinstance(result.type, TensorType):
                result.type = result.type.substitute(solved)
        try:
            inferred = node.op.infer_node(node)
        except (ValueError, ArithmeticError):
            continue  # sizes that do not fit show when the model runs
        yield from _alike(node, inferred)
        for result, type in zip(node.results, inferred, strict=False):
            if result is not None and type is not None and compatible(type, result.type):
                result.type = merge_types(type, result.type)


def _alike(node: Node[Any], inferred: Sequence[Type | None]) -> Iterator[tuple[Dim, Dim]]:
    tensors = [t for t in node.operand_types() if isinstance(t, TensorType)]
    shapes = [t.shape for t in tensors if t.shape]
    if isinstance(node.op, Concat):
        rank = len(shapes[0]) if shapes else 0
        axis = node.op.axis % rank if rank else 0
        shapes = [(*s[:axis], *s[axis + 1 :]) for s in shapes]
    elif isinstance(node.op, MatMul):
        left, right = [*shapes, (), ()][:2]
        if len(left) > 1 and len(right) > 1:
            yield left[-1], right[-2]
        shapes = [left[:-2], right[:-2]]
    elif isinstance(node.op, Attention):
        mask, products = node.at(3), inferred[3]
        assert isinstance(products, TensorType)
        shapes = [(mask.tensor.shape if mask else None) or (), products.shape or ()]
    elif not node.op.elementwise:
        return
    for a, b in itertools.combinations(shapes, 2):
        yield from zip(reversed(a), reversed(b), strict=False)


def _solution(a: Dim, b: Dim, names: set[str]) -> tuple[str, int | Expr] | None:
    """A symbol and what it is where two dimensions are the same; sums before differences."""
    if a is None or b is None or a == b or 1 in (a, b):
        return None
    apart = a - b
    if not isinstance(apart, Expr):
        return None
    answers: list[tuple[str, int | Expr]] = []
    for monomial, factor in apart.terms:
        name = monomial[0] if len(monomial) == 1 else None
        if not isinstance(name, str) or name not in names or abs(factor) != 1:
            continue
        rest = (apart - symbol(name) * factor) * -factor
        alone = not isinstance(rest, Expr) or name not in rest.symbols()
        if alone and size_of(rest, {}) > 0:
            answers.append((name, rest))
    return min(answers, key=lambda answer: _differences(answer[1]), default=None)


def _differences(dim: int | Expr) -> int:
    return sum(factor < 0 for _, factor in dim.terms) if isinstance(dim, Expr) else 0
