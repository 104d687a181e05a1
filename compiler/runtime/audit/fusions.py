"""Bad fusions: where onnxruntime's kernels do not compute what the casts in them say.

The optimised model runs once, kernel by kernel. Then every stretch of the file that became one
kernel runs again, as it is written, on the very inputs that its kernel had. What follows of the
arithmetic alone is no bad fusion: roundings of integers, of float sums, and of the activations
that a kernel takes to 8 bits as it runs. Errors of earlier kernels do not pile up, and nothing is
judged by what the float ops behind a kernel make of its roundings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.onnx_io.functions import inlined
from qdqc.onnx_io.rooted import rooted_file
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.audit.stretches import Stretch, cut_out, given_name, kept_tensors, stretches
from qdqc.runtime.sessions.places import name_by_place
from qdqc.runtime.sessions.sequences import as_given
from qdqc.runtime.sessions.session import Feeds, first_line, open_session
from qdqc.scratch import scratch_folder

__all__ = ["STEPS", "BadFusion", "bad_fusions"]

Array: TypeAlias = npt.NDArray[Any]

STEPS = 3.0
"""Larger differences, in steps of a result's integers, are no matter of rounding."""

_FLOAT_ROUNDING = 2.0**-14
"""What sums of many float32 terms may be off by, relative to the sum of their sizes."""

_ROUNDING_KERNELS = frozenset({"DynamicQuantizeMatMul", "MatMulNBits"})
"""Kernels that take float activations and round them to 8 bits as they run."""

_INTEGER_RESULTS = frozenset(
    {"Constant", "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"}
)

_TRIES = 8
"""So often activations are moved by such a rounding, to see what comes of it."""

_WORST = 4.0
"""So much more than what came of the tries is no matter of that rounding."""


@dataclass(frozen=True)
class BadFusion:
    """A value that comes out otherwise than its ops say, by up to ``steps`` of its integers."""

    name: str
    op: str
    steps: float


def bad_fusions(model: str | Path, feeds: Feeds) -> list[BadFusion]:
    """Values of a QDQ model that onnxruntime's kernels compute wrongly, in graph order.

    A step is one of the integers; of a float result it is 1/255 of its extent. Values inside
    nested graphs are not looked at. Raises QdqcError where onnxruntime can't load or run the model.
    """
    path = Path(model)
    file = inlined(rooted_file(path), str(path))
    nodes = name_by_place(file.graph.node)
    with scratch_folder("fusions") as folder:
        optimised = optimised_model(file, path, folder)
        kept = kept_tensors(nodes, optimised)
        chosen = stretches(file, nodes, kept)
        if not chosen:
            return []
        judge = _Judge(file, nodes, kept)
        names = dict.fromkeys(n for s in chosen for n in (*s.given, s.result))
        judge.run_kernels(optimised, names, feeds)
    exact = judge.as_written(chosen)
    bad: list[BadFusion] = []
    for stretch in chosen:
        steps = judge.steps(stretch, exact[stretch.result])
        if steps > STEPS:
            bad.append(BadFusion(*_shown_name(file, stretch.result), steps))
    return bad


class _Judge:
    """Holds stretches of a file against the kernels that they became; ``values`` are of those."""

    def __init__(
        self, file: ModelProto, nodes: Sequence[NodeProto], kept: Mapping[str, NodeProto]
    ) -> None:
        self._file = file
        self._nodes = nodes
        self._kept = kept
        self.values: dict[str, Array] = {}

    def run_kernels(self, optimised: ModelProto, names: Iterable[str], feeds: Feeds) -> None:
        """Run the optimised model as it stands, and keep these tensors of the file."""
        there = {n: _made_by(self._kept[n], n) for n in names if n in self._kept}
        proto = _returning(optimised, list(there.values()))
        session = open_session(proto, optimise="off", threads=1)
        given = {i.name: as_given(feeds[i.name]) for i in session.get_inputs()}
        results = _run(session, list(there.values()), given)
        for (name, tensor), result in zip(there.items(), results, strict=True):
            array = np.asarray(result)
            if tensor != name and array.dtype == np.uint8:  # i8 in the file
                array = np.asarray(array.astype(np.int16) - 128, np.int8)
            given[name] = array
        self.values = given

    def as_written(
        self,
        chosen: Sequence[Stretch],
        fetched: Sequence[str] = (),
        *,
        values: Mapping[str, Array] | None = None,
        magnitudes: bool = False,
    ) -> dict[str, Array]:
        """Results of stretches, or what is ``fetched`` from them, without optimisations."""
        names = list(fetched) or [s.result for s in chosen]
        values = self.values if values is None else values
        proto = cut_out(self._file, self._nodes, chosen, values, names, magnitudes=magnitudes)
        session = open_session(proto, optimise="off", threads=1)
        given = {given_name(n): values[n] for s in chosen for n in s.given}
        results = _run(session, names, given)
        return {n: np.asarray(a) for n, a in zip(names, results, strict=True)}

    def steps(self, stretch: Stretch, exact: Array) -> float:
        """How far a kernel is off, in steps, beyond what its arithmetic explains; 0 for not."""
        fused = self.values[stretch.result]
        if fused.shape != exact.shape:
            return float("inf")
        numbers = exact.dtype.kind in "iuf" and fused.dtype == exact.dtype
        if not numbers or not exact.size or not all(map(_is_finite, self._given(stretch))):
            return 0.0  # what becomes of a number that is none is for nobody to say
        known = np.isfinite(exact)
        a, b = fused[known].astype(np.float64), exact[known].astype(np.float64)
        worst = float(np.abs(a - b).max(initial=0.0))
        step = _extent(b) / 255 if exact.dtype.kind == "f" else 1.0
        if worst <= STEPS * step or worst <= self._explained(stretch, exact):
            return 0.0
        return worst / step if step > 0 and np.isfinite(worst) else float("inf")

    def _given(self, stretch: Stretch) -> list[Array]:
        return [self.values[name] for name in stretch.given]

    def _explained(self, stretch: Stretch, exact: Array) -> float:
        """The largest difference that follows from the kernel's own arithmetic."""
        explained = self._float_rounding(stretch)
        if stretch.kernel not in _ROUNDING_KERNELS:
            return explained
        rng, moved = np.random.default_rng(0), 0.0
        attributes = self._kept[stretch.result].attribute
        block = next((a.i for a in attributes if a.name == "block_size"), 0)
        for _ in range(_TRIES):
            values = {n: _moved(a, block, rng) for n, a in self._given_by_name(stretch)}
            tried = self.as_written([stretch], values=values)[stretch.result]
            moved = max(moved, float(np.abs(tried - exact).max()))
        return explained + _WORST * moved

    def _given_by_name(self, stretch: Stretch) -> list[tuple[str, Array]]:
        return [(name, self.values[name]) for name in stretch.given]

    def _float_rounding(self, stretch: Stretch) -> float:
        """What float sums may be off by: in the numbers of the result, or in its integers."""
        nodes = [self._nodes[place] for place in stretch.places]
        floats = [n.output[0] for n in nodes if n.op_type not in _INTEGER_RESULTS]
        last = next(n for n in nodes if stretch.result in n.output)
        if not floats:
            return 0.0
        sizes = {
            n: np.abs(a) if a.dtype.kind == "f" else a for n, a in self._given_by_name(stretch)
        }
        sums = self.as_written([stretch], floats, values=sizes, magnitudes=True)
        largest = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in sums.values())
        if last.op_type != "QuantizeLinear":
            return _FLOAT_ROUNDING * largest
        scale = next((t for t in self._file.graph.initializer if t.name == last.input[1]), None)
        least = 0.0 if scale is None else float(numpy_helper.to_array(scale).min(initial=np.inf))
        return _FLOAT_ROUNDING * largest / least + STEPS if least > 0 else STEPS


def _run(session: Any, names: list[str], given: Mapping[str, Array]) -> list[Array]:
    try:
        return session.run(names, given)
    except Exception as error:
        raise QdqcError(f"onnxruntime can't run the model: {first_line(error)}") from error


def _moved(array: Array, block: int, rng: np.random.Generator) -> Array:
    """Activations as they may be after blocks of so many, 0 for all, were rounded to 8 bits."""
    if array.dtype.kind != "f" or not array.ndim or not array.size:
        return array
    block = block or array.shape[-1]
    pad = -array.shape[-1] % block
    sizes = np.pad(np.abs(array), [(0, 0)] * (array.ndim - 1) + [(0, pad)])
    largest = sizes.reshape(*array.shape[:-1], -1, block).max(axis=-1).repeat(block, axis=-1)
    half = largest[..., : array.shape[-1]] / 254
    return (array + rng.uniform(-half, half)).astype(array.dtype)


def _extent(values: Array) -> float:
    """How far apart numbers lie, those that are all the same from zero."""
    if not values.size:
        return 0.0
    return float(np.ptp(values)) or float(np.abs(values).max())


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _made_by(kernel: NodeProto, name: str) -> str:
    """The tensor of a kernel that stands for one of the file."""
    return name if name in kernel.output else kernel.output[0]


def _returning(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with these values as further outputs."""
    out = ModelProto()
    out.CopyFrom(proto)
    returned = {o.name for o in out.graph.output}
    out.graph.output.extend(ValueInfoProto(name=n) for n in names if n not in returned)
    return out


def _shown_name(proto: ModelProto, name: str) -> tuple[str, str]:
    """What people call a tensor of integers: its float view, and the op that made it."""
    makers = {o: n for n in proto.graph.node for o in n.output}
    views = [n.output[0] for n in proto.graph.node if name in n.input[:1]]
    node = makers.get(name)
    if node is None or node.op_type != "QuantizeLinear":
        return name, "" if node is None else node.op_type
    source = makers.get(node.input[0])
    return (views[0] if views else name), source.op_type if source is not None else node.op_type
