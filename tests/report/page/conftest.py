"""Pages of a digits-like network whose names do not mean well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdqc
from qdqc.inspection.causes import causes
from qdqc.inspection.difference import difference
from qdqc.inspection.measure import measure
from qdqc.inspection.sketch import Sketches
from qdqc.ir.graph import Module
from qdqc.report.page.gather import Sources, gather
from qdqc.report.page.payload import Inspection

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

HOSTILE = '</script><script>window.stolen=1</script><img src=x onerror=window.stolen=1>&lt;<b>"'


def text_of(name: str) -> str:
    quoted = qdqc.ir.spelling.print_string(name)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %w : f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {{
    %{quoted} = conv(%x, %w) {{clamp = [0, 6]}} : f32[1,4,8,8] loc({quoted})
    %"a/{name[:9]}/s" = sigmoid(%{quoted}) : f32[1,4,8,8] loc("/s")
    %y = mul(%"a/{name[:9]}/s", %{quoted}) : f32[1,4,8,8] loc("/y")
  }}
}}"""


@pytest.fixture(scope="session")
def hostile() -> str:
    return HOSTILE


@pytest.fixture(scope="session")
def samples() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]


@pytest.fixture(scope="session")
def ranges(samples: Any) -> qdqc.Table:
    return qdqc.calibrate(qdqc.from_text(text_of(HOSTILE)), samples, method="max")


@pytest.fixture(scope="session")
def modules(ranges: qdqc.Table) -> tuple[Module, Module]:
    """The float module, and the typed one."""
    reference = qdqc.from_text(text_of(HOSTILE))
    pipeline = "import-calibration,assign-precision,quantize"
    return reference, qdqc.run(reference, pipeline, table=ranges)


@pytest.fixture(scope="session")
def inspection(modules: tuple[Module, Module], ranges: qdqc.Table, samples: Any) -> Inspection:
    reference, quantized = modules
    sketches = Sketches(4, len(samples))
    measured = measure(quantized, reference, samples, sketches=sketches)
    found = causes(measured, quantized, reference)
    pipeline = str(quantized.header["pipeline"])
    layer = {"name": HOSTILE, "op": HOSTILE, "loss": 0.5, "float": True}
    point = {"ms": 1.0, "predicted": 1.1, "score": 0.9, "floats": 1}
    searched = {
        "scores": {"int8_cos": 0.98, "mix_cos": 0.99, "floats": 1},
        "ranking": [layer, {**layer, "name": "y", "loss": 0.1}],
        "front": [point, {**point, "ms": 2.0}],
    }
    apart = difference(reference, quantized)
    names = (HOSTILE, "the quantized one")
    sources = Sources(
        reference, quantized, samples[0], pipeline, ranges, None, searched, apart, names
    )
    return gather(sources, measured, found, sketches)
