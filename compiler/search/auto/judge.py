"""What a deployed model keeps of the float one, on samples that nothing was chosen by."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdqc.calibration.masking import Masking
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ops import LogSoftmax, Sigmoid, Softmax
from qdqc.runtime.comparison.choices import judged_values
from qdqc.runtime.comparison.compare import decibels
from qdqc.runtime.comparison.pooled import FEW
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.search.trials.objective import Likeness, Objective, Outputs

__all__ = ["Judge", "Quality", "judged_by"]

_UNLIKE = 1e9
_TIMED = (3, 200)
_SPENT = 0.1
"""Seconds that runs of a model take to be timed by, within these numbers of runs."""


def judged_by(module: Module) -> list[str]:
    """The values that models are judged by: ``judged_values``, and what a few saturated ones hide.

    Where an output has few numbers that a sigmoid or softmax made, nearly all of them may lie at 0
    or 1 on the samples at hand, and say little: what that op reads is judged as well.
    """
    names = judged_values(module)
    return list(dict.fromkeys([*names, *(_telling(module, name) for name in names)]))


def _telling(module: Module, name: str) -> str:
    value = module.value(name)
    shape = value.shape if value is not None else None
    width = shape[-1] if shape else 1
    if value is None or not isinstance(width, int) or width > FEW:
        return name
    node = value.producer
    while node is not None and (read := node.at(0)) is not None:
        if isinstance(node.op, Sigmoid | Softmax | LogSoftmax):
            return read.name
        if node.traits.kind is not Kind.PRESERVING:
            break
        node = read.producer
    return name


@dataclass(frozen=True)
class Quality:
    """The ``sqnr`` in dB that a model has on samples, and its ``score`` by what it is judged by.

    ``sure`` is the SQNR less its standard error: few samples say little of others.
    """

    sqnr: float
    score: float
    sure: float


class Judge:
    """Judges models by their outputs on held-back samples, and times them. One thread.

    The SQNR is that of the mean noise over signal of the outputs, each of all samples together.
    Positions that ``masking`` leaves out do not count. A ``metric`` of the user's gives the score
    instead. Raises QdqcError where onnxruntime refuses the float module.
    """

    def __init__(
        self,
        module: Module,
        names: Sequence[str],
        samples: Sequence[Feeds],
        metric: Objective | None = None,
        masking: Masking | None = None,
    ) -> None:
        self.samples, self.names = samples, tuple(names)
        self._likeness = Likeness(dict.fromkeys(names, 1 / len(names)), "snr")
        self._metric, self.masking = metric, masking
        self._exact, self.seconds = self._run(module)
        self._wanted = self._kept(self._exact)
        ideal = metric.ideal(self._exact) if metric else math.inf
        self.ideal = Quality(math.inf, ideal, math.inf)

    def noise(self, outputs: Sequence[Outputs]) -> float:
        """Noise over signal, the mean of the outputs; infinite where they can't be compared."""
        noise = 1.0 - self._likeness.score(self._kept(outputs), self._wanted)
        return math.inf if noise >= _UNLIKE else max(0.0, noise)

    def judged(self, module: Module) -> tuple[Quality, float]:
        """The quality of a module of any stage, and its seconds for the first sample.

        One that onnxruntime can't run is worth nothing, and never ends.
        """
        try:
            outputs, seconds = self._run(module)
        except QdqcError:
            return Quality(-math.inf, -math.inf, -math.inf), math.inf
        noise = self.noise(outputs)
        sqnr, sure = decibels(noise), decibels(noise + self._error(outputs))
        score = self._metric.score(outputs, self._exact) if self._metric else sure
        return Quality(sqnr, score, sure), seconds

    def _error(self, outputs: Sequence[Outputs]) -> float:
        """The standard error of the noise over signal, as that of a ratio of sums over samples.

        ``sqrt(n / (n - 1) sum (e_i - r s_i)^2) / sum s_i`` with ``r = sum e_i / sum s_i`` (Cochran,
        Sampling Techniques, 1977, 6.4), the mean of the outputs; 0 for one sample.
        """
        count = len(outputs)
        errors: list[float] = []
        for name in self.names if count > 1 else ():
            pairs = [
                (np.asarray(a[name]), np.asarray(b[name]))
                for a, b in zip(self._kept(outputs), self._wanted, strict=True)
            ]
            if any(a.shape != b.shape or b.dtype.kind != "f" for a, b in pairs):
                continue
            noise = np.array([float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs])
            signal = np.array([float(np.square(b, dtype=np.float64).sum()) for _, b in pairs])
            whole = float(signal.sum())
            if whole > 0 and np.isfinite(noise).all():
                spread = noise - noise.sum() / whole * signal
                errors.append(math.sqrt(count / (count - 1) * float((spread**2).sum())) / whole)
        return sum(errors) / len(errors) if errors else 0.0

    def losses(self, module: Module) -> list[float]:
        """The noise over signal of each sample by itself."""
        outputs, _ = self._run(module)
        pairs = zip(self._kept(outputs), self._wanted, strict=True)
        return [1.0 - self._likeness.score([ours], [exact]) for ours, exact in pairs]

    def _kept(self, outputs: Sequence[Outputs]) -> Sequence[Outputs]:
        """The outputs of the samples without what the mask leaves out."""
        masking = self.masking
        if masking is None:
            return outputs
        pairs = zip(outputs, self.samples, strict=True)
        return [{n: masking.kept(n, a, dict(s)) for n, a in o.items()} for o, s in pairs]

    def _run(self, module: Module) -> tuple[list[Outputs], float]:
        own = {v.name for v in module.graph.outputs}
        runner = Runner(module, [n for n in self.names if n not in own], threads=1)
        outputs: list[Outputs] = []
        for sample in self.samples:
            values = runner.run(sample)
            outputs.append({name: values[name] for name in self.names})
        taken: list[float] = []
        call = runner.call(self.samples[0])
        while len(taken) < _TIMED[0] or (sum(taken) < _SPENT and len(taken) < _TIMED[1]):
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
        return outputs, min(taken)
