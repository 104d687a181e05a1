"""Samples beside a table: small, whole, and found again only by the table that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qdqc
from qdqc.calibration import kept_samples
from qdqc.calibration.kept_samples import KEPT, kept_of, samples_path
from qdqc.calibration.table import load_table, save_table
from qdqc.data.dataset import open_dataset
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import deploy
from qdqc.flow.listener import Listener
from qdqc.tools.run_calibration import main as calibrate

IMAGENET = Preprocess(
    mean=(123.7, 116.3, 103.5), scale=(0.0171, 0.0175, 0.0174), pixel_format="rgb"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        array = np.full((9, 12, 3), number, np.uint8)
        array[1:] = rng.integers(0, 256, (8, 12, 3))
        Image.fromarray(array).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def module(tiny_onnx: Path) -> qdqc.Module:
    return qdqc.transform(tiny_onnx, preprocess=IMAGENET).module


def test_images_are_kept_as_pixels_from_all_over_the_data(
    module: qdqc.Module, photos: Path, tmp_path: Path
) -> None:
    data = open_dataset(photos, module.graph)
    table = qdqc.calibrate(module, photos)
    save_table(table, tmp_path / "net.cali_table")
    with np.load(tmp_path / "net.cali_table.samples.npz") as stored:
        assert {a.dtype for a in stored.values()} == {np.dtype(np.uint8)}
        assert len(stored) == KEPT
    kept = load_table(tmp_path / "net.cali_table").kept()
    assert kept is not None
    every = [s["x"].tobytes() for s in data]
    places = [every.index(s["x"].tobytes()) for s in kept.samples(module.graph)]
    assert places == [i * 40 // KEPT for i in range(KEPT)]


def test_other_numbers_are_kept_as_they_are(tiny_onnx: Path) -> None:
    module = qdqc.transform(tiny_onnx).module
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    kept = qdqc.calibrate(module, [{"x": row[None]} for row in x]).kept()
    assert kept is not None
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in kept.samples(module.graph)]), x)


def test_they_are_bounded(
    module: qdqc.Module, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(photos, module.graph)
    monkeypatch.setattr(kept_samples, "MOST_BYTES", 3 * 3 * 64)
    few = kept_of(data, module.graph, KEPT)
    assert few is not None
    assert len(few.arrays) == 3
    monkeypatch.setattr(kept_samples, "MOST_BYTES", 100)
    assert kept_of(data, module.graph, KEPT) is None


def test_a_deployment_checks_on_them(module: qdqc.Module, photos: Path, tmp_path: Path) -> None:
    qir, table = tmp_path / "net.qir", tmp_path / "net.cali_table"
    qdqc.save(module, qir)
    words = [str(qir), "--dataset", str(photos), "-o", str(table), "-q", "--no_cache"]
    assert calibrate(words) == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (table, samples_path(table)):
        path.rename(moved / path.name)
    deployed = deploy(module, table=load_table(moved / "net.cali_table"))
    given = deployed.samples()
    assert (given.source, len(given.samples)) == ("calibration", KEPT)
    assert calibrate([*words, "--keep_samples", "0"]) == 0
    assert not samples_path(table).exists()
    assert "kept samples" not in load_table(table).header
    assert deploy(module, table=load_table(table)).samples().are_random


@pytest.mark.parametrize("damage", ["gone", "cut", "other", "names"])
def test_what_is_not_theirs_is_warned_of_and_left(
    module: qdqc.Module, photos: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "net.cali_table"
    save_table(qdqc.calibrate(module, photos), path)
    beside = samples_path(path)
    if damage == "gone":
        beside.unlink()
    elif damage == "cut":
        beside.write_bytes(beside.read_bytes()[:-50])
    elif damage == "other":
        np.savez(beside, **{"0/x": np.zeros((1, 3, 8, 8), np.float32)})
    else:
        np.savez(beside, x=np.zeros((1, 3, 8, 8), np.float32))
    said: list[str] = []
    listener = Listener(warn=lambda w: said.append(str(getattr(w, "message", w))))
    deployed = deploy(module, table=load_table(path))
    assert deployed.samples(listener=listener).are_random
    assert len(said) == 1
    with pytest.raises(QdqcError):
        load_table(path).kept()
    save_table(load_table(path), tmp_path / "copy.cali_table")
    assert "kept samples" not in load_table(tmp_path / "copy.cali_table").header


def test_a_table_that_is_written_elsewhere_takes_them_along(
    module: qdqc.Module, photos: Path, tmp_path: Path
) -> None:
    save_table(qdqc.calibrate(module, photos), tmp_path / "a")
    save_table(load_table(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert samples_path(tmp_path / "a").read_bytes() == samples_path(tmp_path / "b").read_bytes()
