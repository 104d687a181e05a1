"""The files beside a model, each mutated, and the command that reads it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command_chain import Chain, command, source_run
from fuzz_seeds import seeds
from mutants import mutated_bytes, mutated_lines

__all__ = ["KINDS", "changed_file", "prepare"]

_DATASET = """\
import numpy as np

def dataset():
    rng = np.random.default_rng(0)
    for number in range(3):
        yield {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
"""
_METRIC = """\
import numpy as np

def metric(outputs, labels):
    return float(np.mean(np.argmax(outputs["y"], axis=1) == labels))
"""
_POST_PROCESS = """\
import numpy as np

def PostProcess(outputs):
    scores = outputs["y"]
    return {"best": np.exp(scores) / np.exp(scores).sum()}
"""
_PLUGIN = """\
from qdqc import PatternPass, rewrites
from qdqc.ops import Clip, Relu

class ReluToClip(PatternPass):
    "Turn relu into clip."
    name = "relu-to-clip"
    max: float = 6.0

    @rewrites(Relu)
    def to_clip(self, node, rw):
        return rw.op(Clip(min=0.0, max=self.max), node.operands[0])
"""
_SEARCH = ("--input_num", 2, "--inference_num", 2, "--expected_cos", 0.9999995)
_GIVEN = ("--calibration_table", "m.table", "--dataset", "x.npz")


@dataclass(frozen=True)
class _Kind:
    """A file that is mutated, the commands that read it, and the files that then stay the same."""

    file: str
    is_text: bool
    lines: tuple[tuple[object, ...], ...]
    same: tuple[str, ...] = ()


_CALIBRATE = ("run_calibration", "m.qir", "-o", "m.table", "-q")
_DEPLOY = ("model_deploy", "--mlir", "m.qir", "--model", "new.onnx", "-q")
_RANK = ("run_sensitive_layer", "m.qir", *_GIVEN, *_SEARCH, "-o", "m.qtable", "-q")
_INT8 = (*_DEPLOY, "--calibration_table", "m.table", "--test_input", "x.npz")

KINDS: dict[str, _Kind] = {
    "table": _Kind("m.table", True, (_INT8,)),
    "qtable": _Kind("m.qtable", True, ((*_INT8, "--quantize_table", "m.qtable"),)),
    "text": _Kind("m.qir", True, (_INT8,)),
    "sidecar": _Kind("m.safetensors", False, (_INT8,)),
    "npz": _Kind("x.npz", False, ((*_CALIBRATE, "--dataset", "x.npz", "--no_cache"), _INT8)),
    "npy": _Kind("x.npy", False, ((*_CALIBRATE, "--dataset", "x.npy", "--no_cache"),)),
    "list": _Kind("x.txt", True, ((*_CALIBRATE, "--data_list", "x.txt", "--no_cache"),)),
    "image": _Kind("x.png", False, ((*_CALIBRATE, "--dataset", "x.png", "--no_cache"),)),
    "statistics": _Kind(
        "cache/**/*.statistics",
        False,
        ((*_CALIBRATE, "--dataset", "x.npz", "--cache", "cache"),),
        ("table",),
    ),
    "journal": _Kind("cache/**/*.journal", True, ((*_RANK, "--cache", "cache"),), ("qtable",)),
    "dataset": _Kind("dataset.py", True, ((*_CALIBRATE, "--dataset", "dataset.py", "--no_cache"),)),
    "metric": _Kind(
        "metric.py",
        True,
        ((*_RANK, "--metric", "metric.py", "--labels", "labels.txt", "--no_cache"),),
    ),
    "labels": _Kind(
        "labels.txt",
        True,
        ((*_RANK, "--metric", "metric.py", "--labels", "labels.txt", "--no_cache"),),
    ),
    "post_process": _Kind("post.py", True, ((*_RANK, "--post_process", "post.py", "--no_cache"),)),
    "plugin": _Kind(
        "plugin.py",
        True,
        (("qir_opt", "m.qir", "--plugin", "plugin.py", "--passes", "relu-to-clip", "-o", "n.qir"),),
    ),
    "values": _Kind("values.npz", False, (("npz_tool", "compare", "values.npz", "whole.npz"),)),
    "external": _Kind(
        "w.bin", False, (("model_transform", "--model_def", "e.onnx", "--mlir", "e.qir", "-q"),)
    ),
}


def prepare(folder: Path) -> None:
    """Write a small model, and every file that a command of its could be given."""
    rng = np.random.default_rng(1)
    model, external = seeds()[0], seeds()[-1]
    Path("m.onnx").write_bytes(model.SerializeToString())
    Path("e.onnx").write_bytes(external.SerializeToString())
    Path("w.bin").write_bytes(np.linspace(-1, 1, 12, dtype=np.float32).tobytes())
    samples = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.savez("x.npz", x=samples)
    np.save("x.npy", samples)
    Path("x.txt").write_text("x.npz\nx.npz\n")
    from PIL import Image

    Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save("x.png")
    Path("labels.txt").write_text("0\n1\n2\n")
    for name, text in (
        ("dataset.py", _DATASET),
        ("metric.py", _METRIC),
        ("post.py", _POST_PROCESS),
        ("plugin.py", _PLUGIN),
    ):
        Path(name).write_text(text)
    _must("model_transform", "--model_def", "m.onnx", "--mlir", "m.qir")
    cached = ("--dataset", "x.npz", "--cache", "cache", "-o", "m.table")
    _must("run_calibration", "m.qir", *cached)
    _must("run_sensitive_layer", "m.qir", *_GIVEN, *_SEARCH, "--cache", "cache", "-o", "m.qtable")
    _must("model_runner", "--model", "m.qir", "--input", "x.npz", "--output", "values.npz")
    for name, copy in (
        ("values.npz", "whole.npz"),
        ("m.table", "whole.table"),
        ("m.qtable", "whole.qtable"),
    ):
        shutil.copy(name, copy)
    shutil.copytree(Path(), folder, dirs_exist_ok=True)


def _must(name: str, *options: object) -> None:
    code, text = command(name, *options)
    if code:
        raise RuntimeError(f"{name} {options} ended with {code}\n{text}")


def changed_file(rng: random.Random, kind: str, prepared: Path) -> Chain:
    """Mutate one file of the prepared folder, and run what reads it, in the current folder.

    What a damaged cache or journal leads to are the files of a run without it.
    """
    chain = Chain()
    which = KINDS[kind]
    shutil.copytree(prepared, Path(), dirs_exist_ok=True)
    path = rng.choice(sorted(Path().glob(which.file)))
    _mutate(rng, path, is_text=which.is_text)
    for line in which.lines:
        name = f"{line[0]} of a changed {kind}"
        ok = chain.step(str(line[0]), *line[1:], as_=name)
        if ok and line[0] == "model_deploy":
            judge = source_run(Path("m.onnx"))
            told = None if judge is None else judge.differs(Path("new.onnx"), as_float=False)
            if told is not None:
                chain.wrong.append(f"{name} passed, but {told}")
    for made in which.same:
        fresh, wanted = Path(f"m.{made}"), Path(f"whole.{made}")
        if not fresh.exists() or fresh.read_bytes() != wanted.read_bytes():
            chain.wrong.append(f"with a changed {kind} the {made} is another")
    return chain


def _mutate(rng: random.Random, path: Path, *, is_text: bool) -> None:
    """Another file for the old one: the bytes or words, or an archive's member in its inside."""
    if is_text and rng.random() < 0.8:
        path.write_text(mutated_lines(rng, path.read_text(encoding="utf-8")), encoding="utf-8")
    elif path.suffix == ".npz" and rng.random() < 0.5:
        _mutate_arrays(rng, path)
    else:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))


def _mutate_arrays(rng: random.Random, path: Path) -> None:
    """An archive that is whole, with arrays of another type, shape, name or content."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(sorted(arrays))
    change: Callable[[Any], Any] = rng.choice(
        [
            lambda a: a.astype(rng.choice(["f8", "f2", "i4", "u1", "c8", "U4", "?", "M8[s]"])),
            lambda a: a.reshape(-1),
            lambda a: a[:0],
            lambda a: a[..., :1],
            lambda a: np.where(a > 0, np.float32(rng.choice(["nan", "inf", "1e38"])), a),
            lambda a: np.zeros(a.shape, np.dtype([("a", "f4"), ("b", "i4")])),
            lambda a: a[None],
            lambda a: a * np.float32(0),
            lambda a: a.astype(a.dtype.newbyteorder()),
            lambda a: np.asfortranarray(a),
        ]
    )
    with np.errstate(all="ignore"):
        changed = change(arrays.pop(name))
    arrays[rng.choice([name, name, name, "../../x", "y", ""])] = changed
    np.savez(path, **arrays)
