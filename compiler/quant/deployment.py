"""How a module is deployed, and the passes that do it."""

from __future__ import annotations

from dataclasses import dataclass

from qdqc.ir.spelling import print_value

__all__ = ["INT8", "Deployment", "Stages"]


@dataclass(frozen=True)
class Stages:
    """The pipelines of a deployment, one after another.

    ``planning`` brings ranges and modes onto a module and keeps its numbers, ``correction``
    changes what stays float beside the integers to come, ``quantization`` makes types integer,
    and ``lowering`` spells them out as casts.
    """

    planning: str = ""
    correction: str = ""
    quantization: str = ""
    lowering: str = ""

    @property
    def pipeline(self) -> str:
        """All of them, as the module's header keeps them."""
        stages = (self.planning, self.correction, self.quantization, self.lowering)
        return ",".join(filter(None, stages))


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """How a module is deployed, but for the data: the calibration table and the qtable.

    ``mode`` is that of nodes that no qtable names; ``group_size`` weights of 4 bits share a
    scale. ``symmetric`` fixes zero points and takes thresholds as ranges. ``correct_bias`` lets
    biases take up the mean error of rounded weights. ``leave_float`` lets nodes stay float that
    integers would slow down. ``quant_input`` and ``quant_output`` leave
    out the casts at the border, ``fuse_preprocess`` lets images come in as pixels.
    """

    target: str = "ort-cpu"
    mode: str = "INT8"
    symmetric: bool = False
    correct_bias: bool = True
    leave_float: bool = True
    group_size: int = 32
    quant_input: bool = False
    quant_output: bool = False
    fuse_preprocess: bool = False

    def stages(
        self,
        *,
        calibrated: bool = True,
        mixed: bool = False,
        quantized: bool = False,
        dynamic: bool = False,
        typed: bool = False,
    ) -> Stages:
        """The passes for a module that is ``calibrated`` by a table, or ``mixed`` by a qtable.

        A ``quantized`` module came in with scales of another tool, and is requantized; it needs
        no table. One with ``dynamic`` products, whose scales the run finds, has them laid anew.
        All float needs no step, but for a ``typed`` module, of whose types some are
        integer: it keeps what it came in with.
        """
        if self.mode == "F32" and not mixed and not self.fuse_preprocess:
            return Stages(lowering="lower-to-qdq" if typed else "")
        planning, correction = self._planning(calibrated, mixed, quantized, dynamic), list[str]()
        target = f"target={print_value(self.target)}"
        if self.correct_bias and calibrated:
            correction.append(f"correct-bias{{{target}}}")
        if self.fuse_preprocess:
            correction.append(f"fuse-preprocess{{{target}}}")
        correction.append(f"quantize-weights{{group-size={self.group_size} {target}}}")
        if self.mode != "INT8" or mixed:
            correction += [f"quantize-dynamic{{{target}}}", "convert-half", "move-casts"]
        quantization = [self.quantize_pass]
        if self.quant_input or self.quant_output:
            borders = ("inputs=true" if self.quant_input else "", self._outputs_option)
            quantization.append(f"strip-casts{{{_options(*borders, target, self._scheme)}}}")
        quantization.append("verify-target")
        first, second, third = map(",".join, (planning, correction, quantization))
        return Stages(first, second, third, "lower-to-qdq")

    @property
    def quantize_pass(self) -> str:
        """The pass that makes types integer."""
        return f"quantize{{{_options(f'target={print_value(self.target)}', self._scheme)}}}"

    def _planning(self, calibrated: bool, mixed: bool, quantized: bool, dynamic: bool) -> list[str]:
        passes = ["import-calibration"] if calibrated else []
        precision = f"assign-precision{{mode={self.mode}}}"
        if quantized or dynamic:
            passes.append(precision)  # a qtable's names are those of the module that came in
            passes += ["raise-dynamic", "fold-linear"] if dynamic else []
            passes += ["unquantize"] if quantized else []
            passes += ["canonicalize", "raise-activation", "fuse-activation", "propagate-ranges"]
        else:
            passes += ["propagate-ranges", precision]
        if self.mode == "INT8" or mixed:
            target = f"target={print_value(self.target)}"
            passes += [
                f"decompose-conv-transpose{{{target}}}",
                f"decompose-activations{{{target}}}",
            ]
            if self.leave_float and calibrated and not quantized and not dynamic:
                passes.append(f"leave-float{{{target}}}")
        return passes

    @property
    def _scheme(self) -> str:
        return "symmetric=true" if self.symmetric else ""

    @property
    def _outputs_option(self) -> str:
        return "outputs=true" if self.quant_output else ""


INT8 = Deployment()
"""INT8 for onnxruntime on x64, as ``model_deploy`` deploys without options."""


def _options(*options: str) -> str:
    return " ".join(filter(None, options))
