"""From a float ONNX model to a simplified module, and what became of its values on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.samples import check_samples
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.ir.types import Array
from qdqc.onnx_io.binding import bind_inputs
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.discovery import load_passes, pipelines
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.spec import resolve
from qdqc.runtime.comparison.check import check_against
from qdqc.runtime.comparison.compare import Comparison
from qdqc.runtime.machine import memory_bytes
from qdqc.text.qir_files import load

__all__ = ["TransformCheck", "Transformed", "transform"]

_CHECKED_SAMPLES = 1


@dataclass(frozen=True)
class TransformCheck:
    """A transformed module held against the original on ``source`` inputs.

    ``values`` are those of the module on the last sample, by name.
    """

    comparison: Comparison
    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Transformed:
    """A simplified ``module``, the ``original`` as it was imported, and their nodes' numbers.

    ``bound`` are inputs of the source that are constants of both, with their values.
    """

    module: Module
    original: Module
    imported_nodes: int
    nodes: int
    bound: Mapping[str, Array] = field(default_factory=dict[str, Array])

    def check(
        self,
        samples: str | Path | None = None,
        tolerance: tuple[float, float] = (0.99, 0.99),
        excepts: Sequence[str] = (),
    ) -> TransformCheck:
        """Run both, and compare every value that both have. Raises QdqcError.

        ``samples`` is a file or a folder; without it inputs are random. ``tolerance`` is the
        least cosine and euclidean similarity; ``excepts`` are globs of names left out.
        """
        if samples:  # the original's own file can't say how images become its inputs
            self.original.graph.input_attrs = dict(self.module.graph.input_attrs)
        given = check_samples(self.original, samples, _CHECKED_SAMPLES)
        comparison, values = check_against(
            self.module, self.original, given.samples, tolerance, excepts
        )
        return TransformCheck(comparison, given.source, values)


def transform(
    model: Any,
    *,
    name: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | None = None,
    output_names: Sequence[str] | None = None,
    bind: Mapping[str, npt.ArrayLike] | None = None,
    preprocess: Preprocess | None = None,
    preprocess_list: Sequence[int] | None = None,
    memory_limit: int | None = None,
    listener: Listener = SILENT,
) -> Transformed:
    """Import a model, state how images become its inputs, and simplify and fuse it.

    ``model`` is a ModelProto, the path of an .onnx file or of an earlier .qir, or a module.
    ``bind`` gives inputs a value that is theirs in every run; they become constants, which folds
    the branches that hang on them. ``preprocess_list`` says which inputs are images, counted from 1; by default all that look
    like one. A model whose weights, or one of whose values, take more than ``memory_limit`` bytes
    is refused (None: than the machine has). Raises QdqcError.
    """
    module = _imported(model, input_shapes, output_names, memory_limit)
    bound = bind_inputs(module, bind or {})
    if name is not None:
        module.name = name
    original = clone(module)
    if preprocess is not None:
        _state_preprocessing(module, preprocess, preprocess_list)
    imported = sum(1 for _ in module.walk())
    load_passes()
    passes = resolve("@transform", pipelines())
    watched: Any = {"instruments": listener.instruments, "verify_each": listener.verify_each}
    PassManager(passes, warn=listener.warn, **watched).run(module)
    return Transformed(module, original, imported, sum(1 for _ in module.walk()), bound)


def _imported(
    model: Any,
    input_shapes: Any,
    output_names: Sequence[str] | None,
    memory_limit: int | None,
) -> Module:
    text = Path(model) if isinstance(model, str | Path) else None
    is_text = text is not None and text.suffix == ".qir"
    if not is_text and not isinstance(model, Module):
        return import_onnx(
            model,
            input_shapes=input_shapes,
            output_names=output_names,
            memory_limit=memory_limit or memory_bytes(),
        )
    if input_shapes or output_names:
        raise QdqcError(
            "`input_shapes` and `output_names` are for .onnx files",
            file=None if text is None else str(text),
            notes=["transform the .onnx file again with them"],
        )
    module: Any = model
    return clone(module) if text is None else load(text)


def _state_preprocessing(module: Module, stated: Preprocess, chosen: Sequence[int] | None) -> None:
    """Keep the preprocessing on the graph's image inputs."""
    graph = module.graph
    if chosen is not None and any(not 1 <= i <= len(graph.inputs) for i in chosen):
        raise QdqcError(
            f"`preprocess_list` names input {max(chosen)}, but there are {len(graph.inputs)}",
            notes=["inputs are counted from 1"],
        )
    if not stated.is_image:
        return
    is_default = stated == Preprocess()
    for index, value in enumerate(graph.inputs, 1):
        wanted = chosen is not None and index in chosen
        looks = value.tensor.elem.is_float and value.tensor.rank == 4
        by_looks = chosen is None and looks and not (is_default and graph.input_attrs)
        if wanted or by_looks:
            try:
                stated.check(value.tensor)
            except QdqcError:
                if wanted or not is_default:
                    raise
                continue
            graph.input_attrs[value.name] = stated.to_attrs()
