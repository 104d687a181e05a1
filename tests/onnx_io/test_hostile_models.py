"""Models that name files they should not, by the known vulnerabilities of this kind.

Whatever is refused is refused before it is opened, mapped or allocated.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.types import Elem, TensorType
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.text.qir_files import load, save

SECRET = b"\1" * 64


def external(location: str, dims: tuple[int, ...] = (2,), **entries: Any) -> TensorProto:
    """A float tensor whose contents are elsewhere; entries are those of its external data."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def saved(folder: Path, tensor: TensorProto) -> Path:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [tensor])
    opsets = [helper.make_opsetid("", 13)]
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return path


def refused(path: Path) -> str:
    with pytest.raises(QdqcError) as caught:
        import_onnx(path)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with its data, a secret beside it, and links from one to the other."""
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(SECRET)
    (inside / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    os.symlink(tmp_path / "secret.bin", inside / "link.bin")
    os.symlink(inside / "link.bin", inside / "twice.bin")
    os.symlink(tmp_path, inside / "up")
    os.mkfifo(inside / "pipe.bin")
    return inside


@pytest.mark.parametrize("location", ["../secret.bin", "../model/../secret.bin", "/etc/passwd"])
def test_cve_2022_25882_a_path_that_leaves_the_folder(folder: Path, location: str) -> None:
    assert "outside the model's folder" in refused(saved(folder, external(location)))


@pytest.mark.parametrize(
    "location",
    [
        "sub/../../secret.bin",
        "./../secret.bin",
        "sub/./../.././secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "//etc/passwd",
        "nothing/../../secret.bin",
    ],
)
def test_cve_2024_27318_a_path_that_hides_where_it_goes(folder: Path, location: str) -> None:
    assert "outside the model's folder" in refused(saved(folder, external(location)))


@pytest.mark.parametrize("location", ["link.bin", "twice.bin", "up/secret.bin", "sub/../link.bin"])
def test_cve_2026_27489_a_link_that_leaves_the_folder(folder: Path, location: str) -> None:
    assert "outside the model's folder" in refused(saved(folder, external(location)))


def test_cve_2026_27489_a_hard_link_may_be_anybodys_file(folder: Path) -> None:
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    assert "other hard links" in refused(saved(folder, external("hard.bin")))


@pytest.mark.parametrize("swapped", ["file", "parent"])
def test_cve_2026_27489_a_link_put_there_after_the_check(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is opened is the one that was checked, whoever is quick in between."""
    (folder / "sub" / "secret.bin").write_bytes(b"\2" * 64)
    opened = os.open

    def swap(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("secret.bin"):
            (folder / "sub" / "secret.bin").unlink()
            if swapped == "file":
                os.symlink(folder.parent / "secret.bin", folder / "sub" / "secret.bin")
            else:
                (folder / "sub").rmdir()
                os.symlink(folder.parent, folder / "sub")
        return opened(path, *args, **kwargs)

    path = saved(folder, external("sub/secret.bin", length=8))
    monkeypatch.setattr(os, "open", swap)
    message = refused(path)
    assert "can't open" in message or "outside the model's folder" in message


def test_data_are_what_they_were_when_the_model_was_read(folder: Path) -> None:
    """A file that is put in their place later is another one."""
    module = import_onnx(saved(folder, external("w.bin", length=8)))
    (folder / "w.bin").unlink()
    os.symlink(folder.parent / "secret.bin", folder / "w.bin")
    assert module.constants["w"].data.array().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": 1 << 62},
        {"offset": 1 << 70},
        {"offset": -8},
        {"length": 1 << 62},
        {"length": -1},
        {"length": 4},
        {"offset": "0x10"},
        {"offset": 12},
    ],
)
def test_cve_2026_34445_entries_that_lie(folder: Path, entries: dict[str, Any]) -> None:
    """Sizes and offsets are held against the file before anything is allocated."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 36, limits[1]))
    try:
        message = refused(saved(folder, external("w.bin", **entries)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert "'w'" in message or "%w" in message or '"w"' in message


@pytest.mark.parametrize("key", ["__class__", "__dict__", "basepath", "info", "checksum"])
def test_cve_2026_34445_entries_that_are_none_do_nothing(folder: Path, key: str) -> None:
    module = import_onnx(saved(folder, external("w.bin", **{key: str(folder.parent)})))
    assert module.constants["w"].data.array().tolist() == [0.0, 1.0]


def test_a_shape_whose_size_overflows(folder: Path) -> None:
    tensor = external("w.bin", dims=(1 << 50, 1 << 50))
    assert "overflows" in refused(saved(folder, tensor))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nothing.bin", "which is not there"),
        (".", "which is not there"),
        ("sub", "which is not there"),
        ("pipe.bin", "which is not there"),
        ("", "no usable external location"),
        ("w.bin\0x", "no usable external location"),
    ],
)
def test_what_is_no_file(folder: Path, location: str, message: str) -> None:
    """Nor is a pipe ever waited for."""
    assert message in refused(saved(folder, external(location)))


def test_data_are_read_from_their_place(folder: Path) -> None:
    path = saved(folder, external("w.bin", offset=4, length=8))
    assert import_onnx(path).constants["w"].data.array().tolist() == [1.0, 2.0]
    with pytest.raises(QdqcError, match="without a folder"):
        import_onnx(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_cve_2025_51480_writing_follows_no_link(folder: Path, link: str) -> None:
    """Neither the data nor the model overwrite what a link in their place leads to."""
    module = import_onnx(saved(folder, external("w.bin")))
    secret, out = folder.parent / "secret.bin", folder / "out"
    out.mkdir()
    for name in ("n.onnx", "n.onnx.data"):
        if link == "hard":
            os.link(secret, out / name)
        else:
            os.symlink(secret, out / name)
    save_onnx(module, out / "n.onnx", external=True)
    assert secret.read_bytes() == SECRET
    assert import_onnx(out / "n.onnx").constants["w"].data.array().tolist() == [0.0, 1.0]


def test_cve_2025_51480_names_of_a_model_are_no_paths(folder: Path) -> None:
    """Where data are written follows from the output path alone, not from the model."""
    path = saved(folder, external("w.bin", length=8))
    proto = onnx.load(path)
    proto.graph.initializer[0].name = "../../evil"
    proto.graph.node[0].input[1] = "../../evil"
    module = import_onnx(proto)
    (folder / "out").mkdir()
    before = sorted(p for p in folder.parent.rglob("*") if "out" not in p.parts)
    save_onnx(module, folder / "out" / "n.onnx", external=True)
    assert {p.name for p in (folder / "out").iterdir()} <= {"n.onnx", "n.onnx.data"}
    assert sorted(p for p in folder.parent.rglob("*") if "out" not in p.parts) == before


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_cve_2025_51480_the_sidecar_of_a_text_follows_no_link(folder: Path, link: str) -> None:
    """What a link leads to stays, be it no sidecar (refused) or another model's (replaced)."""
    module, out = import_onnx(saved(folder, external("w.bin", length=8))), folder / "out"
    module.constants["w"].data = Data.of(np.zeros(100, dtype=np.float32))
    module.constants["w"].type = TensorType(Elem.F32, (100,))
    save(module, folder.parent / "other.qir")
    module.constants["w"].data = Data.of(np.arange(100, dtype=np.float32))
    make = os.link if link == "hard" else os.symlink
    for name in ("secret.bin", "other.safetensors"):
        victim = folder.parent / name
        held = victim.read_bytes()
        out.mkdir(exist_ok=True)
        (out / "m.safetensors").unlink(missing_ok=True)
        make(victim, out / "m.safetensors")
        if name == "secret.bin":
            with pytest.raises(QdqcError, match="not a sidecar"):
                save(module, out / "m.qir")
        else:
            save(module, out / "m.qir")
            found = load(out / "m.qir").constants["w"].data.array()
            assert found.tolist() == list(range(100))
        assert victim.read_bytes() == held
