"""Constants that lie in files: whose they are, when they get there, and that they go again."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir import mapped
from qdqc.ir.data import Data
from qdqc.ir.mapped import map_file, place_of
from qdqc.ir.types import Elem

BIG = np.arange(1 << 16, dtype=np.float32)


def on_disk(path: Path) -> Data:
    path.write_bytes(b"head" + BIG.tobytes())
    with path.open("rb") as file:
        whole = map_file(file.fileno(), path)
    return Data(Elem.F32, BIG.shape, whole[4:])


def test_a_mapped_buffer_knows_its_place(tmp_path: Path) -> None:
    data = on_disk(tmp_path / "x")
    assert place_of(data.buffer()) == (tmp_path / "x", 4)
    assert place_of(data.buffer()[8:]) == (tmp_path / "x", 12)
    assert place_of(Data.of(BIG).buffer()) is None
    np.testing.assert_array_equal(data.array(), BIG)


def test_another_file_in_its_place_is_not_its_place(tmp_path: Path) -> None:
    data = on_disk(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"other" + BIG.tobytes())
    (tmp_path / "y").replace(tmp_path / "x")
    assert place_of(data.buffer()) is None
    np.testing.assert_array_equal(data.array(), BIG)  # what was mapped stays


def test_a_file_cut_short_is_an_error_and_no_signal(tmp_path: Path) -> None:
    data = on_disk(tmp_path / "x")
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(1000)
    assert place_of(data._buffer) is None
    with pytest.raises(QdqcError, match="cut short while it was read: 1000 of 262148 bytes"):
        data.array()


def test_more_than_is_kept_goes_to_files_which_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    kept = mapped._in_memory.bytes
    monkeypatch.setattr(mapped, "KEPT", kept + BIG.nbytes)
    first = Data.of(BIG + 1)
    second = Data.of(BIG + 2)
    assert place_of(first.buffer()) is None
    place = place_of(second.buffer())
    assert place is not None
    assert place[0].read_bytes() == (BIG + 2).tobytes()
    np.testing.assert_array_equal(second.array(), BIG + 2)
    del first, second
    gc.collect()
    assert not place[0].exists()
    assert mapped._in_memory.bytes == kept
    assert place_of(Data.of(BIG + 3).buffer()) is None


def test_no_room_on_the_disk_keeps_it_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mapped, "KEPT", 0)
    monkeypatch.setattr(mapped, "_folder", lambda pid: str(tmp_path / "none"))
    data = Data.of(BIG)
    assert place_of(data.buffer()) is None
    np.testing.assert_array_equal(data.array(), BIG)


def test_a_process_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import numpy as np, os, qdqc.ir.mapped as m\n"
        "from qdqc.ir.data import Data\n"
        "m.KEPT = 0\n"
        "data = Data.of(np.ones(1 << 16, np.float32))\n"
        "assert m.place_of(data.buffer())\n"
        "if not os.fork(): os._exit(0)\n"
        "os.wait()\n"
        "print(m.place_of(data.buffer())[0].exists())\n"
    )
    run = [sys.executable, "-c", code]
    env = {"TMPDIR": str(tmp_path), "PATH": ""}
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert not list(tmp_path.iterdir())
