"""onnxruntime's entropy calibrator as a whole process, for ``calibration.py`` to measure."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ort_quantizer import collect_entropy
from photos import centres, photo_files

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate a model on the photos of a folder, decoding them on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a prepared ONNX model that takes 'input'")
    parser.add_argument("photos", type=Path, help="a folder of JPEG files")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        tensors = collect_entropy(args.model, augmented, centres(photo_files(args.photos)))
    print(f"{tensors} tensors")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
