"""What a runtime makes of a model: the kernel behind each tensor, and whether it is integer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from onnx import ModelProto

from qdqc.diagnostics import QdqcError
from qdqc.onnx_io.functions import inlined
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.rooted import rooted_file
from qdqc.onnx_io.structure import all_nodes
from qdqc.registry import Registry
from qdqc.runtime.audit.kernel import Kernel
from qdqc.runtime.audit.traced import traced
from qdqc.runtime.sessions.places import name_by_place
from qdqc.runtime.sessions.session import first_line, open_session
from qdqc.scratch import scratch_folder

__all__ = [
    "RUNTIMES",
    "OnnxRuntime",
    "OpenVino",
    "Runtime",
    "openvino_layers",
    "optimised_model",
]

_NO_WORK = frozenset({"Const", "Convert", "FakeQuantize", "Input", "Output", "Reorder"})
"""Layers of OpenVINO that compute nothing of a network."""

_TOLD = ("layerType", "runtimePrecision", "originalLayersNames")
"""What OpenVINO tells of each layer."""


RUNTIMES: Registry[Runtime] = Registry("runtime")


class Runtime:
    """What runs deployed models; defining a subclass with a ``name`` of its own registers it."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            RUNTIMES.add(cls.name, cls())

    @property
    def is_installed(self) -> bool:
        """Whether its kernels can be asked for here."""
        return True

    def kernels(self, path: str | Path) -> Mapping[str, Kernel]:
        """The kernel behind each tensor of a model file, by the names of the file.

        Raises QdqcError where the runtime can't load the model.
        """
        raise NotImplementedError(f"{type(self).__name__}.kernels")


def optimised_model(
    source: str | Path | ModelProto, file: Path | None = None, beside: Path | None = None
) -> ModelProto:
    """The model as onnxruntime rewrites it, without its weights' external data.

    ``source`` is a file, or the rooted model of one: then ``file`` is where it stands, or None.
    Those who run the model give a folder ``beside`` it that keeps its weights. Level "extended":
    the full level adds layout transposes that say nothing here. Raises QdqcError where onnxruntime
    can't load it.
    """
    with scratch_folder("audit") as scratch:
        out = (beside or Path(scratch)) / "optimised.onnx"
        place = file if isinstance(source, ModelProto) else Path(source)
        model = source if isinstance(source, ModelProto) else str(source)
        named = place and str(place)
        try:
            open_session(model, optimise="extended", threads=1, optimised=str(out), file=named)
        except QdqcError as error:
            text = error.diagnostic.message.replace("the model", "the deployed model", 1)
            raise QdqcError(text, file=named) from error
        return read_model(out) if beside is None else rooted_file(out)


class OnnxRuntime(Runtime):
    """Kernels of onnxruntime's optimised model."""

    name = "onnxruntime"

    def kernels(self, path: str | Path) -> Mapping[str, Kernel]:
        """By tensor: what was fused has the kernel into which it went.

        A float value whose cast was moved to before it is made by that kernel.
        """
        file = inlined(rooted_file(Path(path)), str(path))
        nodes = name_by_place(all_nodes(file.graph.node))
        return traced(file, nodes, optimised_model(file, Path(path)))


class OpenVino(Runtime):
    """Layers of the model that OpenVINO compiles; OpenVINO is an extra."""

    name = "OpenVINO"

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec("openvino") is not None

    def kernels(self, path: str | Path) -> Mapping[str, Kernel]:
        """By tensor. A layer that was fused stands for all nodes in it."""
        import openvino  # pyright: ignore[reportMissingImports] - an extra

        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(str(path)), "CPU")
        except Exception as error:
            raise QdqcError(
                f"OpenVINO can't load the deployed model: {first_line(error)}", file=str(path)
            ) from error
        proto = read_model(Path(path))
        makes = {node.name: list(node.output) for node in proto.graph.node}
        return _of_layers(openvino_layers(compiled), makes)


def openvino_layers(compiled: Any) -> Iterator[tuple[Kernel, list[str]]]:
    """The layers of a model that OpenVINO compiled, with the names of the nodes in each."""
    for layer in compiled.get_runtime_model().get_ops():
        info = layer.get_rt_info()
        if "layerType" in info:
            op, precision, names = (info[key].astype(str) for key in _TOLD)
            yield Kernel(op, precision in ("u8", "i8")), names.split(",")


def _of_layers(
    layers: Iterable[tuple[Kernel, list[str]]], makes: Mapping[str, list[str]]
) -> dict[str, Kernel]:
    """Kernels by tensor. Of several layers that name one node, the integer one does the work.

    A bias that is added apart leaves its product as ``{node}/WithoutBiases``.
    """
    kernels: dict[str, Kernel] = {}
    for kernel, names in layers:
        if kernel.op in _NO_WORK:
            continue
        for name in names:
            for tensor in makes.get(name.partition("/WithoutBiases")[0], ()):
                if tensor not in kernels or kernel.integer:
                    kernels[tensor] = kernel
    return kernels
