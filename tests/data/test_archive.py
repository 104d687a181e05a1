"""npz files: round trips, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.data import archive as archive_module
from qdqc.data.archive import Archive, copy_arrays, write_arrays
from qdqc.data.sample_files import load, read_headers
from qdqc.diagnostics import QdqcError

NAMES = st.text("abc/._:- é", min_size=1, max_size=12).filter(lambda n: not n.endswith(".npy"))
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int8, np.bool_, np.int64, np.complex64]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=4, min_side=0),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, arrays: dict) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    write_arrays(path, arrays)
    found = Archive(path)
    assert list(found) == list(arrays)
    with np.load(path) as theirs:
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
            np.testing.assert_array_equal(theirs[name], array)


def test_names_that_numpy_savez_takes_for_its_own(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"file": np.ones(1), "allow_pickle": np.zeros(1)})
    assert list(Archive(tmp_path / "a.npz")) == ["file", "allow_pickle"]


def test_types_that_npz_has_not(tmp_path: Path) -> None:
    given = {
        "bf16": np.array([1.5, -2], ml_dtypes.bfloat16),
        "i4": np.array([7, -8], ml_dtypes.int4),
        "text": np.array(["a", "bc"], np.object_),
    }
    write_arrays(tmp_path / "a.npz", given)
    found = Archive(tmp_path / "a.npz")
    assert (found["bf16"].dtype, found["i4"].dtype) == (np.float32, np.int8)
    assert [found[n].tolist() for n in given] == [[1.5, -2], [7, -8], ["a", "bc"]]


def test_a_file_of_numpy_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), y=np.float32(3))
    found = Archive(tmp_path / "a.npz")
    assert len(found) == 2
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["y"].shape == ()


def damaged(path: Path, kind: str) -> None:
    np.savez(path, x=np.arange(100.0))
    blob = bytearray(path.read_bytes())
    if kind == "text":
        path.write_text("hello")
    elif kind == "cut":
        path.write_bytes(blob[:-40])
    elif kind == "bits":
        blob[400] ^= 0xFF
        path.write_bytes(blob)
    elif kind == "pickle":
        np.savez(path, x=np.array([{}], dtype=object))
    elif kind == "claims":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header.getvalue() + b"\0" * 64)
    elif kind == "no array":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"not an array at all")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "this is not an npz file"),
        ("cut", "this is not an npz file"),
        ("bits", "can't read the array 'x': Bad CRC-32"),
        ("pickle", "it holds pickled objects, which are never loaded"),
        ("claims", "it is cut short: 8000000000000 bytes of numbers do not fit"),
        ("no array", "can't read the array 'x'"),
    ],
)
def test_damaged_files_are_told_with_the_file(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "a.npz"
    damaged(path, kind)
    with pytest.raises(QdqcError) as caught:
        _ = Archive(path)["x"]
    assert str(caught.value).startswith(f"{path}: error: ")
    assert message in str(caught.value)
    assert "note: " in str(caught.value)


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="No such file"):
        Archive(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", logits=np.ones(1))
    with pytest.raises(QdqcError, match=r"no array 'logit'; did you mean 'logits'\?"):
        _ = Archive(tmp_path / "a.npz")["logit"]


def test_inputs_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(1))
    before = path.read_bytes()
    with pytest.raises(QdqcError, match="is also an input"):
        write_arrays(path, {"x": np.zeros(1)}, [path])
    assert path.read_bytes() == before


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_pieces_put_together_are_the_array(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict, size: int, turned: bool
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    given = {n: np.asfortranarray(a) if turned else a for n, a in arrays.items()}
    write_arrays(path, given)
    with pytest.MonkeyPatch.context() as patch, Archive(path) as found:
        patch.setattr(archive_module, "CHUNK", size)
        for name, array in given.items():
            pieces = list(found.chunks(name))
            assert all(0 < p.size <= size for p in pieces)
            flat = np.concatenate([np.zeros(0, array.dtype), *pieces])
            np.testing.assert_array_equal(flat, array.reshape(-1))
            header = found.header(name)
            assert (header.dtype, header.shape) == (array.dtype, array.shape)
            assert str(header) == f"{array.dtype}{list(array.shape)}"


def test_a_copy_is_the_array_bit_for_bit(tmp_path: Path) -> None:
    odd = {"a/b c": np.array([np.nan, -0.0]), "é": np.array([3, -4], ml_dtypes.int4)}
    np.savez_compressed(tmp_path / "a.npz", **odd)
    source = Archive(tmp_path / "a.npz")
    copy_arrays(tmp_path / "b.npz", {"new": (source, "a/b c"), "é": (source, "é")})
    with zipfile.ZipFile(tmp_path / "a.npz") as a, zipfile.ZipFile(tmp_path / "b.npz") as b:
        assert b.namelist() == ["new.npy", "é.npy"]
        assert a.read("a/b c.npy") == b.read("new.npy")
        assert a.read("é.npy") == b.read("é.npy")


@pytest.mark.parametrize("kind", ["bits", "pickle", "claims"])
def test_damaged_arrays_are_not_copied(tmp_path: Path, kind: str) -> None:
    damaged(tmp_path / "a.npz", kind)
    source = Archive(tmp_path / "a.npz")
    with pytest.raises(QdqcError, match="can't read the array 'x'"):
        copy_arrays(tmp_path / "b.npz", {"x": (source, "x")})
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"], "nothing half-written"


def test_a_file_is_opened_once_within_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arrays(tmp_path / "a.npz", {f"n{i}": np.ones(1) for i in range(20)})
    found = Archive(tmp_path / "a.npz")
    opened: list[object] = []
    real = zipfile.ZipFile

    def counted(*args: object, **named: object) -> zipfile.ZipFile:
        opened.append(args)
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(archive_module.zipfile, "ZipFile", counted)
    with found:
        assert [found[n].size for n in found] == [1] * 20
    assert len(opened) == 1
    assert found["n0"].size == 1, "and it is read outside of it too"


DESCR = ("'<f4'", "'|S0'", "'|V0'", "'(3,)<f4'", "[('a', '<f4')]", "[]", "None", "'zz'", "'<f4,'")
SHAPES = (
    *("(1, 4)", "(-1, 4)", "(True, 4)", "(1.5,)", "None", "4", "(1, '4')", "(0, 10**20)"),
    *("(100000000000000000000,)", "(0, 100000000000000000000)", f"({'1, ' * 70}4)"),
)
FORM = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}\n"
HEADERS = (
    *(FORM.format(d, s) for d in DESCR for s in SHAPES),
    *("", "{", "{'descr': '<f4'}\n", "(" * 9000, "[" * 2000 + "]" * 2000, "-" * 5000 + "1"),
    *("{1: 2, **{}}\n", "lambda: 0\n", "\0", "1" * 9000),
)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 9)])
def test_any_header_is_read_or_refused_with_the_file(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    """By all that reads arrays: none of it raises anything else."""
    npz, npy = tmp_path / "a.npz", tmp_path / "a.npy"
    told: list[str] = []
    for header in HEADERS if version == (1, 0) else HEADERS[-12:]:
        size = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
        content = b"\x93NUMPY" + bytes(version) + size + header.encode() + bytes(64)
        npy.write_bytes(content)
        with zipfile.ZipFile(npz, "w") as archive:
            archive.writestr("x.npy", content)
        readers: list[Callable[[], object]] = [
            lambda: Archive(npz)["x"],
            lambda: list(Archive(npz).chunks("x")),
            lambda: read_headers(npz),
            lambda: read_headers(npy),
            lambda: load(npz, ["x"]),
            lambda: load(npy, ["arr_0"]),
        ]
        for read in readers:
            try:
                read()
            except QdqcError as error:
                told.append(str(error))
    assert all(text.startswith(str(tmp_path)) for text in told)
