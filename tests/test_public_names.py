"""What ``import qdqc`` offers."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qdqc
from qdqc.text.sidecar import Sidecar

BIG = np.arange(100, dtype=np.float32)

TEXT = """\
module @tiny {opsets = {"" = 17}} {
  const %b : f32[2] = dense[1, 2]
  graph (%x : f32[2]) -> (%y) {
    %a = identity(%x) : f32[2] loc("/a")
    %y = add(%a, %b) : f32[2] loc("/y")
  }
}
"""


def with_weights() -> qdqc.Module:
    module = qdqc.from_text(TEXT)
    module.add_constant("w", qdqc.Data.of(BIG))
    return module


@pytest.mark.parametrize("name", qdqc.__all__)
def test_every_name_leads_to_the_thing_itself(name: str):
    home = importlib.import_module(qdqc._HOMES[name])
    assert getattr(qdqc, name) is getattr(home, name)
    assert name in home.__all__


def test_the_names_are_complete_and_sorted():
    assert sorted(qdqc._HOMES) == qdqc.__all__ == sorted(qdqc.__all__)
    assert set(qdqc.__all__) <= set(dir(qdqc))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'qdqc' has no attribute 'compile'"):
        _ = qdqc.compile
    with pytest.raises(ImportError):
        importlib.import_module("qdqc.nothing")


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import sys, qdqc; "
        "before = {m for m in sys.modules if m.startswith(('qdqc.', 'onnx', 'numpy'))}; "
        "assert not before, before; "
        "qdqc.Module; assert 'qdqc.ir.graph' in sys.modules; "
        "assert 'onnx' not in sys.modules and 'lark' not in sys.modules; "
        "assert vars(qdqc)['Module'] is qdqc.Module"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_and_back():
    module = qdqc.from_text(TEXT)
    assert isinstance(module, qdqc.Module)
    assert qdqc.to_text(module) == TEXT
    assert qdqc.from_text(qdqc.to_text(module)) == module


def test_contents_are_found_in_another_module():
    module = with_weights()
    text = qdqc.to_text(module)
    assert 'resource("sha256:' in text
    back = qdqc.from_text(text, weights=module)
    assert back == module
    assert np.array_equal(back.constants["w"].data.array(), BIG)


def test_contents_are_found_in_a_sidecar(tmp_path: Path):
    module = with_weights()
    qdqc.save(module, tmp_path / "m.qir")
    sidecar = tmp_path / "m.safetensors"
    assert Sidecar(sidecar).digests == (module.constants["w"].data.digest,)
    for weights in (sidecar, str(sidecar)):
        back = qdqc.from_text(qdqc.to_text(module), weights=weights)
        assert np.array_equal(back.constants["w"].data.array(), BIG)


def test_without_weights_larger_contents_are_left_out():
    module = with_weights()
    text = qdqc.to_text(module, weights=False)
    assert "dense[1, 2]" in text
    assert "elided(" in text
    back = qdqc.from_text(text)
    assert back.constants["w"].data.is_elided
    assert not back.constants["b"].data.is_elided
    assert qdqc.to_text(back, weights=False) == text


def test_contents_that_are_nowhere_are_an_error_at_their_constant():
    text = qdqc.to_text(with_weights())
    with pytest.raises(qdqc.QdqcError, match=r"<text>:3:.*in a sidecar, which was not given"):
        qdqc.from_text(text)
    with pytest.raises(qdqc.QdqcError, match="the sidecar has no tensor sha256:"):
        qdqc.from_text(text, weights=qdqc.Module())


def test_a_sidecar_that_is_missing(tmp_path: Path):
    with pytest.raises(qdqc.QdqcError, match=r"'no\.safetensors' are not beside the text"):
        qdqc.from_text(TEXT, weights=tmp_path / "no.safetensors")


def test_elided_contents_of_another_module_do_not_serve():
    text = qdqc.to_text(with_weights())
    elided = qdqc.from_text(qdqc.to_text(with_weights(), weights=False))
    with pytest.raises(qdqc.QdqcError, match="the sidecar has no tensor"):
        qdqc.from_text(text, weights=elided)


def test_running_a_pipeline_gives_a_new_module():
    module = qdqc.from_text(TEXT)
    out = qdqc.run(module, "canonicalize")
    assert qdqc.to_text(module) == TEXT
    assert [n.op.name for n in out.walk()] == ["add"]
    assert out.header["pipeline"] == "canonicalize"
    again = qdqc.run(out, "eliminate-dead-code,infer-shapes")
    assert again.header["pipeline"] == "canonicalize,eliminate-dead-code,infer-shapes"


def test_an_empty_pipeline_copies():
    module = qdqc.from_text(TEXT)
    out = qdqc.run(module, "")
    assert out == module
    assert out is not module


def test_a_named_pipeline_is_recorded_by_its_passes():
    out = qdqc.run(qdqc.from_text(TEXT), "@transform")
    assert "@" not in out.header["pipeline"]
    assert "canonicalize" in out.header["pipeline"]


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("canonicalise", "unknown pass 'canonicalise'; did you mean 'canonicalize'?"),
        ("@transfrom", "unknown pipeline '@transfrom'; did you mean '@transform'?"),
        ("transform", "the named pipeline is written '@transform'"),
        ("canonicalize{", "found the end of the text"),
    ],
)
def test_a_pipeline_that_can_not_be_read_leaves_the_module(pipeline: str, message: str):
    module = qdqc.from_text(TEXT)
    with pytest.raises(qdqc.QdqcError) as caught:
        qdqc.run(module, pipeline)
    assert message in str(caught.value)
    assert str(caught.value).startswith("<pipeline>:1:")
    assert qdqc.to_text(module) == TEXT


def test_files(tmp_path: Path):
    module = with_weights()
    qdqc.save(module, tmp_path / "m.qir")
    assert qdqc.load(tmp_path / "m.qir") == module
    assert qdqc.load(str(tmp_path / "m.qir")) == module


def test_onnx_in_and_out(tiny_onnx: Path, tmp_path: Path):
    module = qdqc.import_onnx(tiny_onnx, input_shapes={"x": (2, 3, 8, 8)})
    x = module.value("x")
    assert x is not None
    assert x.tensor.shape == (2, 3, 8, 8)
    proto = qdqc.export_onnx(module)
    onnx.checker.check_model(proto)
    assert [n.op_type for n in proto.graph.node] == [
        n.op_type for n in onnx.load(tiny_onnx).graph.node
    ]
    assert qdqc.import_onnx(proto).graph.outputs[0].name == "y"


def test_a_model_that_was_read_can_be_written_as_text_alone(tiny_onnx: Path):
    """``weights=module`` gives back every weight: the exports are the same."""
    module = qdqc.import_onnx(tiny_onnx)
    back = qdqc.from_text(qdqc.to_text(module), weights=module)
    assert back == module
    a, b = (qdqc.export_onnx(m).SerializeToString(deterministic=True) for m in (module, back))
    assert a == b
