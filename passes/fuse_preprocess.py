"""fuse-preprocess: a net takes the pixels of its images, as u8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.ops import Add, Cast, Mul
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.placement import decide
from qdqc.quant.targets.target import Target, target_named

__all__ = ["FusePreprocess"]


class FusePreprocess(Pass):
    """Let image inputs be u8 pixels: ``(x - mean) * scale`` becomes part of the net.

    Where all channels share one scale and one whole mean, and integer nodes alone read the
    input, pixels are the quantized input as they are: scale ``scale``, zero point ``mean``.
    Else nodes compute it. The layout and the order of channels stay. For calibrated modules,
    between ``assign-precision`` and ``quantize``.
    """

    name = "fuse-preprocess"

    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        images = [(v, p) for v in graph.inputs if (p := _stated(graph, v)) is not None]
        if not images:
            raise QdqcError(
                "no input is an image whose preprocessing is known",
                notes=["state it at model_transform: `mean`, `scale`, `pixel_format`"],
            )
        for value, stated in images:
            if _takes_pixels(graph, value, stated, target_named(self.target)):
                ctx.statistics["inputs that pixels are as they stand"] += 1
            else:
                _spell(graph, value, stated)
                ctx.statistics["inputs computed from pixels"] += 1
        return len(images)


def _stated(graph: Graph, value: Value) -> Preprocess | None:
    """The preprocessing of a float image; None of any other input."""
    if value.tensor.elem is not Elem.F32:
        return None
    stated = Preprocess.from_attrs(graph.input_attrs.get(value.name))
    return stated if stated is not None and stated.is_image else None


def _takes_pixels(graph: Graph, value: Value, stated: Preprocess, target: Target) -> bool:
    """Make pixels the quantized input where they are it; whether they are."""
    mean, scale = stated.means, stated.scales
    whole = len(set(mean)) == len(set(scale)) == 1 and mean[0] == int(mean[0])
    fits = whole and 0 <= mean[0] <= 255 and scale[0] > 0 and target.activation is Elem.U8
    if not fits or value.is_output:
        return False
    readers = decide(graph, target)
    if not all(readers[u].integer for u in value.users):
        return False
    value.type = value.tensor.with_quant(Elem.U8, Quant.make(np.float32(scale[0]), int(mean[0])))
    return True


def _spell(graph: Graph, value: Value, stated: Preprocess) -> None:
    """x = (cast(pixels) + (-mean)) * scale, as nodes before all others.

    The input states mean 0 and scale 1 from here on: an image's numbers are its pixels.
    """
    pixels_of = replace(stated, mean=(0.0,), scale=(1.0,))
    graph.input_attrs[value.name] = pixels_of.to_attrs()
    module, wanted = graph.module, value.tensor
    shape = (1, -1, 1, 1) if stated.channel_format == "nchw" else (1, 1, 1, -1)
    first = next(graph.nodes())
    uses = value.uses
    value.type = TensorType(Elem.U8, wanted.shape)

    def constant(label: str, numbers: tuple[float, ...]) -> Value:
        array = np.array(numbers, np.float32).reshape(shape)
        return module.add_constant(module.fresh_name(f"{value.name}_{label}"), Data.of(array))

    def node(op: Any, *operands: Value) -> Value:
        name = module.fresh_name(f"{value.name}_{op.name}")
        type_ = wanted.with_range(None)
        return graph.insert(
            op, operands, [type_], [name], loc=first.loc, mode="F32", before=first
        ).result

    less = constant("mean", tuple(-m for m in stated.means))
    pixels = node(Cast(to="f32"), value)
    made = node(Mul(), node(Add(), pixels, less), constant("scale", stated.scales))
    made.type = wanted
    for use in uses:
        use.take(made)
