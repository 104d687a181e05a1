"""Spectra of signals, and the windows and weights that go with them."""

from __future__ import annotations

from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import axis_in, elem_named, listed, need_elem, need_rank, same_elem

__all__ = ["DFT", "STFT", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"]


def _number(type: TensorType | None, name: str) -> Dim:
    """The one integer that an operand holds; None where it is unknown or absent."""
    if type is None:
        return None
    need_elem(type, name, Elem.I32, Elem.I64)
    need_rank(type, name, 0, 1)
    return type.value[0] if type.value else None


def _bins(length: Dim, onesided: bool) -> Dim:
    """How many frequencies a spectrum holds; those above the middle repeat the ones below."""
    return length // 2 + 1 if onesided and length is not None else length


def _need_complex(type: TensorType, name: str) -> None:
    last = type.shape[-1] if type.shape else None
    if isinstance(last, int) and last not in (1, 2):
        raise ValueError(f"{name} of {listed(type.shape)} needs 1 or 2 as its last size")


class DFT(Op):
    """y[k] = sum over n of x[n] exp(-2 pi i k n / N) along ``axis``, an operand (default -2).

    The last dimension of x holds a real part, or real and imaginary parts; that of y both. N is
    ``dft_length``: x is cut, or filled up with zeros. ``inverse`` turns the sign and divides by
    N; ``onesided`` keeps the first N // 2 + 1 frequencies.
    """

    name = "dft"
    operands = ("x", "dft_length?", "axis?")
    onnx = Onnx("DFT", since=20)

    inverse: bool = False
    onesided: bool = False

    def infer(
        self,
        x: TensorType,
        dft_length: TensorType | None = None,
        axis: TensorType | None = None,
    ) -> tuple[TensorType]:
        _need_complex(x, "x")
        length = _number(dft_length, "dft_length")
        at = -2 if axis is None else _number(axis, "axis")
        if x.shape is None:
            return (TensorType(x.elem, None),)
        rank = len(x.shape)
        if rank < 2:
            raise ValueError(f"x has rank {rank}, but rank 2 or more is needed")
        if not isinstance(at, int):
            return (TensorType(x.elem, (*(None,) * (rank - 1), None if self.inverse else 2)),)
        place = axis_in(at, rank)
        if place == rank - 1:
            raise ValueError(f"axis {at} holds the parts of complex numbers")
        if dft_length is None:
            length = x.shape[place]
        dims = list(x.shape)
        dims[place] = _bins(length, self.onesided and not self.inverse)
        dims[-1] = 2
        if self.inverse and self.onesided:
            dims[place] = length if dft_length is not None else None
            dims[-1] = None
        return (TensorType(x.elem, tuple(dims)),)


class STFT(Op):
    """Spectra [batch, frames, frequencies, 2] of pieces of x, each times ``window``.

    x is [batch, length, 1], or [batch, length, 2] with imaginary parts. A piece begins every
    ``frame_step`` elements and is as long as the window, or ``frame_length``, or x; ``onesided``
    keeps the first length // 2 + 1 frequencies.
    """

    name = "stft"
    operands = ("x", "frame_step", "window?", "frame_length?")
    onnx = Onnx("STFT", since=17, stated=("onesided",))

    onesided: bool = True

    def infer(
        self,
        x: TensorType,
        frame_step: TensorType,
        window: TensorType | None = None,
        frame_length: TensorType | None = None,
    ) -> tuple[TensorType]:
        need_rank(x, "x", 3)
        _need_complex(x, "x")
        same_elem(x=x, window=window)
        step, length = _number(frame_step, "frame_step"), _number(frame_length, "frame_length")
        if isinstance(step, int) and step < 1:
            raise ValueError(f"frame_step {step} needs to be 1 or more")
        batch, whole = (None, None) if x.shape is None else x.shape[:2]
        if window is not None:
            need_rank(window, "window", 1)
            length = length if window.shape is None else window.shape[0]
        elif frame_length is None:
            length = whole
        frames: Dim = None
        if whole is not None and length is not None and step is not None:
            frames = (whole - length) // step + 1
        return (TensorType(x.elem, (batch, frames, _bins(length, self.onesided), 2)),)


class _Window(Op):
    """What windows of ``size`` elements share, an integer operand of rank 0."""

    operands = ("size",)

    periodic: bool = True
    dtype: str = "f32"

    def infer(self, size: TensorType) -> tuple[TensorType]:
        return (TensorType(elem_named(self.dtype), (_number(size, "size"),)),)


def _spelling(type: str) -> Onnx:
    return Onnx(type, since=17, renames={"dtype": "output_datatype"}, elems=("dtype",))


class HannWindow(_Window):
    """0.5 - 0.5 cos(2 pi n / N) for n < ``size``.

    N is size, or size - 1 unless ``periodic``.
    """

    name = "hann_window"
    onnx = _spelling("HannWindow")


class HammingWindow(_Window):
    """25/46 - 21/46 cos(2 pi n / N) for n < ``size``.

    N is size, or size - 1 unless ``periodic``.
    """

    name = "hamming_window"
    onnx = _spelling("HammingWindow")


class BlackmanWindow(_Window):
    """0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N) for n < ``size``.

    N is size, or size - 1 unless ``periodic``.
    """

    name = "blackman_window"
    onnx = _spelling("BlackmanWindow")


class MelWeightMatrix(Op):
    """Weights [dft_length // 2 + 1, num_mel_bins] that turn frequencies into bands.

    Bands are triangles of height 1, evenly spaced in mel(f) = 2595 log10(1 + f / 700) between
    the two edges. All operands have rank 0.
    """

    name = "mel_weight_matrix"
    operands = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge", "upper_edge")
    onnx = _spelling("MelWeightMatrix")

    dtype: str = "f32"

    def infer(
        self,
        num_mel_bins: TensorType,
        dft_length: TensorType,
        sample_rate: TensorType,
        lower_edge: TensorType,
        upper_edge: TensorType,
    ) -> tuple[TensorType]:
        need_elem(sample_rate, "sample_rate", Elem.I32, Elem.I64)
        same_elem(lower_edge=lower_edge, upper_edge=upper_edge)
        bands = _number(num_mel_bins, "num_mel_bins")
        frequencies = _bins(_number(dft_length, "dft_length"), onesided=True)
        return (TensorType(elem_named(self.dtype), (frequencies, bands)),)
