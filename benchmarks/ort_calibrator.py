"""One of onnxruntime's calibrators as a whole process, for ``calibration.py`` to measure."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ort_quantizer import CALIBRATORS, collected_ranges
from photos import centres, photo_files
from sentences import calibration_samples

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate a model on a folder of JPEG files, decoded on the way, or of npz files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a prepared ONNX model; for photos of 'input'")
    parser.add_argument("data", type=Path, help="a folder of JPEG or npz files")
    parser.add_argument("--method", choices=CALIBRATORS, default="Entropy")
    parser.add_argument("--repeat", type=int, default=1, help="times that the data are read")
    args = parser.parse_args(argv)
    photos = photo_files(args.data)
    rounds = itertools.repeat(args.data, args.repeat)
    samples = itertools.chain.from_iterable(
        centres(photos) if photos else calibration_samples(folder) for folder in rounds
    )
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        tensors = collected_ranges(args.model, augmented, samples, args.method)
    print(f"{tensors} tensors")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
