"""The commands one after the other over one model, with the source under onnxruntime as judge."""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

__all__ = ["MODES", "Chain", "command", "feeds_of", "source_run"]

MODES = ("INT8", "DYN8", "W8", "W4", "F16")
_SYMBOLIC = 2
"""Size of a symbol in a dimension that a model leaves open."""
_MOST = 1 << 22
"""Elements of an input that is still drawn."""
_RELATIVE = 1e-3
"""What a float result may differ by, of its largest value, beyond the source's own noise."""
_NOISE = 20.0
_FINE = (0, 1)
"""Exit codes that a command may end with: done, or refused with a reason."""


def command(name: str, *options: object) -> tuple[int, str]:
    """Run a command in this process: its exit code, and all it printed, also from native code."""
    main = importlib.import_module(f"qdqc.tools.{name}").main
    log = Path(f"printed-{name}-{len(list(Path().glob('printed-*')))}")
    kept = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for end in (1, 2):
            os.dup2(file, end)
        try:
            code = main([str(o) for o in options])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 2
    finally:
        os.close(file)
        for end, old in enumerate(kept, 1):
            os.dup2(old, end)
            os.close(old)
    return int(code or 0), log.read_text(encoding="utf-8", errors="replace")


@dataclass
class Chain:
    """Counts of what came of each step, and what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def step(self, name: str, *options: object, as_: str | None = None) -> bool:
        """Run a command; whether it ended well. No exit code but 0 and 1, and no traceback."""
        code, text = command(name, *options)
        what = as_ or name
        self.counts[f"{what}: {('ok', 'refused')[code] if code in _FINE else code}"] += 1
        if code not in _FINE or "Traceback (most recent call last)" in text:
            self.wrong.append(f"{what} ended with {code}: {text[-1500:]}")
        elif code and not re.search(r"error: |fail|tolerance", text):
            self.wrong.append(f"{what} was refused without a reason: {text[-500:]}")
        return code == 0

    def through_the_commands(
        self,
        model: Path,
        modes: Sequence[str] = MODES,
        feeds: Mapping[str, Any] | None = None,
    ) -> Chain:
        """Transform, calibrate, deploy in F32 and each of ``modes``, and inspect.

        ``feeds`` are a sample of data for the model; without them inputs are random.
        """
        judge = source_run(model, feeds)
        self.counts[f"source: {'runs' if judge else 'is not run'}"] += 1
        data: list[object] = []
        if judge and all(_is_plain(a) for a in judge.feeds.values()):
            np.savez("x.npz", **{k: v[None] if v.ndim == 0 else v for k, v in judge.feeds.items()})
            data = ["x.npz"]
        given = ("--model_def", model, "--mlir", "m.qir", "--channel_format", "none", "-q")
        checked = ("--test_input", *data) if data and feeds else ()
        if not self.step("model_transform", *given, *checked):
            return self
        self._deployed("F32", judge, list(checked))
        table = bool(data) and self.step(
            *("run_calibration", "m.qir", "--dataset", *data, "-o", "m.table", "--no_cache", "-q")
        )
        for mode in modes:
            if mode == "INT8" and not table:
                continue
            ranges = ["--calibration_table", "m.table"] if mode == "INT8" else []
            options = [*ranges, *(["--test_input", *data] if data else [])]
            if self._deployed(mode, judge, options):
                looked = ("--reference", "m.qir", "--quantized", f"{mode}.onnx", "-q", "--text")
                self.step("model_inspect", *looked, *(["--input", *data] if data else []))
        return self

    def _deployed(self, mode: str, judge: Source | None, options: list[Any]) -> bool:
        line = ("--mlir", "m.qir", "--quantize", mode, "--model", f"{mode}.onnx", "-q", *options)
        ok = self.step("model_deploy", *line, as_=f"model_deploy {mode}")
        if not ok or judge is None:
            return ok
        told = judge.differs(Path(f"{mode}.onnx"), as_float=mode == "F32")
        if told is not None:
            self.wrong.append(f"{mode} passed, but {told}")
            self.counts[f"model_deploy {mode}: passed and wrong"] += 1
        return ok


@dataclass(frozen=True)
class Source:
    """What a model file gives on ``feeds``, without and with the runtime's optimisations."""

    feeds: Mapping[str, Any]
    plain: Mapping[str, Any]
    optimised: Mapping[str, Any]

    def differs(self, file: Path, *, as_float: bool) -> str | None:
        """How the file's result is another than the source's; None where it is not.

        As float it is the same but for rounding, in the source's own noise. Otherwise it is finite
        where the source is, of the same type and, where no data decide, of the same shape.
        """
        try:
            got = _outputs(str(file), self.feeds, plain=True)
        except Exception as error:
            return f"what was written does not run: {error}"
        if list(got) != list(self.plain):
            return f"its outputs are {list(got)}, not {list(self.plain)}"
        for name, wanted in self.plain.items():
            told = self._one(name, wanted, got[name], as_float=as_float)
            if told is not None:
                return f"output {name!r} {told}"
        return None

    def _one(self, name: str, wanted: Any, got: Any, *, as_float: bool) -> str | None:
        if not isinstance(wanted, np.ndarray) or not isinstance(got, np.ndarray):
            return None if type(wanted) is type(got) else f"is a {type(got).__name__}"
        if wanted.dtype != got.dtype:
            return f"is of {got.dtype}, not {wanted.dtype}"
        if wanted.shape != got.shape:
            return f"has shape {got.shape}, not {wanted.shape}" if as_float else None
        if wanted.dtype.kind != "f":
            return "holds other values" if as_float and not np.array_equal(wanted, got) else None
        other = self.optimised[name]
        steady = wanted.shape == other.shape and np.array_equal(
            np.isfinite(wanted), np.isfinite(other)
        )
        finite = np.isfinite(wanted)
        if steady and (finite & ~np.isfinite(got)).any():
            return "is not finite where the source's is"
        if not as_float or not steady:
            return None
        if not np.array_equal(finite, np.isfinite(got)):
            return "is finite where the source's is not"
        a, b, c = (v[finite].astype(np.float64) for v in (wanted, got, other))
        noise = float(np.abs(a - c).max(initial=0.0))
        most = _RELATIVE * float(np.abs(a).max(initial=0.0)) + _NOISE * noise
        apart = float(np.abs(a - b).max(initial=0.0))
        return None if apart <= most else f"differs by {apart:.3g}, and its noise is {noise:.3g}"


def source_run(model: Path, feeds: Mapping[str, Any] | None = None) -> Source | None:
    """The model's own results on ``feeds``, by default random ones.

    None where it does not run, ends the process, or gives other results the second time.
    """
    try:
        if feeds is None:
            feeds = feeds_of(onnx.load(str(model), load_external_data=False))
        if not _survived(model, feeds):
            return None
        plain = _outputs(str(model), feeds, plain=True)
        again = _outputs(str(model), feeds, plain=True)
        optimised = _outputs(str(model), feeds, plain=False)
    except Exception:
        return None
    same = all(_same(plain[n], again[n]) for n in plain)
    return Source(feeds, plain, optimised) if same else None


def _survived(model: Path, feeds: Mapping[str, Any]) -> bool:
    """Whether a process lives on after onnxruntime ran the model in it."""
    child = os.fork()
    if child == 0:
        try:
            _outputs(str(model), feeds, plain=True)
        finally:
            os._exit(0)
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _is_plain(value: Any) -> bool:
    """Whether npz has the type."""
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or a.dtype.kind in "OUS":
        return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else True
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def feeds_of(model: ModelProto, seed: int = 0) -> dict[str, Any]:
    """Random values for a model's inputs. Raises ValueError for what is no tensor, or too large."""
    rng = np.random.default_rng(seed)
    given = {t.name for t in model.graph.initializer}
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        if value.name in given:
            continue
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type":
            raise ValueError(f"{value.name} is no tensor")
        shape = [_size(d) for d in kind.shape.dim]
        if int(np.prod([float(d) for d in shape])) > _MOST or min(shape, default=1) < 0:
            raise ValueError(f"{value.name} has {shape}")
        feeds[value.name] = np.asarray(_drawn(rng, kind.elem_type, shape))
    return feeds


def _size(dim: Any) -> int:
    """2 for each symbol of a dimension that is open, so ``past+1`` is 3."""
    if dim.HasField("dim_value"):
        return dim.dim_value
    parts = (part.strip() for part in dim.dim_param.split("+"))
    return sum(int(part) if part.isdecimal() else _SYMBOLIC for part in parts)


def _drawn(rng: np.random.Generator, elem: int, shape: list[int]) -> Any:
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    if elem == TensorProto.STRING:
        return np.full(shape, "a", object)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape)) < 0.5
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0, 3, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def _outputs(model: str, feeds: Mapping[str, Any], *, plain: bool) -> dict[str, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if plain else level.ORT_ENABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
