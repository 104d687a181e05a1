"""From a float ONNX model to a simplified module, and what became of its values on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from qdqc.data.pixel_range import doubtful_numbers
from qdqc.data.preprocess import Preprocess, looks_nhwc
from qdqc.diagnostics import QdqcError
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.samples import CheckSamples, check_samples
from qdqc.ir.clone import clone
from qdqc.ir.core import Value
from qdqc.ir.graph import Module
from qdqc.ir.spelling import print_type
from qdqc.ir.types import Array, Elem, TensorType
from qdqc.memory import memory_bytes
from qdqc.onnx_io.binding import bind_inputs
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.discovery import load_passes, pipelines
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.spec import resolve
from qdqc.runtime.comparison.against_source import AgainstSource, check_against_source
from qdqc.runtime.comparison.check import check_against
from qdqc.runtime.comparison.compare import Comparison
from qdqc.runtime.sessions.empty import EmptySteps
from qdqc.runtime.sessions.source_model import Source, SourceError
from qdqc.runtime.sessions.watch import check_rounds
from qdqc.text.qir_files import load

__all__ = ["TransformCheck", "Transformed", "transform"]

_CHECKED_SAMPLES = 1


@dataclass(frozen=True)
class TransformCheck:
    """A transformed module held against the model that it comes from, on ``source`` inputs.

    ``values`` are those of the module on the last sample, by name. ``against`` says how the
    model itself ran; it is None where that could not be, for the reason ``unchecked``, and the
    comparison is with the imported module. ``importer_differs``: so does the module before its
    passes.
    """

    comparison: Comparison
    source: str
    values: Mapping[str, Any]
    against: AgainstSource | None = None
    unchecked: str = ""
    importer_differs: bool = False

    @property
    def is_random(self) -> bool:
        return self.source == "random"


@dataclass(frozen=True)
class Transformed:
    """A simplified ``module``, the ``original`` as it was imported, and their nodes' numbers.

    ``bound`` are inputs of the source that are constants of both, with their values. ``source`` is
    the ONNX model as it was given; None where it came as a module.
    """

    module: Module
    original: Module
    imported_nodes: int
    nodes: int
    bound: Mapping[str, Array] = field(default_factory=dict[str, Array])
    source: Source | None = None

    def check(
        self,
        samples: str | Path | None = None,
        tolerance: tuple[float, float] = (0.99, 0.99),
        excepts: Sequence[str] = (),
    ) -> TransformCheck:
        """Run the module and the model it comes from, and compare every value that both have.

        That model is the ONNX file itself under onnxruntime, which the importer has no part in;
        where it does not load, the imported module. ``samples`` is a file or a folder; without it
        inputs are random. ``tolerance`` is the least cosine and euclidean similarity, unless the
        source differs from itself by more; ``excepts`` are globs of names left out. Raises
        QdqcError.
        """
        try:
            return self._check(samples, tolerance, excepts)
        except QdqcError as error:
            resized = () if self.source is None else self.source.resized
            raise error.with_notes(*(changed.hint for changed in resized)) from error

    def _check(
        self, samples: str | Path | None, tolerance: tuple[float, float], excepts: Sequence[str]
    ) -> TransformCheck:
        if samples:  # the original's own file can't say how images become its inputs
            self.original.graph.input_attrs = dict(self.module.graph.input_attrs)
        given = check_samples(self.original, samples, _CHECKED_SAMPLES)
        unchecked = ""
        if self.source is not None:
            try:
                return self._against(self.source, given, tolerance, excepts)
            except SourceError as error:
                unchecked = error.diagnostic.message
        try:
            comparison, values = check_against(
                self.module, self.original, given.samples, tolerance, excepts
            )
        except QdqcError as error:
            inputs = "random inputs may not fit: give data as `test_input`, or"
            what = inputs if given.are_random else "hold the data against the inputs, or"
            raise error.with_notes(
                f"{what} `skip_validation` of what onnxruntime can't run"
            ) from error
        return TransformCheck(comparison, given.source, values, None, unchecked)

    def _against(
        self,
        source: Source,
        given: CheckSamples,
        tolerance: tuple[float, float],
        excepts: Sequence[str],
    ) -> TransformCheck:
        against = check_against_source(
            self.module, self.original, source, given.samples, tolerance, excepts
        )
        differs = False
        if not against.comparison.passed:
            before = check_against_source(
                self.original, self.original, source, [given.first], tolerance, excepts
            )
            differs = not before.comparison.passed
        return TransformCheck(
            against.comparison, given.source, against.values, against, "", differs
        )


def transform(
    model: Any,
    *,
    name: str | None = None,
    input_shapes: Mapping[str, Sequence[int | str]] | Sequence[Sequence[int | str]] | None = None,
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
    the branches that hang on them. ``preprocess_list`` says which inputs are images, counted from
    1; by default all that look like one. A model whose weights, or one of whose values, take more
    than ``memory_limit`` bytes is refused (None: than the machine has). Raises QdqcError.
    """
    module = _imported(model, input_shapes, output_names, memory_limit)
    bound = bind_inputs(module, bind or {})
    if name is not None:
        module.name = name
    check_rounds(module)
    EmptySteps(module)
    original = clone(module)
    if preprocess is not None:
        _state_preprocessing(module, preprocess, preprocess_list, listener)
    imported = sum(1 for _ in module.walk())
    load_passes()
    passes = resolve("@transform", pipelines())
    watched: Any = {"instruments": listener.instruments, "verify_each": listener.verify_each}
    PassManager(passes, warn=listener.warn, **watched).run(module)
    nodes = sum(1 for _ in module.walk())
    source = _source(model, output_names, bound, original, listener) if _is_onnx(model) else None
    return Transformed(module, original, imported, nodes, bound, source)


def _source(
    model: Any,
    output_names: Sequence[str] | None,
    bound: Mapping[str, Array],
    original: Module,
    listener: Listener,
) -> Source:
    """The model as it was given, at the sizes that it is imported with; says which are others."""
    types = {v.name: v.type for v in original.graph.inputs}
    shapes = {n: t.shape for n, t in types.items() if isinstance(t, TensorType) and t.shape}
    source = Source(model, output_names, bound, shapes)
    for changed in source.resized:
        listener.note(changed.text)
        kept = [
            v for v in original.graph.outputs if changed.axis == 0 and _begins(v, changed.fixed)
        ]
        for value in kept:
            listener.warn(
                f"output '{value.name}' still begins with {changed.fixed}, as input "
                f"'{changed.name}' does in the file: a node inside holds that size, and what "
                "stands apart in the input is mixed"
            )
    return source


def _begins(value: Value, size: int) -> bool:
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    return shape is not None and len(shape) > 1 and shape[0] == size


def _is_onnx(model: Any) -> bool:
    """Whether it is a path of an ONNX file, or a model in memory: neither IR text nor a module."""
    is_path = isinstance(model, str | Path)
    return Path(model).suffix != ".qir" if is_path else not isinstance(model, Module)


def _imported(
    model: Any,
    input_shapes: Any,
    output_names: Sequence[str] | None,
    memory_limit: int | None,
) -> Module:
    if _is_onnx(model):
        return import_onnx(
            model,
            input_shapes=input_shapes,
            output_names=output_names,
            memory_limit=memory_limit or memory_bytes(),
        )
    text = Path(model) if isinstance(model, str | Path) else None
    if input_shapes or output_names:
        raise QdqcError(
            "`input_shapes` and `output_names` are for .onnx files",
            file=None if text is None else str(text),
            notes=["transform the .onnx file again with them"],
        )
    module: Any = model
    return clone(module) if text is None else load(text)


def _state_preprocessing(
    module: Module, stated: Preprocess, chosen: Sequence[int] | None, listener: Listener
) -> None:
    """Keep the preprocessing on the graph's image inputs, and say which it is.

    Raises QdqcError where options are stated and no input takes images by them.
    """
    graph, count = module.graph, len(module.graph.inputs)
    if chosen is not None and any(not 1 <= i <= count for i in chosen):
        raise QdqcError(
            f"`preprocess_list` names input {max(chosen)}, but there are {count}",
            notes=["inputs are counted from 1"],
        )
    nothing_said = stated == Preprocess()
    if not stated.is_image:
        if replace(stated, channel_format="nchw") != Preprocess() or chosen is not None:
            raise QdqcError(
                "`channel_format` none says that no input is an image, but how images come in is "
                "stated too",
                notes=["leave out one of both"],
            )
        return
    kept = nothing_said and bool(graph.input_attrs)  # an earlier .qir states its own
    for index, value in enumerate(graph.inputs, 1):
        wanted = chosen is not None and index in chosen
        if not wanted and (chosen is not None or kept or not _looks_like_image(value)):
            continue
        try:
            stated.check(value.tensor)
        except QdqcError:
            if wanted or not nothing_said:
                raise
            continue
        graph.input_attrs[value.name] = stated.to_attrs()
    if not nothing_said and not graph.input_attrs:
        listed = ", ".join(f"'{v.name}' {print_type(v.type)}" for v in graph.inputs)
        raise QdqcError(
            f"the options say how images come in, but no input takes images: {listed}",
            notes=["an image is a 4-D tensor; leave the options out, or fix `input_shapes`"],
        )
    _tell_preprocessing(module, listener)


def _looks_like_image(value: Value) -> bool:
    type = value.type
    if not isinstance(type, TensorType):
        return False
    return type.rank == 4 and (type.elem.is_float or type.elem is Elem.U8)


def _tell_preprocessing(module: Module, listener: Listener) -> None:
    """Say what becomes of images, and doubt what looks like a mistake."""
    for value in module.graph.inputs:
        stated = Preprocess.from_attrs(module.graph.input_attrs.get(value.name))
        if stated is not None:
            listener.note(f"images for '{value.name}': {stated.text(value.tensor)}")
            doubt = doubtful_numbers(value.name, stated)
            if doubt is not None:
                listener.warn(doubt)
        elif isinstance(value.type, TensorType) and looks_nhwc(value.type):
            listener.note(
                f"input '{value.name}' {print_type(value.type)} looks like an image with its "
                "channels last: `channel_format` nhwc lets images be given for it"
            )
