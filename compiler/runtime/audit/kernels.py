"""What a runtime makes of a model: the kernel behind each tensor, and whether it is integer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx
import onnxruntime as ort

from qdqc.diagnostics import QdqcError
from qdqc.registry import Registry
from qdqc.runtime.sessions.session import first_line, session_options
from qdqc.scratch import scratch_folder

__all__ = [
    "INTEGER_KERNELS",
    "RUNTIMES",
    "Kernel",
    "OnnxRuntime",
    "OpenVino",
    "Runtime",
    "openvino_layers",
    "optimised_model",
]

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
    }
)

_MOVERS = frozenset(
    {
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Ops whose one kernel takes any element type and hands it on."""

_INTEGER_TYPES = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT8})
_CASTS = frozenset({"QuantizeLinear", "DequantizeLinear"})

_MOVED = "_q_to_dq"
"""What onnxruntime adds to a float value's name where it moved the cast behind it to before it."""

_NO_WORK = frozenset({"Const", "Convert", "FakeQuantize", "Input", "Output", "Reorder"})
"""Layers of OpenVINO that compute nothing of a network."""

_TOLD = ("layerType", "runtimePrecision", "originalLayersNames")
"""What OpenVINO tells of each layer."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by the runtime's own name for it."""

    op: str
    integer: bool

    @property
    def is_cast(self) -> bool:
        return self.op in _CASTS


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


def optimised_model(path: str | Path) -> onnx.ModelProto:
    """The model as onnxruntime rewrites it, without its weights' external data.

    Level "extended": the full level adds layout transposes that say nothing here.
    """
    with scratch_folder("audit") as folder:
        out = Path(folder) / "optimised.onnx"
        options = session_options(optimise="extended", threads=1)
        options.optimized_model_filepath = str(out)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise QdqcError(
                f"onnxruntime can't load the deployed model: {first_line(error)}", file=str(path)
            ) from error
        return onnx.load(str(out), load_external_data=False)


class OnnxRuntime(Runtime):
    """Kernels of onnxruntime's optimised model."""

    name = "onnxruntime"

    def kernels(self, path: str | Path) -> Mapping[str, Kernel]:
        """By tensor. A float value whose cast was moved to before it is made by that kernel."""
        model = optimised_model(path)
        integers = _integer_values(model)
        kernels = {
            name: Kernel(node.op_type, _is_integer(node, integers))
            for node in model.graph.node
            for name in node.output
            if name
        }
        file = onnx.load(str(path), load_external_data=False)
        made = {name for node in file.graph.node for name in node.output}
        moved = {n: k for n in made if (k := kernels.get(f"{n}{_MOVED}")) is not None}
        return moved | kernels


def _integer_values(model: onnx.ModelProto) -> set[str]:
    """Names of 8-bit tensors. The file states the types of few; what moves integers gives some."""
    typed = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    integers = {v.name for v in typed if v.type.tensor_type.elem_type in _INTEGER_TYPES}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
            integers.update(node.output)
        elif node.op_type in _MOVERS and node.input[0] in integers:
            integers.update(node.output[:1] if node.op_type == "MaxPool" else node.output)
    return integers


def _is_integer(maker: onnx.NodeProto, integer_values: set[str]) -> bool:
    if maker.op_type in INTEGER_KERNELS:
        return True
    if maker.op_type in _CASTS:
        return False
    return bool(maker.input) and maker.input[0] in integer_values


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
        proto = onnx.load(str(path), load_external_data=False)
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
