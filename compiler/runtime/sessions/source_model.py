"""A model as it was given, under onnxruntime: the importer and the IR have no part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf.message import EncodeError
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Dim
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.resized import resize, resized
from qdqc.onnx_io.rooted import rooted_file
from qdqc.onnx_io.structure import Wiring, all_nodes, ordered_nodes, reads
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.sequences import as_given, flattened
from qdqc.runtime.sessions.session import Feeds, first_line, open_session
from qdqc.runtime.sessions.watch import run_watched

__all__ = ["Run", "Source", "SourceError"]

Run: TypeAlias = Callable[[Feeds], dict[str, npt.NDArray[Any]]]
"""Gives values by name for one batch of inputs."""


class SourceError(QdqcError):
    """onnxruntime does not load the source, or does not run it on these inputs."""


class Source:
    """The path of an .onnx file, or a ModelProto, which is left as it is.

    ``outputs`` are the values that count, any of the main graph; by default the model's own.
    ``shapes`` are those of inputs, of which the ``resized`` ones are others than the model fixes.
    ``bound`` are values of inputs that every run is given besides its own, and ``made`` the names
    of all that its nodes make. Raises QdqcError for a path that is none of an ONNX model.
    """

    def __init__(
        self,
        model: str | Path | ModelProto,
        outputs: Sequence[str] | None = None,
        bound: Feeds | None = None,
        shapes: Mapping[str, tuple[Dim, ...]] | None = None,
    ) -> None:
        self._bound = dict(bound or {})
        self._model = model if isinstance(model, ModelProto) else Path(model)
        graph = self._read().graph
        self._shapes = dict(shapes or {})
        self.resized = resized(graph, self._shapes)
        self._watched = any(n.op_type in ("Loop", "Scan") for n in all_nodes(graph.node))
        own = [o.name for o in graph.output]
        self.outputs = own if outputs is None else list(dict.fromkeys(outputs))
        self._is_cut = self.outputs != own
        self.made = frozenset(o for node in graph.node for o in node.output if o)

    def open(self, taps: Iterable[str] = (), *, optimise: str) -> Run:
        """What runs the model for its outputs and the taps, at that level of optimisation.

        Raises SourceError where onnxruntime does not load it; what it gives raises one where
        onnxruntime does not run it on the inputs.
        """
        wanted = list(dict.fromkeys((*self.outputs, *taps)))
        try:
            session = self._session(wanted, optimise)
        except QdqcError as error:
            raise SourceError(error.diagnostic.message) from error
        except EncodeError as error:
            raise SourceError("it takes more than the 2 GB of a protobuf") from error
        needed = {i.name: i.type.startswith("tensor") for i in session.get_inputs()}
        fetched = [o.name for o in session.get_outputs()]

        def run(feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
            feeds = {**feeds, **self._bound}
            given = {
                name: np.asarray(feeds[name]) if is_tensor else as_given(feeds[name])
                for name, is_tensor in needed.items()
                if name in feeds
            }
            try:
                values = (run_watched if self._watched else fetch)(session, fetched, given)
            except QdqcError as error:
                raise SourceError(error.diagnostic.message) from error
            except Exception as error:
                raise SourceError(f"onnxruntime can't run it: {first_line(error)}") from error
            every = {**feeds, **dict(zip(fetched, values, strict=True))}
            return flattened({name: every[name] for name in wanted})

        return run

    def _read(self) -> ModelProto:
        return self._model if isinstance(self._model, ModelProto) else read_model(self._model)

    def _session(self, wanted: Sequence[str], optimise: str) -> ort.InferenceSession:
        given = self._model
        if wanted == self.outputs and not self._is_cut and not self.resized:
            return open_session(
                given if isinstance(given, ModelProto) else str(given), optimise=optimise
            )
        if isinstance(given, ModelProto):
            model = ModelProto()
            model.CopyFrom(given)
        else:
            model = rooted_file(given)
        if self.resized:
            model = resize(model, self._shapes)
        if self._is_cut:
            _cut(model.graph, wanted)
        known = {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
        model.graph.output.extend(ValueInfoProto(name=n) for n in wanted if n not in known)
        return open_session(model, optimise=optimise)


def _cut(graph: GraphProto, wanted: Sequence[str]) -> None:
    """Leave what makes these values, with the inputs that it reads."""
    needed = set(wanted)
    kept: list[NodeProto] = []
    for node in reversed(ordered_nodes(graph, Wiring(frozenset(), None))):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    inputs = [info for info in graph.input if info.name in needed]
    outputs = [info for info in graph.output if info.name in wanted]
    for field, left in (("node", kept[::-1]), ("input", inputs), ("output", outputs)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in left]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(copies)
