"""Small files that claim much: archives that unpack to gigabytes, images of a gigapixel."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from qdqc import memory
from qdqc.data.archive import Archive
from qdqc.data.images import open_image
from qdqc.data.sample_files import check_image, load
from qdqc.diagnostics import QdqcError


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Zeros that take a thousandth of their size, on a machine of 1 MB."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros(1 << 18, np.float32), small=np.zeros(3, np.float32))
    assert path.stat().st_size < 1 << 13
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1 << 20)
    return path


def test_an_archive_that_unpacks_to_more_than_there_is(bomb: Path) -> None:
    with pytest.raises(QdqcError, match="takes 1048576 bytes of memory, and 524288 is the limit"):
        load(bomb, ["x"])
    assert load(bomb, ["small"])["small"].shape == (3,)
    with pytest.raises(QdqcError, match="unpacked it takes 1048576 bytes"):
        Archive(bomb)["x"]
    assert sum(part.size for part in Archive(bomb).chunks("x")) == 1 << 18


def test_a_header_that_claims_more_than_there_is_behind_it(tmp_path: Path) -> None:
    """Nothing is allocated for a claim: the member's own size is held against it."""
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(header, fields)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(400))
    with pytest.raises(QdqcError, match="cut short"):
        Archive(path)["x"]
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(400))
    with pytest.raises(QdqcError, match="can't read the data"):
        load(tmp_path / "x.npy", ["arr_0"])


def png(path: Path, width: int, height: int) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000_000), 9)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [50_000, 32_000, 12_000])
def test_an_image_of_more_pixels_than_one_may_have(tmp_path: Path, side: int) -> None:
    path = png(tmp_path / "x.png", side, side)
    assert path.stat().st_size < 30_000
    for look in (open_image, check_image):
        with pytest.raises(QdqcError, match=r"x\.png.*(limit|bomb)"):
            look(path)


def test_a_smaller_image_is_read_whole(tmp_path: Path) -> None:
    assert open_image(png(tmp_path / "x.png", 2000, 1000)).size == (2000, 1000)
