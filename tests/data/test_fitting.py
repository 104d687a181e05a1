"""Arrays, lists and folders at the edges of what fits a model's inputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qdqc.data.choice import choose
from qdqc.data.dataset import open_dataset, open_list
from qdqc.data.fit import fit_arrays, headers_of, input_specs
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Dim, symbol
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, OptionalType, SequenceType, TensorType

N, S = symbol("N"), symbol("S")


def graph(*inputs: tuple[str, Elem, tuple[Dim, ...] | None]) -> Graph:
    out = Module().graph
    for name, elem, shape in inputs:
        out.add_input(name, TensorType(elem, shape))
    return out


def image_graph(elem: Elem = Elem.F32, shape: tuple[Dim, ...] = (1, 3, 4, 4)) -> Graph:
    out = Module().graph
    out.add_input("x", TensorType(elem, shape), Preprocess(pixel_format="rgb").to_attrs())
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_samples_cover_the_rows_in_order(size: int, count: int, data: st.DataObject) -> None:
    """A fixed batch cuts arrays by it; a symbol cuts by what is asked, the rest comes last."""
    rows = size * count
    x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    fixed = list(open_dataset([{"x": x}], graph(("x", Elem.F32, (size, 2)))))
    assert len(fixed) == count
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in fixed]), x)
    batch = data.draw(st.integers(1, rows + 1))
    specs = input_specs(graph(("x", Elem.F32, (N, 2))))
    cut = fit_arrays(specs, headers_of({"x": x}), "here", batch)
    found = [cut.take({"x": x}, index)["x"] for index in range(cut.count)]
    np.testing.assert_array_equal(np.concatenate(found), x)
    assert {len(f) for f in found[:-1]} <= {batch}
    assert 1 <= len(found[-1]) <= batch


@pytest.mark.parametrize(
    ("elem", "given", "fits"),
    [
        (Elem.F32, np.float64, True),
        (Elem.F32, np.float16, True),
        (Elem.F32, np.int64, True),
        (Elem.F32, np.uint8, True),
        (Elem.F32, np.bool_, True),
        (Elem.F16, np.float32, True),
        (Elem.I64, np.int32, True),
        (Elem.I64, np.uint8, True),
        (Elem.I32, np.int64, True),
        (Elem.I64, np.float32, False),
        (Elem.F32, np.complex64, False),
        (Elem.BOOL, np.bool_, True),
    ],
)
def test_which_types_stand_for_which(elem: Elem, given: Any, fits: bool) -> None:
    samples = [{"x": np.ones((1, 2), given)}]
    found = open_dataset(samples, graph(("x", elem, (1, 2))))
    if fits:
        (sample,) = found
        assert sample["x"].dtype == elem.dtype
        assert sample["x"].tolist() == [[1, 1]]
        return
    with pytest.raises(QdqcError) as caught:
        list(found)
    text = str(caught.value)
    assert text.startswith("sample 0: error: ")
    assert f"has type {np.dtype(given)}, but the model takes {elem.dtype}" in text
    assert "note: " in text


def test_a_scalar_input_takes_a_scalar() -> None:
    both = graph(("x", Elem.F32, (1, 2)), ("k", Elem.I64, ()))
    (sample,) = open_dataset([{"x": np.ones((1, 2), np.float32), "k": np.int64(3)}], both)
    assert sample["k"].shape == ()
    assert int(sample["k"]) == 3


def test_an_input_of_unknown_rank_takes_any_array() -> None:
    samples = [{"x": np.ones(shape, np.float32)} for shape in ((2,), (3, 4))]
    found = open_dataset(samples, graph(("x", Elem.F32, None)))
    assert [s["x"].shape for s in found] == [(2,), (3, 4)]


def test_a_sequence_takes_no_data() -> None:
    out = Module().graph
    out.add_input("s", SequenceType(TensorType(Elem.F32)))
    with pytest.raises(QdqcError, match="input 's' is a sequence, and data are arrays"):
        open_dataset([{"s": 1}], out)


def test_symbols_of_dimensions_must_agree_with_sums() -> None:
    both = graph(("ids", Elem.I64, (1, S)), ("past", Elem.I64, (1, S + 1)))
    good = {"ids": np.ones((1, 3), int), "past": np.ones((1, 4), int)}
    assert len(list(open_dataset([good], both))) == 1
    with pytest.raises(QdqcError, match=r"input 'past' has 5 where S\+1 is 4 in other inputs"):
        list(open_dataset([{**good, "past": np.ones((1, 5), int)}], both))


def test_the_number_of_samples_is_a_limit_for_iterables_too() -> None:
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    one = graph(("x", Elem.F32, (1, 2)))
    found = open_dataset([{"x": x}, {"x": x + 100}], one, input_num=7)
    assert [s["x"][0, 0] for s in found] == [0, 2, 4, 6, 8, 100, 102]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(-1, 60), st.integers(0, 5))
def test_choose_gives_rising_indices(count: int, wanted: int, seed: int) -> None:
    found = choose(count, wanted, seed)
    assert found == sorted(set(found))
    assert all(0 <= i < count for i in found)
    assert len(found) == (wanted if 0 < wanted < count else count)


@pytest.mark.parametrize("elem", [Elem.F16, Elem.U8])
def test_images_have_the_type_of_the_input(tmp_path: Path, elem: Elem) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png")
    (sample,) = open_dataset(tmp_path, image_graph(elem))
    assert sample["x"].dtype == elem.dtype
    assert sample["x"][0, :, 0, 0].tolist() == [1, 2, 3]


def test_a_list_of_images_and_arrays(tmp_path: Path) -> None:
    out = image_graph()
    out.add_input("k", TensorType(Elem.F32, (1, 2)))
    Image.new("RGB", (4, 4), (7, 7, 7)).save(tmp_path / "a b.png")
    np.save(tmp_path / "k.npy", np.array([3.0, 4.0]))
    listing = tmp_path / "list.txt"
    listing.write_text("  # a comment\n a b.png ,k.npy \n\n")
    (sample,) = open_list(listing, out)
    assert sample["x"].max() == 7
    assert sample["k"].tolist() == [[3, 4]]


def told(listing: Path, text: str, model: Graph) -> str:
    listing.write_text(text)
    with pytest.raises(QdqcError) as caught:
        open_list(listing, model)
    assert "note: " in str(caught.value)
    return str(caught.value)


def test_lists_that_can_not_be_used(tmp_path: Path) -> None:
    one = graph(("x", Elem.F32, (1, 2)))
    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    np.save(tmp_path / "many.npy", np.ones((3, 2), np.float32))
    (tmp_path / "note.txt").write_text("text")
    listing = tmp_path / "list.txt"
    assert "names no files" in told(listing, "# nothing\n", one)
    assert "list.txt:1: error: there is no file ''" in told(listing, ",x.npy\n", one)
    text = told(listing, "x.npy\nnote.txt\n", one)
    assert "list.txt:2: error: 'note.txt' is neither an image nor npz nor npy" in text
    two = graph(("x", Elem.F32, (1, 2)), ("y", Elem.F32, (1, 2)))
    text = told(listing, "many.npy,x.npy\n", two)
    assert "many.npy: error: the file holds 3 samples of input 'x', but stands for one" in text
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QdqcError, match=r"list.txt: error: can't read the data"):
        open_list(listing, one)
    with pytest.raises(QdqcError, match="No such file"):
        open_list(tmp_path / "none.txt", one)


def test_relative_paths_start_at_the_list_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = graph(("x", Elem.F32, (1, 2)))
    for folder, value in (("lists", 1), ("here", 2)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.full((1, 2), value, np.float32))
    np.save(tmp_path / "here" / "only.npy", np.full((1, 2), 3, np.float32))
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "lists" / "list.txt").write_text("x.npy\nonly.npy\n")
    found = open_list(tmp_path / "lists" / "list.txt", one)
    assert [s["x"][0, 0] for s in found] == [1, 3]


def damage(path: Path, kind: str) -> None:
    np.save(path, np.ones((1, 2), np.float32))
    whole = path.read_bytes()
    if kind == "cut":
        path.write_bytes(whole[:-3])
    elif kind == "header":
        path.write_bytes(whole[:20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("kind", ["cut", "header", "empty", "pickle"])
def test_damaged_npy_files_are_told_with_the_file(tmp_path: Path, kind: str) -> None:
    damage(tmp_path / "x.npy", kind)
    with pytest.raises(QdqcError, match=r"x.npy: error: can't read the data: .*") as caught:
        list(open_dataset(tmp_path / "x.npy", graph(("x", Elem.F32, (1, 2)))))
    assert "note: " in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    (tmp_path / "x.npy").chmod(0)
    with pytest.raises(QdqcError, match="Permission denied"):
        open_dataset(tmp_path, graph(("x", Elem.F32, (1, 2))))


def test_fortran_order_and_slices_are_read_as_they_mean(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(x))
    one = graph(("x", Elem.F32, (1, 4)))
    found = list(open_dataset(tmp_path / "a.npz", one))
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in found]), x)
    assert all(s["x"].flags.c_contiguous for s in found)
    (only,) = open_dataset([{"x": x[::2, ::-1][:1]}], one)
    assert only["x"].tolist() == [[3, 2, 1, 0]]


def test_big_endian_arrays_become_the_models_type(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2]], ">f4"))
    (sample,) = open_dataset(tmp_path, graph(("x", Elem.F32, (1, 2))))
    assert sample["x"].dtype == np.dtype("<f4")
    assert sample["x"].tolist() == [[1, 2]]


def test_a_dimension_of_0_is_a_size_like_any_other() -> None:
    both = graph(("past", Elem.F32, (N, S, 2)), ("x", Elem.F32, (N, 3, 2)))
    given = {"past": np.zeros((1, 0, 2), np.float32), "x": np.ones((1, 3, 2), np.float32)}
    (sample,) = open_dataset([given], both)
    assert sample["past"].shape == (1, 0, 2)
    flat = graph(("past", Elem.F32, (S, 2)), ("x", Elem.F32, (1, 2)))
    empty = {"past": np.zeros((0, 2), np.float32), "x": np.ones((1, 2), np.float32)}
    (alone,) = open_dataset([empty], flat)
    assert alone["past"].shape == (0, 2)


@pytest.mark.parametrize("shape", [(N, 2), (4, 2)])
def test_no_rows_are_no_sample(shape: tuple[Dim, ...]) -> None:
    with pytest.raises(QdqcError, match=r"has shape \[0,2\]"):
        list(open_dataset([{"x": np.zeros((0, 2), np.float32)}], graph(("x", Elem.F32, shape))))


@pytest.mark.parametrize("stored", ["U", "S"])
def test_texts_of_an_npz(tmp_path: Path, stored: str) -> None:
    np.savez(tmp_path / "t.npz", t=np.array(["a", "bü"]).astype("U") if stored == "U" else [b"a"])
    (sample,) = open_dataset(tmp_path / "t.npz", graph(("t", Elem.STRING, (N,))))
    assert sample["t"].dtype == np.object_
    assert sample["t"].tolist() == (["a", "bü"] if stored == "U" else ["a"])
    with pytest.raises(QdqcError, match="but the model takes float32"):
        open_dataset(tmp_path / "t.npz", graph(("t", Elem.F32, (N,))))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", t=np.array([b"\xff\xfe"]))
    data = open_dataset(tmp_path / "t.npz", graph(("t", Elem.STRING, (N,))))
    with pytest.raises(QdqcError, match=r"t\.npz: error: the array for input 't' holds a text"):
        list(data)


def test_numbers_are_no_texts() -> None:
    with pytest.raises(QdqcError, match="has type int64, but the model takes text"):
        list(open_dataset([{"t": np.arange(2)}], graph(("t", Elem.STRING, (N,)))))


def test_an_optional_takes_what_it_may_hold() -> None:
    out = Module().graph
    out.add_input("o", OptionalType(TensorType(Elem.F32, (1, 2))))
    (sample,) = open_dataset([{"o": np.ones((1, 2))}], out)
    assert sample["o"].dtype == np.float32
