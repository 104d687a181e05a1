"""Recurrent layers. D is the number of directions, H the hidden size."""

from __future__ import annotations

from typing import ClassVar, Literal

from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType, Type
from qdqc.ops.inference import listed, need_elem, need_rank, same_elem

__all__ = ["GRU", "LSTM", "RECURRENT", "RNN", "DynamicQuantizeLSTM"]


class _Recurrent(Op):
    """What recurrent layers share: x is [steps, N, in], w [D, gates * H, in], r [D, gates * H, H].

    With ``layout`` 1 x is [N, steps, in]. The results are all hidden states
    [steps, D, N, H] ([N, steps, D, H]) and the last ones [D, N, H] ([N, D, H]).
    """

    gates: ClassVar[int] = 1

    hidden_size: int | None = None
    direction: Literal["forward", "reverse", "bidirectional"] = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    layout: int = 0

    def quant(self, x: TensorType, *others: Type | None) -> QuantTraits:
        """No integer form, but weights that may be stored as integers."""
        return QuantTraits(stored=(1, 2)) if x.elem is Elem.F32 else QuantTraits()

    def states(
        self, x: TensorType, w: TensorType, r: TensorType, **others: TensorType | None
    ) -> tuple[TensorType, TensorType]:
        """Types of all hidden states and of the last ones."""
        floats = {n: t for n, t in others.items() if n != "lengths"}
        same_elem(x=x, w=w, r=r, **floats)
        for name, type in {"x": x, "w": w, "r": r}.items():
            need_rank(type, name, 3)
        count = 2 if self.direction == "bidirectional" else 1
        hidden = self._hidden(w, r)
        rows = None if hidden is None else hidden * self.gates
        _check(w, "w", (count, rows, None if x.shape is None else x.shape[2]))
        _check(r, "r", (count, rows, hidden))
        bias = others.get("bias")
        if bias is not None:
            _check(bias, "bias", (count, None if rows is None else rows * 2))
        first, second = (None, None) if x.shape is None else x.shape[:2]
        if self.layout:
            every, last = (first, second, count, hidden), (first, count, hidden)
        else:
            every, last = (first, count, second, hidden), (count, second, hidden)
        return TensorType(x.elem, every), TensorType(x.elem, last)

    def _hidden(self, w: TensorType, r: TensorType) -> Dim:
        size: Dim = self.hidden_size
        if size is None:
            size = None if r.shape is None else r.shape[2]
        rows = None if w.shape is None else w.shape[1]
        if isinstance(size, int) and isinstance(rows, int) and rows != self.gates * size:
            raise ValueError(f"w has {rows} rows, but {self.gates} gates of {size} are needed")
        return size


def _check(type: TensorType, name: str, wanted: tuple[Dim, ...]) -> None:
    """Raises ValueError where two sizes contradict each other."""
    need_rank(type, name, len(wanted))
    pairs = zip(type.shape or (), wanted, strict=False)
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise ValueError(f"{name} has shape {listed(type.shape)}, not {listed(wanted)}")


class _OneState(_Recurrent):
    """What layers whose state is h alone share."""

    operands = ("x", "w", "r", "bias?", "lengths?", "initial_h?")
    results = ("y?", "y_h?")

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        r: TensorType,
        bias: TensorType | None = None,
        lengths: TensorType | None = None,
        initial_h: TensorType | None = None,
    ) -> tuple[TensorType, TensorType]:
        return self.states(x, w, r, bias=bias, lengths=lengths, initial_h=initial_h)


class RNN(_OneState):
    """One gate a step: h = f(w x + r h + b)."""

    name = "rnn"
    onnx = Onnx("RNN", field_since={"layout": 14})

    activations: tuple[str, ...] = ("Tanh", "Tanh")


class GRU(_OneState):
    """Gated recurrent unit; gates are update, reset, hidden."""

    name = "gru"
    onnx = Onnx("GRU", field_since={"layout": 14})
    gates = 3

    linear_before_reset: bool = False


class LSTM(_Recurrent):
    """Long short-term memory; gates are input, output, forget, cell; ``p`` are peepholes."""

    name = "lstm"
    operands = ("x", "w", "r", "bias?", "lengths?", "initial_h?", "initial_c?", "p?")
    results = ("y?", "y_h?", "y_c?")
    onnx = Onnx("LSTM", field_since={"layout": 14})
    gates = 4

    input_forget: bool = False

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        r: TensorType,
        bias: TensorType | None = None,
        lengths: TensorType | None = None,
        initial_h: TensorType | None = None,
        initial_c: TensorType | None = None,
        p: TensorType | None = None,
    ) -> tuple[TensorType, TensorType, TensorType]:
        states = {"bias": bias, "initial_h": initial_h, "initial_c": initial_c, "p": p}
        every, last = self.states(x, w, r, lengths=lengths, **states)
        return (every, last, last)


class DynamicQuantizeLSTM(Op):
    """An LSTM on 8-bit weights that takes the scales of x and of its state as it runs.

    An op of onnxruntime. Weights are turned: w is [D, in, 4 H], r [D, H, 4 H]; their scales are
    one for each column, [D, 4 H], or one for each direction, [D]. All else is as in LSTM.
    """

    name = "dynamic_quantize_lstm"
    operands = (
        *("x", "w", "r", "bias?", "lengths?", "initial_h?", "initial_c?", "p?"),
        *("w_scale", "w_zero_point", "r_scale", "r_zero_point"),
    )
    results = ("y?", "y_h?", "y_c?")
    onnx = Onnx("DynamicQuantizeLSTM", domain="com.microsoft")

    hidden_size: int | None = None
    direction: Literal["forward", "reverse", "bidirectional"] = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    input_forget: bool = False

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        r: TensorType,
        bias: TensorType | None = None,
        lengths: TensorType | None = None,
        initial_h: TensorType | None = None,
        initial_c: TensorType | None = None,
        p: TensorType | None = None,
        w_scale: TensorType | None = None,
        w_zero_point: TensorType | None = None,
        r_scale: TensorType | None = None,
        r_zero_point: TensorType | None = None,
    ) -> tuple[TensorType, TensorType, TensorType]:
        need_elem(x, "x", Elem.F32)
        for name, weight in {"w": w, "r": r}.items():
            need_elem(weight, name, Elem.I8, Elem.U8)
            need_rank(weight, name, 3)
        plain = LSTM(hidden_size=self.hidden_size, direction=self.direction)
        states = (bias, lengths, initial_h, initial_c, p)
        return plain.infer(x, _turned(w), _turned(r), *states)


def _turned(weight: TensorType) -> TensorType:
    """The float type of the weight as LSTM has it."""
    shape = weight.shape
    return TensorType(Elem.F32, shape and (shape[0], shape[2], shape[1]))


RECURRENT = (RNN, GRU, LSTM)
"""Layers that step along a sequence, on weights that ONNX has in float."""
