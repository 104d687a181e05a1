"""docs/ops.md and docs/passes.md say what the code says.

``QDQC_UPDATE_GOLDEN=1 pytest tests/test_reference_docs.py`` writes them anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qdqc.ir.op import OPS
from qdqc.ops.onnx_table import load_ops
from qdqc.pipeline.discovery import load_passes
from qdqc.pipeline.pass_ import PASSES, Pass

DOCS = Path(__file__).resolve().parents[1] / "docs"
HINT = "QDQC_UPDATE_GOLDEN=1 pytest tests/test_reference_docs.py writes it anew"


def made(page: str) -> str:
    """What a fresh process makes: other tests define ops and passes of their own here."""
    code = f"""from qdqc.ops.onnx_table import load_ops
from qdqc.pipeline.discovery import load_passes, pipelines
from qdqc.report.reference import ops_page, passes_page
load_ops(), load_passes()
print({page}, end="")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return done.stdout.decode()


def ops() -> str:
    return made("ops_page()")


def passes() -> str:
    return made("passes_page(pipelines())")


def ours() -> list[type[Pass]]:
    load_passes()
    return [cls for cls in PASSES if cls.__module__.startswith("qdqc.passes.")]


PAGES: dict[str, Callable[[], str]] = {"ops.md": ops, "passes.md": passes}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_that_of_the_code(name: str) -> None:
    page = PAGES[name]()
    if os.environ.get("QDQC_UPDATE_GOLDEN"):
        (DOCS / name).write_text(page, encoding="utf-8")
    assert (DOCS / name).read_text("utf-8") == page, HINT


def test_every_op_and_pass_says_what_it_is() -> None:
    load_ops()
    silent = [c.name for c in (*OPS, *ours()) if not (c.__doc__ or "").strip()]
    assert not silent


def test_every_rule_says_its_algebra() -> None:
    rules = [(cls, name) for cls in ours() for _, name in getattr(cls, "rules", ())]
    silent = [f"{c.name}: {name}" for c, name in rules if not getattr(c, name).__doc__]
    assert rules
    assert not silent


def test_the_page_tells_what_an_op_is_about() -> None:
    page = ops()
    conv = page.partition("### `conv(x, weight, bias?) -> (y)`")[2].partition("###")[0]
    for wanted in (
        "`group : int = 1`",
        "`clamp : [float, float] | none = none`",
        "ONNX: `Conv`, opset 7",
        "Quantized as: weighted",
    ):
        assert wanted in conv
    gelu = page.partition("### `gelu(x) -> (y)`")[2].partition("###")[0]
    assert 'approximate : "none" | "tanh" = "none"' in gelu
    assert "opset 20; written out below" in gelu
