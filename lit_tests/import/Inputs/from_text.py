"""Makes an ONNX file of the text form of ONNX that a test holds between two lines of dashes."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx.parser


def main(test: str, target: str) -> None:
    _, text, *_ = Path(test).read_text(encoding="utf-8").split("\n----\n")
    model = onnx.parser.parse_model(text)
    onnx.save(model, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
