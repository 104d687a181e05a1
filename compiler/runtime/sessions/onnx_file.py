"""Runs an ONNX file as it is, with taps on all of its tensors; the IR has no part in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Quant
from qdqc.onnx_io.rooted import rooted_file
from qdqc.onnx_io.shapes import input_types
from qdqc.onnx_io.structure import all_nodes
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.sequences import as_given, flattened
from qdqc.runtime.sessions.session import Feeds, first_line, open_session
from qdqc.runtime.sessions.taps import Tap
from qdqc.runtime.sessions.watch import run_watched

__all__ = ["OnnxRunner"]

_CLAMPS = frozenset({"Clip", "Relu"})
"""What onnxruntime takes into an integer kernel on the way to its QuantizeLinear."""


class OnnxRunner:
    """An ONNX file under onnxruntime; ``graph`` holds the types of its inputs, and no nodes.

    ``every`` gives all tensors of the main graph beside the outputs. A quantized value has one
    name, that of the value before it was quantized, and is fetched as integers, so that integer
    kernels stay integer. ``fixed`` gives stored integers. Raises QdqcError.
    """

    def __init__(self, path: str | Path, *, every: bool = False, fixed: bool = False) -> None:
        self.path = Path(path)
        model = rooted_file(self.path)
        self.graph = _inputs_of(model.graph, str(path))
        self.inputs = [v.name for v in self.graph.inputs]
        self.outputs = [o.name for o in model.graph.output]
        self._fixed = fixed
        self._watched = any(n.op_type in ("Loop", "Scan") for n in all_nodes(model.graph.node))
        taps = _Tensors(model.graph)
        self._taps = {n: Tap(n) for n in self.inputs} | taps.observable() if every else {}
        for name in self.outputs:
            self._taps[name] = taps.tap(name) if fixed else Tap(name)
        fetchable = {*self.outputs, *self.inputs}
        fetched = dict.fromkeys(t.fetched for t in self._taps.values())
        model.graph.output.extend(ValueInfoProto(name=n) for n in fetched if n not in fetchable)
        self._session = open_session(model, file=str(path))

    def run(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """Taps and outputs by name for one batch of inputs. Raises QdqcError."""
        given = {n: as_given(feeds[n]) for n in self.inputs}
        fetched = dict.fromkeys(t.fetched for t in self._taps.values())
        wanted = [n for n in fetched if n not in given]
        try:
            values = self._values(wanted, given) if wanted else []
        except QdqcError:
            raise
        except Exception as error:
            raise QdqcError(
                f"onnxruntime can't run the model: {first_line(error)}",
                file=str(self.path),
                notes=["hold the shapes of the input data against those of the model"],
            ) from error
        every = given | dict(zip(wanted, values, strict=True))
        taps = self._taps.items()
        return flattened(
            {name: tap.shown(every[tap.fetched], fixed=self._fixed) for name, tap in taps}
        )

    def _values(self, wanted: list[str], feeds: dict[str, Any]) -> Sequence[Any]:
        if self._watched:
            return run_watched(self._session, wanted, feeds)
        return fetch(self._session, wanted, feeds)


def _inputs_of(graph: GraphProto, file: str) -> Graph:
    """A graph that has the file's inputs, without those that initializers fill."""
    out = Module().graph
    for name, type_ in input_types(graph, file).items():
        out.add_input(name, type_)
    return out


class _Tensors:
    """What the nodes of a graph make, and how each tensor is looked at."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants = {t.name: t for t in graph.initializer}
        self.outputs = {o.name for o in graph.output}
        self.makers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self._read(graph)

    def _read(self, graph: GraphProto) -> None:
        top = not self.makers
        for node in graph.node:
            if top:
                self.makers |= dict.fromkeys((o for o in node.output if o), node)
            for name in node.input:
                self.readers[name].append(node)
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    self._read(inner)

    def observable(self) -> dict[str, Tap]:
        """As ``taps.observable`` does for modules."""
        taps: dict[str, Tap] = {}
        for name, maker in self.makers.items():
            taps |= self._seen_as(name, maker)
        return taps

    def _seen_as(self, name: str, maker: NodeProto) -> dict[str, Tap]:
        if name in self.outputs:
            return {name: Tap(name)}
        if maker.op_type == "QuantizeLinear":
            views = [r for r in self.readers[name] if r.op_type == "DequantizeLinear"]
            if not views:
                return {name: Tap(name)}
            source, view = maker.input[0], views[0].output[0]
            if self._is_only_quantized(source):  # the other name was made from the shorter one
                return {min(source, view, key=len): self.tap(view)}
            return {view: self.tap(view)}
        if maker.op_type == "DequantizeLinear":
            stored = self.makers.get(maker.input[0])
            stands_for = stored is None or stored.op_type == "QuantizeLinear"
            return {} if stands_for else {name: self.tap(name)}
        hidden = maker.op_type == "Constant" or self._is_only_quantized(name)
        return {} if hidden else {name: Tap(name)}

    def _is_only_quantized(self, name: str) -> bool:
        """Whether all that read it quantize it, at once or behind a Relu or Clip."""
        readers = self.readers[name]
        if name not in self.makers or name in self.outputs or not readers:
            return False
        return all(
            r.op_type == "QuantizeLinear"
            or (r.op_type in _CLAMPS and self._is_only_quantized(r.output[0]))
            for r in readers
        )

    def tap(self, name: str) -> Tap:
        """A dequantized tensor is fetched as integers where its scale is known."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return Tap(name)
        quant = self._quant(maker)
        if quant is None or maker.input[0] in self.constants:
            return Tap(name)
        return Tap(maker.input[0], quant)

    def _quant(self, node: NodeProto) -> Quant | None:
        """Scale and zero point of a DequantizeLinear; None where they are computed or blocked."""
        attrs = {a.name: a.i for a in node.attribute}
        tensors = [self.constants.get(n) for n in node.input[1:] if n]
        if attrs.get("block_size") or not tensors or not all(map(_is_inline, tensors)):
            return None
        arrays = [numpy_helper.to_array(t) for t in tensors if t is not None]
        if arrays[0].dtype != np.float32 or arrays[0].ndim > 1:
            return None
        axis = attrs.get("axis", 1) if arrays[0].ndim else None
        return Quant.make(arrays[0], arrays[1] if len(arrays) > 1 else 0, axis)


def _is_inline(tensor: TensorProto | None) -> bool:
    return tensor is not None and tensor.data_location != TensorProto.EXTERNAL
