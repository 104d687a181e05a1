"""Do the arrays that somebody gives fit the inputs of a graph, and how many samples are they?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.dims import Dim, Expr
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem, OptionalType, TensorType

__all__ = ["Cut", "Header", "InputSpec", "Sample", "fit_arrays", "headers_of", "input_specs"]

Sample: TypeAlias = dict[str, Any]
"""One run's inputs by their names: arrays with their batch dimension, lists of arrays for inputs
that are sequences."""

Header: TypeAlias = tuple[np.dtype[np.generic], tuple[int, ...]]
"""Element type and shape of an array that need not be loaded."""


@dataclass(frozen=True)
class InputSpec:
    """An input of the graph as data must fit it."""

    name: str
    type: TensorType
    preprocess: Preprocess | None = None

    @property
    def shape(self) -> tuple[Dim, ...] | None:
        return self.type.shape

    @property
    def shape_text(self) -> str:
        return shape_text(self.shape)


@dataclass(frozen=True)
class Cut:
    """How samples are cut from arrays: sample i is rows ``i*step .. (i+1)*step``.

    ``keys`` maps input names to names of arrays; arrays of the inputs in ``lacks_batch`` get
    a leading axis of size 1. ``where`` names the file.
    """

    keys: Mapping[str, str]
    dtypes: Mapping[str, np.dtype[np.generic]]
    count: int
    step: int
    lacks_batch: frozenset[str] = frozenset()
    where: str = ""

    def take(self, arrays: Mapping[str, Array], index: int) -> Sample:
        """Sample ``index``, converted to the types of the inputs. Raises QdqcError."""
        out: Sample = {}
        for name, key in self.keys.items():
            array = arrays[key]
            if name in self.lacks_batch:
                array = array[None]
            elif self.count > 1:
                array = array[index * self.step : (index + 1) * self.step]
            if array.dtype.kind == "S":
                array = self._decoded(name, array)
            out[name] = np.ascontiguousarray(array, dtype=self.dtypes[name]).reshape(array.shape)
        return out

    def _decoded(self, name: str, array: Array) -> Array:
        """Bytes as the texts that onnxruntime takes."""
        try:
            return np.char.decode(array.astype(np.bytes_), "utf-8")
        except UnicodeDecodeError as error:
            raise QdqcError(
                f"the array for input '{name}' holds a text that is not UTF-8: {error.reason}",
                file=self.where or None,
                notes=["store texts as numpy's type U, for instance array.astype('U')"],
            ) from None


def input_specs(graph: Graph) -> tuple[InputSpec, ...]:
    """What each input of the graph takes. Raises QdqcError for a sequence.

    An optional input takes what it may hold.
    """
    specs: list[InputSpec] = []
    for value in graph.inputs:
        type = value.type.item if isinstance(value.type, OptionalType) else value.type
        if not isinstance(type, TensorType):
            raise QdqcError(
                f"input '{value.name}' is a sequence, and data are arrays: none can be given",
                notes=["export the model with the parts of that sequence as inputs"],
            )
        attrs = graph.input_attrs.get(value.name)
        specs.append(InputSpec(value.name, type, Preprocess.from_attrs(attrs)))
    return tuple(specs)


def headers_of(arrays: Mapping[str, npt.ArrayLike]) -> dict[str, Header]:
    """Element types and shapes of arrays in memory."""
    whole = {n: np.asarray(a) for n, a in arrays.items()}
    return {n: (a.dtype, a.shape) for n, a in whole.items()}


def fit_arrays(
    specs: tuple[InputSpec, ...], headers: Mapping[str, Header], where: str, batch: int = 1
) -> Cut:
    """How the arrays of a file make samples.

    An array is one sample, or many along axis 0: a fixed batch B cuts rows by B, a symbol
    that leads every input cuts them by ``batch``. An array without its batch dimension is one
    sample. ``where`` names the file. Raises QdqcError that names the input and the next step.
    """
    keys = _match_names(specs, headers, where)
    by_symbol = _has_batch_symbol(specs)
    counts: dict[str, int] = {}
    steps: dict[str, int] = {}
    lacks: set[str] = set()
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in specs:
        dtype, shape = headers[keys[spec.name]]
        _check_dtype(spec, dtype, where)
        if _lacks_batch(spec, shape):
            lacks.add(spec.name)
            shape = (1, *shape)
        rows = _rows(spec, shape, where, batch if by_symbol else None)
        counts[spec.name] = 1 if rows is None else -(-shape[0] // rows)
        steps[spec.name] = rows or 1
        shapes[spec.name] = shape if rows is None else (min(rows, shape[0]), *shape[1:])
    if len(set(counts.values())) > 1:
        text = ", ".join(f"'{n}' {c}" for n, c in counts.items())
        raise QdqcError(
            f"the inputs hold different numbers of samples: {text}",
            file=where,
            notes=["give as many rows for each input"],
        )
    _check_symbols(specs, shapes, where)
    dtypes = {s.name: _dtype(s, headers[keys[s.name]][0]) for s in specs}
    first = specs[0].name
    return Cut(keys, dtypes, counts[first], steps[first], frozenset(lacks), where)


def shape_text(shape: Iterable[Dim] | None) -> str:
    """``[N,3,32,32]``, as the IR's text has it."""
    if shape is None:
        return "[*]"
    return "[" + ",".join("?" if d is None else str(d) for d in shape) + "]"


def _match_names(
    specs: tuple[InputSpec, ...], headers: Mapping[str, Header], where: str
) -> dict[str, str]:
    names = [s.name for s in specs]
    anonymous = all(n.startswith("arr_") for n in headers)
    if anonymous and len(headers) == len(specs):
        return dict(zip(names, headers, strict=True))
    for name in names:
        if name not in headers:
            has = ", ".join(f"'{n}'" for n in headers) or "nothing"
            raise QdqcError(
                f"no array for the input '{name}'; the data have {has}{suggestion(name, headers)}",
                file=where,
                notes=[f"name the arrays as the model's inputs: {', '.join(names)}"],
            )
    return {n: n for n in names}


def _dtype(spec: InputSpec, given: np.dtype[np.generic]) -> np.dtype[Any]:
    """The type of a sample: a quantized input is given as its integers, or as their numbers."""
    is_real = spec.type.quant is not None and given.kind == "f"
    return spec.type.expressed().elem.dtype if is_real else spec.type.elem.dtype


def _check_dtype(spec: InputSpec, dtype: np.dtype[np.generic], where: str) -> None:
    wanted = _dtype(spec, dtype)
    if spec.type.elem is Elem.STRING:
        fits, name, kind = dtype.kind in "USTO", "text", "str"
    else:
        castable = dtype.kind in "fiub" and np.can_cast(dtype, wanted, "same_kind")
        fits, name, kind = dtype == wanted or castable, str(wanted), str(wanted)
    if not fits:
        raise QdqcError(
            f"the array for input '{spec.name}' has type {dtype}, but the model takes {name}",
            file=where,
            notes=[f"convert it, for instance array.astype('{kind}')"],
        )


def _fits(wanted: Dim, size: int) -> bool:
    return not isinstance(wanted, int) or wanted == size


def _lacks_batch(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    wanted = spec.shape
    if wanted is None or len(shape) != len(wanted) - 1 or not _fits(wanted[0], 1):
        return False
    return all(_fits(w, s) for w, s in zip(wanted[1:], shape, strict=True))


def _rows(spec: InputSpec, shape: tuple[int, ...], where: str, batch: int | None) -> int | None:
    """Rows of one sample, or None where the whole array is one. Raises QdqcError."""
    wanted = spec.shape
    if wanted is None:
        return None
    fits = len(shape) == len(wanted)
    tail = zip(wanted[1:], shape[1:], strict=False)
    if not fits or not all(_fits(w, s) for w, s in tail):
        raise _wrong_shape(spec, shape, where)
    if wanted and shape[0] == 0 and wanted[0] != 0 and batch is not None:
        raise QdqcError(
            f"the array for input '{spec.name}' has shape {shape_text(shape)}, which is no sample",
            file=where,
            notes=["one sample or more stand one behind the other along axis 0"],
        )
    if not wanted or _fits(wanted[0], shape[0]):
        many = batch is not None and not isinstance(wanted[0] if wanted else 0, int)
        return batch if many else None
    size = wanted[0]
    assert isinstance(size, int)
    if len(wanted) < 2 or shape[0] == 0 or size == 0 or shape[0] % size:
        raise _wrong_shape(spec, shape, where)
    return size


def _wrong_shape(spec: InputSpec, shape: tuple[int, ...], where: str) -> QdqcError:
    note = "several samples may stand one behind the other along axis 0"
    if _channels_elsewhere(spec, shape):
        note = "its channels stand on another axis: array.transpose changes the order of the axes"
    return QdqcError(
        f"the array for input '{spec.name}' has shape {shape_text(shape)}, but the model takes "
        f"{spec.shape_text}",
        file=where,
        notes=[note],
    )


def _channels_elsewhere(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    """Whether an image is NHWC where the model takes NCHW, or the other way about."""
    wanted = spec.shape
    if wanted is None or len(wanted) != 4 or len(shape) != 4:
        return False
    turned = ((shape[3], *shape[1:3]), (*shape[2:], shape[1]))
    return any(all(map(_fits, wanted[1:], sizes)) for sizes in turned)


def _has_batch_symbol(specs: tuple[InputSpec, ...]) -> bool:
    """Whether one symbol leads every input, each of rank 2 or more."""
    shapes = [s.shape for s in specs]
    leads = {s[0] for s in shapes if s is not None and len(s) > 1}
    whole = all(s is not None and len(s) > 1 for s in shapes)
    return whole and len(leads) == 1 and not isinstance(next(iter(leads)), int)


def _check_symbols(
    specs: tuple[InputSpec, ...], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Within a sample a symbol stands for one size. Raises QdqcError."""
    pairs = [
        (spec, wanted, size)
        for spec in specs
        for wanted, size in zip(spec.shape or (), shapes[spec.name], strict=False)
        if isinstance(wanted, Expr)
    ]
    sizes: dict[str, int | Expr] = {}
    for _, wanted, size in pairs:
        if {wanted.text} == wanted.symbols():
            sizes.setdefault(wanted.text, size)
    for spec, wanted, size in pairs:
        expected = wanted.substitute(sizes)
        if isinstance(expected, int) and expected != size:
            raise QdqcError(
                f"input '{spec.name}' has {size} where {wanted} is {expected} in other inputs",
                file=where,
                notes=[f"the input takes {spec.shape_text}: one size for each name"],
            )
