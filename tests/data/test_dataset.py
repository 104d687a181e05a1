from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qdqc.data.choice import choose
from qdqc.data.dataset import open_dataset, open_list
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Dim, symbol
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, TensorType

N, S = symbol("N"), symbol("S")


def graph(*inputs: tuple[str, Elem, tuple[Dim, ...]], image: bool = False) -> Graph:
    out = Module().graph
    for name, elem, shape in inputs:
        attrs = Preprocess(pixel_format="rgb").to_attrs() if image else None
        out.add_input(name, TensorType(elem, shape), attrs)
    return out


def image_graph(batch: Dim = 1) -> Graph:
    return graph(("x", Elem.F32, (batch, 3, 8, 8)), image=True)


VECTOR = graph(("x", Elem.F32, (1, 4)))
TOKENS = graph(("ids", Elem.I64, (N, S)), ("mask", Elem.I64, (N, S)))


def images(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i:02}.png")


def first_numbers(samples: Any) -> list[float]:
    return [float(s["x"].reshape(-1)[0]) for s in samples]


def test_image_folder_is_recursive_and_sorted(tmp_path: Path) -> None:
    images(tmp_path / "b", 1)
    images(tmp_path / "a", 3)
    (tmp_path / "labels.txt").write_text("0")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.npz").write_bytes(b"")
    found = open_dataset(tmp_path, image_graph())
    assert len(found) == 4
    assert first_numbers(found) == [0, 1, 2, 0]
    assert first_numbers(found) == [0, 1, 2, 0], "a second time"
    sample = next(iter(found))
    assert sample["x"].shape == (1, 3, 8, 8)
    assert sample["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("batch", "expected"), [(2, [[0, 1], [2, 3], [4, 0]]), (N, [[0, 1], [2, 3], [4]])]
)
def test_images_are_put_together_to_a_batch(
    tmp_path: Path, batch: Dim, expected: list[list[int]]
) -> None:
    images(tmp_path, 5)
    found = open_dataset(tmp_path, image_graph(batch), batch=2)
    assert [s["x"][:, 0, 0, 0].tolist() for s in found] == expected


def test_npz_is_one_sample_or_many(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "many.npz", x=numbers, labels=np.arange(3))
    np.savez(tmp_path / "one.npz", x=numbers[:1])
    np.savez(tmp_path / "bare.npz", x=numbers[1])
    assert first_numbers(open_dataset(tmp_path / "many.npz", VECTOR)) == [0, 4, 8]
    assert first_numbers(open_dataset(tmp_path / "one.npz", VECTOR)) == [0]
    (sample,) = open_dataset(tmp_path / "bare.npz", VECTOR)
    assert sample["x"].tolist() == [[4, 5, 6, 7]]
    assert first_numbers(open_dataset(tmp_path, VECTOR)) == [4, 0, 4, 8, 0], "by file name"


def test_a_symbolic_batch_is_cut_by_batch(tmp_path: Path) -> None:
    ids = np.arange(30).reshape(5, 6)
    np.savez(tmp_path / "t.npz", ids=ids, mask=np.ones_like(ids))
    for batch, rows in ((1, [1] * 5), (2, [2, 2, 1]), (8, [5])):
        found = list(open_dataset(tmp_path / "t.npz", TOKENS, batch=batch))
        assert [s["ids"].shape[0] for s in found] == rows
        np.testing.assert_array_equal(np.concatenate([s["ids"] for s in found]), ids)


def test_a_symbol_means_one_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", ids=np.ones((1, 6), int), mask=np.ones((1, 5), int))
    with pytest.raises(QdqcError, match="input 'mask' has 5 where S is 6"):
        open_dataset(tmp_path / "t.npz", TOKENS)
    np.savez(tmp_path / "t.npz", ids=np.ones((3, 6), int), mask=np.ones((2, 6), int))
    with pytest.raises(QdqcError, match=r"different numbers of samples: 'ids' 3, 'mask' 2"):
        open_dataset(tmp_path / "t.npz", TOKENS)


def test_npy_folder_and_conversion(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 4), 3.0))
    np.save(tmp_path / "b.npy", np.full(4, 7, np.uint8))
    found = list(open_dataset(tmp_path, VECTOR))
    assert first_numbers(found) == [3, 3, 7]
    assert {s["x"].dtype for s in found} == {np.dtype(np.float32)}


def test_list_names_files_of_several_inputs(tmp_path: Path) -> None:
    two = graph(("x", Elem.F32, (1, 4)), ("y", Elem.F32, (1, 2)))
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    np.save(tmp_path / "y.npy", np.zeros(2, np.float32))
    np.savez(tmp_path / "both.npz", x=np.full((1, 4), 5.0), y=np.zeros((1, 2)))
    listing = tmp_path / "list.txt"
    listing.write_text("# samples\nx.npy, y.npy\n\nboth.npz\nx.npy,y.npy\n")
    found = list(open_list(listing, two))
    assert first_numbers(found) == [1, 5, 1]
    assert all(s["y"].shape == (1, 2) for s in found)
    listing.write_text("x.npy,y.npy\nx.npy\n")
    with pytest.raises(QdqcError, match=r"list.txt:2: error: the line names 1 files"):
        open_list(listing, two)
    listing.write_text("x.npy,z.npy\n")
    with pytest.raises(QdqcError, match=r"list.txt:1: error: there is no file 'z.npy'"):
        open_list(listing, two)


def test_iterables_of_dicts() -> None:
    samples = [{"x": np.full((1, 4), i, np.float32)} for i in range(5)]
    assert first_numbers(open_dataset(samples, VECTOR)) == [0, 1, 2, 3, 4]
    assert len(open_dataset(samples, VECTOR)) == 5
    assert first_numbers(open_dataset(iter(samples), VECTOR, input_num=2)) == [0, 1]
    with pytest.raises(QdqcError, match=r"sample 1: error: .*shape \[1,3\].*takes \[1,4\]"):
        list(open_dataset([samples[0], {"x": np.ones((1, 3), np.float32)}], VECTOR))
    with pytest.raises(QdqcError, match="samples are empty"):
        list(open_dataset([], VECTOR))


def test_samples_are_read_one_at_a_time(tmp_path: Path) -> None:
    images(tmp_path, 3)
    found = iter(open_dataset(tmp_path, image_graph()))
    next(found)
    (tmp_path / "01.png").write_bytes(b"gone bad since")
    with pytest.raises(QdqcError, match=r"01.png: error: can't read the image"):
        next(found)


def test_choose_draws_with_a_fixed_seed() -> None:
    assert choose(5, 0) == choose(5, 5) == choose(5, 9) == [0, 1, 2, 3, 4]
    drawn = choose(1000, 100)
    assert drawn == sorted(set(drawn))
    assert drawn == choose(1000, 100) != choose(1000, 100, seed=1)
    assert 300 < np.median(drawn) < 700, "from the whole list, not from its beginning"


def test_input_num_applies_to_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4))
    found = open_dataset(tmp_path, VECTOR, input_num=3)
    assert len(found) == 3
    assert first_numbers(found) == [4.0 * i for i in choose(10, 3)]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((1, 4))}, "no array for the input 'x'; the data have 'y'"),
        ({"X1": np.ones((1, 4)), "xx": np.ones(1)}, "name the arrays as the model's inputs: x"),
        ({"x": np.ones((1, 4), complex)}, "has type complex128, but the model takes float32"),
        ({"x": np.ones((1, 5))}, r"shape \[1,5\], but the model takes \[1,4\]"),
        ({"x": np.ones((0, 4))}, r"shape \[0,4\]"),
        ({"x": np.ones((2, 2, 4))}, r"shape \[2,2,4\]"),
        ({"x": np.array([{}], object)}, "pickled objects, which are never loaded"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(QdqcError, match=message) as found:
        open_dataset(tmp_path, VECTOR)
    assert "bad.npz: error" in str(found.value)
    assert "note: " in str(found.value)


def test_integers_are_not_made_of_floats(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", ids=np.ones((1, 6)), mask=np.ones((1, 6), int))
    with pytest.raises(QdqcError, match="'ids' has type float64, but the model takes int64"):
        open_dataset(tmp_path / "t.npz", TOKENS)


def test_folders_without_data(tmp_path: Path) -> None:
    def error(path: Path, g: Graph = VECTOR) -> str:
        with pytest.raises(QdqcError) as found:
            open_dataset(path, g)
        return str(found.value)

    assert "there is no such file or folder" in error(tmp_path / "none")
    (tmp_path / "sub").mkdir()
    assert "the folder is empty" in error(tmp_path)
    (tmp_path / "sub" / "a.txt").write_text("text")
    assert "none of its 1 files fits" in error(tmp_path)
    assert "neither an image nor npz nor npy" in error(tmp_path / "sub" / "a.txt")
    np.save(tmp_path / "a.npy", np.ones((1, 4)))
    (tmp_path / "b.npz").write_text("no zip")
    assert "several kinds: 1 npy, 1 npz" in error(tmp_path)
    assert "b.npz: error: can't read the data: it is not an npz file" in error(tmp_path / "b.npz")
    assert "one input, but the model has 2: ids, mask" in error(tmp_path / "a.npy", TOKENS)


def test_unreadable_images_are_found_before_the_first_sample(tmp_path: Path) -> None:
    images(tmp_path, 2)
    (tmp_path / "zz.jpg").write_text("no image")
    with pytest.raises(QdqcError, match=r"zz.jpg: error: can't read the image: .*no known"):
        open_dataset(tmp_path, image_graph())


def test_images_need_a_stated_preprocessing(tmp_path: Path) -> None:
    images(tmp_path, 1)
    with pytest.raises(QdqcError, match="does not say how an image becomes its input 'x'"):
        open_dataset(tmp_path, graph(("x", Elem.F32, (1, 3, 8, 8))))
    with pytest.raises(QdqcError, match="the model has no inputs"):
        open_dataset(tmp_path, graph())


def test_names_with_commas_stand_in_quotes(tmp_path: Path) -> None:
    held = graph(("x", Elem.F32, (1, 2)), ("y", Elem.F32, (1, 2)))
    for number, name in enumerate(("a,b.npy", "c.npy")):
        np.save(tmp_path / name, np.full((1, 2), number, np.float32))
    listing = tmp_path / "list.txt"
    listing.write_text('"a,b.npy", c.npy\n')
    (sample,) = open_list(listing, held)
    assert (sample["x"][0, 0], sample["y"][0, 0]) == (0, 1)


@pytest.mark.parametrize(
    ("shape", "elsewhere"), [((2, 4, 5, 3), True), ((2, 3, 6, 5), False), ((2, 5), False)]
)
def test_channels_on_another_axis_are_told(
    tmp_path: Path, shape: tuple[int, ...], *, elsewhere: bool
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    with pytest.raises(QdqcError, match="has shape") as caught:
        open_dataset(tmp_path / "x.npy", graph(("x", Elem.F32, (1, 3, 4, 5))))
    assert ("its channels stand on another axis" in str(caught.value)) == elsewhere


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_cut_short_are_found_before_the_work(tmp_path: Path, suffix: str) -> None:
    plain = tmp_path / "whole.npy"
    np.save(plain, np.zeros((1, 100), np.float32))
    cut = plain.read_bytes()[:-8]
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        path.write_bytes(cut)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", cut)
    with pytest.raises(QdqcError, match="cut short"):
        open_dataset(path, graph(("x", Elem.F32, (1, 100))))
