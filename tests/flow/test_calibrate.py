"""Padding that a mask among the inputs shows has no part in ranges, unless it is to have one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qdqc
from qdqc.calibration.table import Table, load_table
from qdqc.flow.calibrate import calibrate
from qdqc.flow.listener import SILENT
from qdqc.ir.graph import Module
from qdqc.text.parser import parse_module
from qdqc.text.qir_files import save
from qdqc.tools.run_calibration import main

Samples = list[dict[str, npt.NDArray[Any]]]


@pytest.fixture
def text() -> Module:
    """Attention over four positions, those left out where %m is 0."""
    return parse_module("""module @text {opsets = {"" = 17}} {
      const %far : f32[] = dense[-10000]
      const %one : f32[] = dense[1]
      const %w : f32[2,2] = dense[1, 0.5, -0.5, 1]
      graph (%x : f32[1,4,2], %m : i64[1,4]) -> (%y) {
        %h = matmul(%x, %w) : f32[1,4,2]
        %k = transpose(%h) {perm = [0, 2, 1]} : f32[1,2,4]
        %s = matmul(%h, %k) : f32[1,4,4]
        %u = unsqueeze(%m) {axes = [1]} : i64[1,1,4]
        %f = cast(%u) {to = "f32"} : f32[1,1,4]
        %i = sub(%one, %f) : f32[1,1,4]
        %a = mul(%i, %far) : f32[1,1,4]
        %t = add(%s, %a) : f32[1,4,4]
        %p = softmax(%t) : f32[1,4,4]
        %y = matmul(%p, %h) : f32[1,4,2]
      }
    }""")


def samples(*masks: list[int]) -> Samples:
    """One for each mask; the last position reaches far."""
    rng = np.random.default_rng(0)
    held = [rng.uniform(-1, 1, (1, 4, 2)).astype(np.float32) for _ in masks]
    for x in held:
        x[0, 3] = 50
    return [{"x": x, "m": np.array([m])} for x, m in zip(held, masks, strict=True)]


PADDED = samples([1, 1, 1, 0], [1, 1, 0, 0])


def table_of(module: Module, given: Samples, **options: Any) -> tuple[Table, list[str]]:
    """The table by extremes, and what people are told."""
    notes: list[str] = []
    listener = replace(SILENT, note=notes.append)
    table = calibrate(module, given, method="max", listener=listener, keep_samples=0, **options)
    return table, notes


def test_the_mask_is_found_and_told(text: Module) -> None:
    found, notes = table_of(text, PADDED)
    assert notes == ["padding by 'm' is left out of the statistics; `mask` none lets it count"]
    assert found.rows["x"].max <= 1
    assert found.header["mask"] == "m"
    given, silent = table_of(text, PADDED, mask="m")
    assert (given.rows, given.header) == (found.rows, found.header)
    assert not silent


def test_padding_counts_on_demand(text: Module) -> None:
    table, notes = table_of(text, PADDED, mask="none")
    assert not notes
    assert table.rows["x"].max == 50
    assert "mask" not in table.header


@pytest.mark.parametrize(
    "masks", [([1, 1, 1, 1], [1, 1, 1, 1]), ([1, 1, 1, 0], [2, 1, 1, 1]), ([0, 0, 0, 0],)]
)
def test_data_that_show_no_padding_change_nothing(text: Module, masks: Any) -> None:
    given = samples(*masks)
    found, notes = table_of(text, given)
    plain, _ = table_of(text, given, mask="none")
    assert not notes
    assert (found.rows, found.header) == (plain.rows, plain.header)


def test_quantize_and_the_command_find_it(text: Module, tmp_path: Path) -> None:
    done = qdqc.quantize(text, PADDED, method="max")
    assert done.table is not None
    assert done.table.header["mask"] == "m"
    plain = qdqc.quantize(text, PADDED, method="max", mask="none").table
    assert plain is not None
    assert "mask" not in plain.header
    save(text, tmp_path / "m.qir")
    data = tmp_path / "data"
    data.mkdir()
    for number, sample in enumerate(PADDED):
        np.savez(data / f"{number}.npz", **sample)
    masks: dict[str, str | None] = {}
    for mask in ("", "m", "none"):
        table = tmp_path / f"{mask}.cali_table"
        line = [str(tmp_path / "m.qir"), "--dataset", str(data), "-o", str(table)]
        assert main([*line, *(["--mask", mask] if mask else []), "--no_cache"]) == 0
        masks[mask] = load_table(table).header.get("mask")
    assert masks == {"": "m", "m": "m", "none": None}


def test_a_recipe_judges_by_what_is_no_padding(text: Module) -> None:
    steps = qdqc.quantize(text, PADDED * 5, recipe="best").report.recipe
    assert any('mask="m"' in step.pipeline for step in steps)
    plain = qdqc.quantize(text, PADDED * 5, recipe="best", mask="none").report.recipe
    assert not any("mask" in step.pipeline for step in plain)
