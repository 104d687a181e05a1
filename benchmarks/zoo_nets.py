"""Real trained networks with data and a score of their task, as ``benchmarks/zoo.py`` runs them.

Samples are what a session of the float model takes, the calibration ones and those held back.
A score says how much of what the float model finds a quantized model finds too, or of the truth
where the data hold it: 1 is everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["NETS", "Net", "Outputs", "Sample"]

Sample: TypeAlias = dict[str, npt.NDArray[Any]]
Outputs: TypeAlias = Sequence[Mapping[str, npt.NDArray[Any]]]
"""Outputs by name, sample by sample."""
Score: TypeAlias = Callable[[Outputs, Outputs], float]
Read: TypeAlias = Callable[[Path], list[Sample]]


@dataclass(frozen=True)
class Net:
    """A network by the name of its file: how its data are read, and what its score counts.

    ``data`` is the folder of its data, where it is not the network's own. ``shapes`` are those of
    its inputs, ``bind`` inputs that have one value in every run.
    """

    name: str
    read: Read
    score: Score
    task: str
    data: str = ""
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    bind: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def model(self, zoo: Path) -> Path:
        """The file of the network."""
        return zoo / "models" / f"{self.name.split('@')[0]}.onnx"

    def samples(self, zoo: Path, split: str) -> list[Sample]:
        """The samples of a split: ``calib`` or ``test``."""
        return self.read(zoo / "data" / (self.data or self.name) / split)


def _npz(path: Path) -> list[Sample]:
    samples: list[Sample] = []
    for file in sorted(path.glob("*.npz")):
        with np.load(file) as held:
            samples.append({name: held[name] for name in held.files})
    return samples


def _with_rate(path: Path) -> list[Sample]:
    return [{**sample, "sr": np.array(16000, np.int64)} for sample in _npz(path)]


def _images(name: str, mean: float, scale: float, *, bgr: bool) -> Read:
    """Reads images, NCHW, ``(x - mean) * scale``."""

    def read(path: Path) -> list[Sample]:
        samples: list[Sample] = []
        for file in sorted(p for p in path.iterdir() if p.suffix in (".png", ".jpg")):
            with Image.open(file) as opened:
                pixels = np.asarray(opened.convert("RGB"), np.float32)
            pixels = pixels[..., ::-1] if bgr else pixels
            array = ((pixels - np.float32(mean)) * np.float32(scale)).transpose(2, 0, 1)
            samples.append({name: np.ascontiguousarray(array[None])})
        return samples

    return read


def _first(outputs: Outputs, place: int = 0) -> list[npt.NDArray[Any]]:
    return [list(sample.values())[place] for sample in outputs]


def same_class(quantized: Outputs, exact: Outputs) -> float:
    """The share of rows with the float model's largest number."""
    pairs = zip(_first(quantized), _first(exact), strict=True)
    hits = [a.argmax(-1).ravel() == b.argmax(-1).ravel() for a, b in pairs]
    return float(np.concatenate(hits).mean())


def same_side(quantized: Outputs, exact: Outputs, at: float = 0.5) -> float:
    """The F1 of the numbers of the first output that lie above ``at``; of all, where none does."""
    a = np.concatenate([x.ravel() > at for x in _first(quantized)])
    b = np.concatenate([x.ravel() > at for x in _first(exact)])
    if not b.any():
        return float((a == b).mean())
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def same_pitch(quantized: Outputs, exact: Outputs) -> float:
    """Of frames that are voiced by both or one, those with a pitch within 50 cents."""
    good = every = 0
    for ours, theirs in zip(quantized, exact, strict=True):
        voiced = [o["confidence"] > 0.5 for o in (ours, theirs)]
        cents = 1200 * np.abs(np.log2(np.maximum(ours["pitch"], 1) / theirs["pitch"]))
        every += int((voiced[0] | voiced[1]).sum())
        good += int((voiced[0] & voiced[1] & (cents < 50)).sum())
    return good / max(1, every)


def cosine(quantized: Outputs, exact: Outputs) -> float:
    """The mean cosine of the first output."""
    pairs = zip(_first(quantized), _first(exact), strict=True)
    found = [
        float((a * b).sum() / max(1e-30, np.linalg.norm(a) * np.linalg.norm(b))) for a, b in pairs
    ]
    return float(np.mean(found))


def _regions(score_map: npt.NDArray[Any]) -> list[tuple[int, int, int, int]]:
    """The bounding boxes of connected pixels above .3, of more than eight pixels."""
    points = [tuple(map(int, p)) for p in np.argwhere(score_map > 0.3)]
    grid = nx.Graph()
    grid.add_nodes_from(points)
    held = set(points)
    for y, x in points:
        grid.add_edges_from(((y, x), n) for n in ((y + 1, x), (y, x + 1)) if n in held)
    boxes: list[tuple[int, int, int, int]] = []
    for part in nx.connected_components(grid):
        if len(part) > 8:
            ys, xs = zip(*part, strict=True)
            boxes.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return boxes


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, width) * max(0.0, height)
    areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
    return inside / max(1e-12, sum(areas) - inside)


def _matched(found: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> int:
    left = list(found)
    hits = 0
    for box in wanted:
        best = max(left, key=lambda other: _overlap(box, other), default=None)
        if best is not None and _overlap(box, best) > 0.5:
            left.remove(best)
            hits += 1
    return hits


def _f1(pairs: Sequence[tuple[list[Any], list[Any]]]) -> float:
    hits = sum(_matched(found, wanted) for found, wanted in pairs)
    return 2 * hits / max(1, sum(len(f) + len(w) for f, w in pairs))


def text_regions(quantized: Outputs, exact: Outputs) -> float:
    """F1 of the regions of text, matched by an overlap of one half."""
    maps = zip(_first(quantized), _first(exact), strict=True)
    return _f1([(_regions(a[0, 0]), _regions(b[0, 0])) for a, b in maps])


def _faces(sample: Mapping[str, npt.NDArray[Any]]) -> list[list[float]]:
    scores, boxes = sample["scores"][0, :, 1], sample["boxes"][0]
    left = [int(i) for i in np.argsort(-scores) if scores[i] > 0.7]
    kept: list[list[float]] = []
    for place in left:
        box = boxes[place].tolist()
        if all(_overlap(box, other) < 0.3 for other in kept):
            kept.append(box)
    return kept


def faces(quantized: Outputs, exact: Outputs) -> float:
    """F1 of the faces, matched by an overlap of one half."""
    return _f1([(_faces(a), _faces(b)) for a, b in zip(quantized, exact, strict=True)])


def _read(scores: npt.NDArray[Any]) -> tuple[int, ...]:
    best = scores[0].argmax(-1)
    return tuple(int(c) for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))


def same_text(quantized: Outputs, exact: Outputs) -> float:
    """The share of lines that are read as the float model reads them."""
    pairs = zip(_first(quantized), _first(exact), strict=True)
    return float(np.mean([_read(a) == _read(b) for a, b in pairs]))


_TEXT = 0.0078431373

NETS: tuple[Net, ...] = (
    Net("v4_det", _images("x", 127.5, _TEXT, bgr=True), text_regions, "regions"),
    Net("v4_rec", _images("x", 127.5, _TEXT, bgr=True), same_text, "lines"),
    Net("v2_cls", _images("x", 127.5, _TEXT, bgr=True), same_class, "class"),
    Net("ultraface", _images("input", 127, 0.0078125, bgr=False), faces, "faces"),
    Net("basic_pitch", _npz, same_side, "notes"),
    Net("swiftf0", _npz, same_pitch, "pitch"),
    Net("oww_alexa", _npz, same_side, "wake word"),
    Net("oww_emb", _npz, cosine, "cosine"),
    Net("magika", _npz, same_class, "class"),
    Net("nsnet16", _npz, cosine, "cosine"),
    Net("vad6_ov", _npz, same_side, "speech"),
    Net("vad6", _with_rate, same_side, "speech", "vad6_ov"),
    Net("vad6@16000", _npz, same_side, "speech", "vad6_ov", bind={"sr": np.array(16000)}),
    Net("vad6_op15", _with_rate, same_side, "speech", "vad6_ov"),
)
"""The networks of the zoo. Behind ``@`` stands what tells two uses of a file apart."""
