"""Run in an environment that holds qdqc and nothing of this checkout: ``smoke.py DIGITS FOLDER``.

What another Python or another version of a dependency can break: it loads, quantizes a model
with calibration in onnxruntime, and turns photos as their EXIF data say.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

import qdqc
from qdqc.data.images import open_image
from qdqc.runtime.sessions.onnx_file import OnnxRunner

digits, folder = Path(sys.argv[1]), Path(sys.argv[2])
assert qdqc.__file__ is not None
assert Path(qdqc.__file__).is_relative_to(sys.prefix), qdqc.__file__
assert qdqc.__version__ == version("qdqc")

images = np.random.default_rng(0).random((8, 1, 1, 32, 32), np.float32)
result = qdqc.quantize(str(digits / "digits.onnx"), [{"image": image} for image in images])
onnx.checker.check_model(result.model, full_check=True)
assert "integer: 14 of 14" in str(result.report)

aside = onnx.load(digits / "digits.onnx")  # weights in another file, which a session has to find
onnx.save(aside, folder / "aside.onnx", save_as_external_data=True, size_threshold=0)
OnnxRunner(folder / "aside.onnx", every=True).run({"image": images[0]})

exif = Image.Exif()
exif[0x0112] = 6  # shown turned by a quarter
for suffix in ("jpg", "tif"):
    Image.new("RGB", (7, 4)).save(folder / f"turned.{suffix}", exif=exif)
    turned = open_image(folder / f"turned.{suffix}").size
    assert turned == (4, 7), f"a turned {suffix} is {turned}"
print(f"qdqc {qdqc.__version__} on Python {sys.version.split()[0]}")
