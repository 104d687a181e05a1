"""The names by which onnx_io/saver.py still asks for compiler.files."""

from __future__ import annotations

from compiler.files import Content as Writer
from compiler.files import write_together as replace_files

__all__ = ["Writer", "replace_files"]
