"""Files: the weights stay on the disk, appear whole or not at all, and are never believed."""

from __future__ import annotations

import json
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.mapped import place_of
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.text.printer import print_module
from qdqc.text.qir_files import SharedSidecar, load, save
from qdqc.text.sidecar import Sidecar, tensors


def weights(*arrays: np.ndarray, name: str = "m") -> Module:
    module = Module(name)
    for index, array in enumerate(arrays):
        module.add_constant(f"w{index}", Data.of(array))
    return module


W = np.arange(100, dtype=np.float32)
V = np.arange(33, dtype=np.int8)


def test_save_and_load(tmp_path: Path):
    module = weights(W, V, np.float32(1.5), np.zeros((0, 4), np.float16))
    module.add_constant("q", Data.of(np.arange(-8, 8).repeat(3), Elem.I4))
    module.add_constant("b", Data.of(np.arange(20).astype(Elem.BF16.dtype)))
    save(module, tmp_path / "x.qir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.qir", "x.safetensors"]
    assert 'weights = "x.safetensors"' in (tmp_path / "x.qir").read_text()
    back = load(tmp_path / "x.qir")
    assert back == module
    assert "weights" not in back.header
    for name, constant in module.constants.items():
        found = back.constants[name].data.array()
        assert found.dtype == constant.data.array().dtype
        assert np.array_equal(found, constant.data.array())


def test_safetensors_reads_the_file_and_each_tensor_is_there_once(tmp_path: Path):
    module = weights(W, W.copy(), V)
    save(module, tmp_path / "x.qir")
    found = load_file(tmp_path / "x.safetensors")
    assert len(found) == 2
    digest = module.constants["w0"].data.digest
    assert np.array_equal(found[digest].view(np.float32), W)


def test_large_scales_and_attributes_go_to_the_sidecar(tmp_path: Path):
    with OPS.scratch():

        class Holder(Op):
            name, operands = "test.holder", ("x",)
            table: Data

        module = Module()
        quant = Quant.make(np.linspace(0.1, 1, 40), np.arange(40), axis=0)
        x = module.graph.add_input("x", TensorType(Elem.U8, (40,), quant), {"mean": Data.of(W)})
        op = Holder(table=Data.of(V))
        node = module.graph.insert(op, [x], [TensorType(Elem.F32)], ["y"])
        module.graph.set_outputs([node.result])
        assert len(tensors(module)) == 4
        save(module, tmp_path / "x.qir")
        assert load(tmp_path / "x.qir") == module


def test_weights_are_mapped_not_read(tmp_path: Path):
    big = np.arange(4 << 20, dtype=np.uint8)
    save(weights(big), tmp_path / "x.qir")
    module = load(tmp_path / "x.qir")
    data = module.constants["w0"].data
    buffer = data.buffer()
    assert not buffer.flags.owndata
    assert not buffer.flags.writeable
    place = place_of(buffer)
    assert place is not None
    path, offset = place
    assert path.read_bytes()[offset : offset + big.size] == big.tobytes()
    assert data.digest == Data.of(big).digest


def test_sizes_that_allow_it_lie_aligned(tmp_path: Path):
    save(weights(V, W, np.arange(64, dtype=np.float64)), tmp_path / "x.qir")
    sidecar = Sidecar(tmp_path / "x.safetensors")
    for array in (W, np.arange(64, dtype=np.float64)):
        begin, _ = sidecar.span(Data.of(array).digest)
        assert (sidecar.start + begin) % array.itemsize == 0


def test_small_or_elided_modules_need_no_sidecar(tmp_path: Path):
    save(weights(W[:16]), tmp_path / "small.qir")
    save(weights(W), tmp_path / "elided.qir", elide=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elided.qir", "small.qir"]
    assert load(tmp_path / "elided.qir").constants["w0"].data.is_elided


def test_saving_over_the_file_that_was_loaded(tmp_path: Path):
    save(weights(W, V), tmp_path / "x.qir")
    module = load(tmp_path / "x.qir")
    module.constants["w1"].module.leave(module.constants["w1"])
    save(module, tmp_path / "x.qir")
    assert np.array_equal(load(tmp_path / "x.qir").constants["w0"].data.array(), W)
    assert np.array_equal(module.constants["w0"].data.array(), W)


def corrupt(path: Path, header: object, body: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


DIGEST = "0" * 64
META = {"__metadata__": {"format": "qdqc-sidecar"}}


def entry(begin: object, end: object, shape: object = None) -> dict[str, object]:
    size = shape if shape is not None else [end - begin]  # type: ignore[operator]
    return {"dtype": "U8", "shape": size, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"{", b"", "not JSON"),
        (b"[" * 100000, b"", "not JSON"),
        (b"[]", b"", "not a list of tensors"),
        ({DIGEST: entry(0, 4)}, b"abcd", "not written by qdqc"),
        (META | {"name": entry(0, 4)}, b"abcd", "malformed"),
        (META | {DIGEST: 3}, b"abcd", "malformed"),
        (META | {DIGEST: entry(0, 8)}, b"abcd", "take 8 bytes, the file has 4"),
        (META | {DIGEST: entry(-4, 4)}, b"abcd", "offsets"),
        (META | {DIGEST: entry(4, 0)}, b"abcd", "offsets"),
        (META | {DIGEST: entry(0, 4, [2])}, b"abcd", "not stored as bytes"),
        (META | {DIGEST: entry(0.0, 4.0)}, b"abcd", "offsets"),
        (META | {DIGEST: entry(2, 4)}, b"abcd", "gap at byte 0"),
        (META | {DIGEST: entry(0, 3), "1" * 64: entry(2, 4)}, b"abcd", "overlap"),
        (META | {DIGEST: entry(0, 2)}, b"abcd", "take 2 bytes"),
    ],
)
def test_corrupt_headers(tmp_path: Path, header: object, body: bytes, message: str):
    path = tmp_path / "x.safetensors"
    corrupt(path, header, body)
    with pytest.raises(QdqcError, match=message) as caught:
        Sidecar(path)
    assert caught.value.diagnostic.file == str(path)


@pytest.mark.parametrize("raw", [b"", b"abc", struct.pack("<Q", 2**60) + b"{}"])
def test_truncated_files(tmp_path: Path, raw: bytes):
    (tmp_path / "x.safetensors").write_bytes(raw)
    with pytest.raises(QdqcError, match="not a sidecar"):
        Sidecar(tmp_path / "x.safetensors")


def test_a_missing_sidecar_is_an_error_of_the_text(tmp_path: Path):
    save(weights(W), tmp_path / "x.qir")
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(QdqcError, match=r"'x\.safetensors' are not beside the text") as caught:
        load(tmp_path / "x.qir")
    assert str(caught.value).startswith(f"{tmp_path / 'x.qir'}:1:8: error: ")
    assert "copy the .safetensors" in str(caught.value)


def test_a_missing_tensor_is_an_error_at_its_constant(tmp_path: Path):
    save(weights(W), tmp_path / "x.qir")
    save(weights(V), tmp_path / "y.qir")
    (tmp_path / "y.safetensors").replace(tmp_path / "x.safetensors")
    with pytest.raises(QdqcError, match="the sidecar has no tensor sha256:") as caught:
        load(tmp_path / "x.qir")
    assert caught.value.diagnostic.position is not None
    assert caught.value.diagnostic.position.line == 2


def test_a_tensor_of_another_size(tmp_path: Path):
    save(weights(W), tmp_path / "x.qir")
    text = (tmp_path / "x.qir").read_text().replace("f32[100]", "f32[101]")
    (tmp_path / "x.qir").write_text(text)
    with pytest.raises(QdqcError, match="holds 400 bytes for this constant, its type takes 404"):
        load(tmp_path / "x.qir")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "..", "", "a/b", "a\\\\b", "a\\u0000b", "C:x"]
)
def test_paths_in_a_header_do_not_leave_the_folder(tmp_path: Path, name: str):
    (tmp_path / "x.qir").write_text(f'module @m {{weights = "{name}"}} {{ graph () -> () {{}} }}')
    with pytest.raises(QdqcError, match="are not a file name"):
        load(tmp_path / "x.qir")


def test_links_out_of_the_folder_are_refused(tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    save(weights(W), tmp_path / "x.qir")
    (tmp_path / "x.qir").rename(inner / "x.qir")
    (inner / "x.safetensors").symlink_to(tmp_path / "x.safetensors")
    with pytest.raises(QdqcError, match="a link out of the folder"):
        load(inner / "x.qir")


def test_a_link_to_the_text_finds_the_weights_beside_the_real_one(tmp_path: Path):
    (tmp_path / "v1").mkdir()
    save(weights(W), tmp_path / "v1" / "x.qir")
    (tmp_path / "latest.qir").symlink_to(tmp_path / "v1" / "x.qir")
    assert load(tmp_path / "latest.qir") == weights(W)


def test_foreign_weights_are_not_overwritten(tmp_path: Path):
    foreign = tmp_path / "model.safetensors"
    corrupt(foreign, {"layer.weight": entry(0, 4)}, b"abcd")
    held = foreign.read_bytes()
    with pytest.raises(QdqcError, match="would be overwritten"):
        save(weights(W), tmp_path / "model.qir")
    assert foreign.read_bytes() == held
    assert not (tmp_path / "model.qir").exists()
    with pytest.raises(QdqcError, match="name of its own sidecar"):
        save(weights(W), tmp_path / "x.safetensors")


def test_a_text_and_its_weights_appear_together_or_not_at_all(tmp_path: Path):
    save(weights(V), tmp_path / "x.qir")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    module = weights(W)
    module.add_constant("broken", Data.of(np.arange(3, dtype=np.float32)))
    module.header["bad"] = object()  # type: ignore[assignment]
    with pytest.raises(Exception, match="object"):
        save(module, tmp_path / "x.qir")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_pipe_takes_a_text_but_no_weights(tmp_path: Path):
    os.mkfifo(tmp_path / "x.qir")
    with pytest.raises(QdqcError, match="it is a device or a pipe"):
        save(weights(W), tmp_path / "x.qir")
    assert [p.name for p in tmp_path.iterdir()] == ["x.qir"]
    found: list[str] = []
    reader = threading.Thread(
        target=lambda: found.append((tmp_path / "x.qir").read_text()), daemon=True
    )
    reader.start()
    save(weights(W[:2]), tmp_path / "x.qir")
    reader.join(10)
    assert found == [print_module(weights(W[:2]))]
    assert (tmp_path / "x.qir").is_fifo()


def test_saving_through_a_link_changes_the_real_file(tmp_path: Path):
    (tmp_path / "v1").mkdir()
    save(weights(V), tmp_path / "v1" / "x.qir")
    (tmp_path / "latest.qir").symlink_to(tmp_path / "v1" / "x.qir")
    save(weights(W), tmp_path / "latest.qir")
    assert (tmp_path / "latest.qir").is_symlink()
    assert load(tmp_path / "v1" / "x.qir") == load(tmp_path / "latest.qir") == weights(W)


def test_what_is_no_text(tmp_path: Path):
    for name, what in (("x.bin", "no text in UTF-8"), ("x.onnx", "this is an ONNX model")):
        (tmp_path / name).write_bytes(b"\x08\x07\xff\xfe")
        with pytest.raises(QdqcError, match=what):
            load(tmp_path / name)
    with pytest.raises(QdqcError, match="can't read the text: No such file"):
        load(tmp_path / "none.qir")
    with pytest.raises(QdqcError, match="can't read the text: Is a directory"):
        load(tmp_path)


def test_line_ends_and_byte_order_marks(tmp_path: Path):
    raw = print_module(weights(W[:3])).replace("\n", "\r\n").encode("utf-8-sig")
    (tmp_path / "x.qir").write_bytes(raw)
    assert load(tmp_path / "x.qir") == weights(W[:3])


def test_dumps_share_a_sidecar(tmp_path: Path):
    shared = SharedSidecar(tmp_path)
    shared.save(weights(W), "000.qir")
    first = (tmp_path / "weights.safetensors").stat()
    shared.save(weights(W, W), "001.qir")
    assert (tmp_path / "weights.safetensors").stat().st_ino == first.st_ino
    shared.save(weights(W, V), "002.qir")
    shared.save(weights(W[:2]), "003.qir")
    SharedSidecar(tmp_path).save(weights(V * 2), "004.qir")
    assert len(load_file(tmp_path / "weights.safetensors")) == 3
    assert len(list(tmp_path.iterdir())) == 6
    assert load(tmp_path / "000.qir") == weights(W)
    assert load(tmp_path / "002.qir") == weights(W, V)
    assert load(tmp_path / "004.qir") == weights(V * 2)
    assert "weights" not in (tmp_path / "003.qir").read_text()
