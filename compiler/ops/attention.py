"""Attention and the rotation of its queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import known, need_elem, need_rank, same_elem

__all__ = ["Attention", "LinearAttention", "RotaryEmbedding"]


class Attention(Op):
    """softmax(scale * q @ transpose(k) + mask) @ v, per head.

    q, k and v are [batch, heads, length, width], or [batch, length, heads * width] with the
    numbers of heads as attributes. ``scale`` is 1 / sqrt(width) unless it is given. Keys and
    values of the past stand in front of k and v; with ``is_causal`` a query sees no later key,
    and with a window only so many neighbours. Results are y, the keys and values with the past,
    and the products as ``qk_matmul_output_mode`` tells.
    """

    name = "attention"
    operands = ("q", "k", "v", "mask?", "past_key?", "past_value?", "kv_lengths?")
    results = ("y", "present_key?", "present_value?", "qk?")
    onnx = Onnx(
        "Attention", since=23, field_since={"left_window_size": 25, "right_window_size": 25}
    )

    is_causal: bool = False
    kv_num_heads: int | None = None
    q_num_heads: int | None = None
    qk_matmul_output_mode: int = 0
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: int | None = None
    left_window_size: int = -1
    right_window_size: int = -1

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        mask: TensorType | None = None,
        past_key: TensorType | None = None,
        past_value: TensorType | None = None,
        kv_lengths: TensorType | None = None,
    ) -> tuple[TensorType, TensorType, TensorType, TensorType]:
        same_elem(q=q, k=k, past_key=past_key)
        same_elem(v=v, past_value=past_value)
        for name, type in (("q", q), ("k", k), ("v", v)):
            need_rank(type, name, 3, 4)
        queries = _by_head(q, self.q_num_heads, "q_num_heads")
        keys = _by_head(k, self.kv_num_heads, "kv_num_heads")
        values = _by_head(v, self.kv_num_heads, "kv_num_heads")
        _check_ranks({"q": q, "k": k, "v": v}, {"past_key": past_key, "past_value": past_value})
        if mask is not None:
            need_rank(mask, "mask", 0, 4)
        if kv_lengths is not None:
            need_rank(kv_lengths, "kv_lengths", 1)
        _check_sizes(queries, keys, values)
        flat = None if q.shape is None else len(q.shape) == 3
        all_keys, all_values = _extended(keys, past_key), _extended(values, past_value)
        y: tuple[Dim, ...] | None = None
        if queries is not None:
            batch, heads, length, _ = queries
            width = None if values is None else values[3]
            joined = None if width is None or heads is None else heads * width
            y = (batch, length, joined) if flat else (batch, heads, length, width)
        total = None if all_keys is None else all_keys[2]
        products = None if queries is None else (*queries[:3], total)
        return (
            TensorType(q.elem, y),
            TensorType(k.elem, all_keys),
            TensorType(v.elem, all_values),
            TensorType(q.elem, products),
        )


def _check_ranks(given: Mapping[str, TensorType], pasts: Mapping[str, TensorType | None]) -> None:
    """onnxruntime reads dimensions that such operands do not have. Raises ValueError."""
    ranks = {name: type.rank for name, type in given.items() if type.rank is not None}
    if len(set(ranks.values())) > 1:
        stated = ", ".join(f"{name} has rank {rank}" for name, rank in ranks.items())
        raise ValueError(f"q, k and v are in different layouts: {stated}")
    for name, type in pasts.items():
        if type is not None:
            need_rank(type, name, 4)


def _check_sizes(*shapes: tuple[Dim, ...] | None) -> None:
    """Raises ValueError where batches, heads, lengths or widths do not fit together."""
    queries, keys, values = (s or (None,) * 4 for s in shapes)
    pairs = [("batch of q and k", queries[0], keys[0]), ("batch of k and v", keys[0], values[0])]
    pairs += [("heads of k and v", keys[1], values[1]), ("length of k and v", keys[2], values[2])]
    for what, a, b in [*pairs, ("width of q and k", queries[3], keys[3])]:
        if isinstance(a, int) and isinstance(b, int) and a != b:
            raise ValueError(f"the {what} differs: {a} and {b}")
    heads, groups = queries[1], keys[1]
    if isinstance(heads, int) and isinstance(groups, int) and groups and heads % groups:
        raise ValueError(f"q has {heads} heads, which is no multiple of the {groups} of k")


def _by_head(type: TensorType, heads: int | None, field: str) -> tuple[Dim, ...] | None:
    """[batch, heads, length, width] of a tensor in either layout."""
    if type.shape is None or len(type.shape) == 4:
        return type.shape
    if not heads:
        raise ValueError(f"operands of rank 3 need {field}")
    batch, length, width = type.shape
    return (batch, heads, length, None if width is None else width // heads)


def _extended(shape: tuple[Dim, ...] | None, past: TensorType | None) -> tuple[Dim, ...] | None:
    """The shape with the length of the past added."""
    if shape is None or past is None:
        return shape
    before, length = None if past.shape is None else past.shape[2], shape[2]
    total = None if before is None or length is None else before + length
    return (*shape[:2], total, shape[3])


class RotaryEmbedding(Op):
    """Pairs of features of x rotated by the angle of their position.

    x is [batch, heads, length, width], or [batch, length, heads * width] with ``num_heads``. The
    caches hold cosines and sines by position, which ``position_ids`` picks. Pairs are halves of
    the width, or neighbours with ``interleaved``; ``rotary_embedding_dim`` rotates only so many
    features.
    """

    name = "rotary_embedding"
    operands = ("x", "cos", "sin", "position_ids?")
    onnx = Onnx("RotaryEmbedding", since=23)

    interleaved: bool = False
    num_heads: int | None = None
    rotary_embedding_dim: int = 0

    def infer(
        self,
        x: TensorType,
        cos: TensorType,
        sin: TensorType,
        position_ids: TensorType | None = None,
    ) -> tuple[TensorType]:
        same_elem(x=x, cos=cos, sin=sin)
        need_rank(x, "x", 3, 4)
        if position_ids is not None:
            need_elem(position_ids, "position_ids", Elem.I64)
        return (TensorType(x.elem, x.shape),)


class LinearAttention(Op):
    """y_t = scale * q_t @ S_t, where the state S [width of k, width of v] of a head goes along.

    ``update_rule`` tells how: ``linear`` S + k v, ``gated`` exp(decay) S + k v, ``delta``
    S + beta k (v - k @ S), ``gated_delta`` that on exp(decay) S. q, k and v are
    [batch, length, heads * width]; ``scale`` 0 is 1 / sqrt(width). The second result is the last
    state, [batch, kv_num_heads, width of k, width of v].
    """

    name = "linear_attention"
    operands = ("q", "k", "v", "past_state?", "decay?", "beta?")
    results = ("y", "present_state")
    onnx = Onnx("LinearAttention", since=27)

    q_num_heads: int
    kv_num_heads: int
    chunk_size: int = 64
    scale: float = 0.0
    update_rule: Literal["linear", "gated", "delta", "gated_delta"] = "gated_delta"

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        past_state: TensorType | None = None,
        decay: TensorType | None = None,
        beta: TensorType | None = None,
    ) -> tuple[TensorType, TensorType]:
        same_elem(q=q, k=k, v=v, decay=decay, beta=beta)
        need_rank(q, "q", 3)
        need_rank(k, "k", 3)
        need_rank(v, "v", 3)
        batch, length = (None, None) if q.shape is None else q.shape[:2]
        keys = _by_head(k, self.kv_num_heads, "kv_num_heads") or (None,) * 4
        values = _by_head(v, self.kv_num_heads, "kv_num_heads") or (None,) * 4
        state: tuple[Dim, ...] = (batch, self.kv_num_heads, keys[3], values[3])
        elem = q.elem
        if past_state is not None:
            need_rank(past_state, "past_state", 4)
            elem = past_state.elem
            state = tuple(map(known, state, past_state.shape or state))
        joined = None if state[3] is None else state[3] * self.q_num_heads
        return (TensorType(q.elem, (batch, length, joined)), TensorType(elem, state))
