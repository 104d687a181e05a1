"""What ``import compiler`` offers."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import compiler
from compiler.text.sidecar import Sidecar

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


def with_weights() -> compiler.Module:
    module = compiler.from_text(TEXT)
    module.add_constant("w", compiler.Data.of(BIG))
    return module


@pytest.mark.parametrize("name", compiler.__all__)
def test_every_name_leads_to_the_thing_itself(name: str):
    home = importlib.import_module(compiler._HOMES[name])
    assert getattr(compiler, name) is getattr(home, name)
    assert name in home.__all__


def test_the_names_are_complete_and_sorted():
    assert sorted(compiler._HOMES) == compiler.__all__ == sorted(compiler.__all__)
    assert set(compiler.__all__) <= set(dir(compiler))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'compiler' has no attribute 'compile'"):
        _ = compiler.compile
    with pytest.raises(ImportError):
        importlib.import_module("compiler.nothing")


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import sys, compiler; "
        "before = {m for m in sys.modules if m.startswith(('compiler.', 'onnx', 'numpy'))}; "
        "assert not before, before; "
        "compiler.Module; assert 'compiler.ir.graph' in sys.modules; "
        "assert 'onnx' not in sys.modules and 'lark' not in sys.modules; "
        "assert vars(compiler)['Module'] is compiler.Module"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_and_back():
    module = compiler.from_text(TEXT)
    assert isinstance(module, compiler.Module)
    assert compiler.to_text(module) == TEXT
    assert compiler.from_text(compiler.to_text(module)) == module


def test_contents_are_found_in_another_module():
    module = with_weights()
    text = compiler.to_text(module)
    assert 'resource("sha256:' in text
    back = compiler.from_text(text, weights=module)
    assert back == module
    assert np.array_equal(back.constants["w"].data.array(), BIG)


def test_contents_are_found_in_a_sidecar(tmp_path: Path):
    module = with_weights()
    compiler.save(module, tmp_path / "m.qir")
    sidecar = tmp_path / "m.safetensors"
    assert Sidecar(sidecar).digests == (module.constants["w"].data.digest,)
    for weights in (sidecar, str(sidecar)):
        back = compiler.from_text(compiler.to_text(module), weights=weights)
        assert np.array_equal(back.constants["w"].data.array(), BIG)


def test_without_weights_larger_contents_are_left_out():
    module = with_weights()
    text = compiler.to_text(module, weights=False)
    assert "dense[1, 2]" in text
    assert "elided(" in text
    back = compiler.from_text(text)
    assert back.constants["w"].data.is_elided
    assert not back.constants["b"].data.is_elided
    assert compiler.to_text(back, weights=False) == text


def test_contents_that_are_nowhere_are_an_error_at_their_constant():
    text = compiler.to_text(with_weights())
    with pytest.raises(compiler.QdqcError, match=r"<text>:3:.*in a sidecar, which was not given"):
        compiler.from_text(text)
    with pytest.raises(compiler.QdqcError, match="the sidecar has no tensor sha256:"):
        compiler.from_text(text, weights=compiler.Module())


def test_a_sidecar_that_is_missing(tmp_path: Path):
    with pytest.raises(compiler.QdqcError, match=r"'no\.safetensors' are not beside the text"):
        compiler.from_text(TEXT, weights=tmp_path / "no.safetensors")


def test_elided_contents_of_another_module_do_not_serve():
    text = compiler.to_text(with_weights())
    elided = compiler.from_text(compiler.to_text(with_weights(), weights=False))
    with pytest.raises(compiler.QdqcError, match="the sidecar has no tensor"):
        compiler.from_text(text, weights=elided)


def test_running_a_pipeline_gives_a_new_module():
    module = compiler.from_text(TEXT)
    out = compiler.run(module, "canonicalize")
    assert compiler.to_text(module) == TEXT
    assert [n.op.name for n in out.walk()] == ["add"]
    assert out.header["pipeline"] == "canonicalize"
    again = compiler.run(out, "eliminate-dead-code,infer-shapes")
    assert again.header["pipeline"] == "canonicalize,eliminate-dead-code,infer-shapes"


def test_an_empty_pipeline_copies():
    module = compiler.from_text(TEXT)
    out = compiler.run(module, "")
    assert out == module
    assert out is not module


def test_a_named_pipeline_is_recorded_by_its_passes():
    out = compiler.run(compiler.from_text(TEXT), "@transform")
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
    module = compiler.from_text(TEXT)
    with pytest.raises(compiler.QdqcError) as caught:
        compiler.run(module, pipeline)
    assert message in str(caught.value)
    assert str(caught.value).startswith("<pipeline>:1:")
    assert compiler.to_text(module) == TEXT


def test_files(tmp_path: Path):
    module = with_weights()
    compiler.save(module, tmp_path / "m.qir")
    assert compiler.load(tmp_path / "m.qir") == module
    assert compiler.load(str(tmp_path / "m.qir")) == module


def test_onnx_in_and_out(tiny_onnx: Path, tmp_path: Path):
    module = compiler.import_onnx(tiny_onnx, input_shapes={"x": (2, 3, 8, 8)})
    x = module.value("x")
    assert x is not None
    assert x.tensor.shape == (2, 3, 8, 8)
    proto = compiler.export_onnx(module)
    onnx.checker.check_model(proto)
    assert [n.op_type for n in proto.graph.node] == [
        n.op_type for n in onnx.load(tiny_onnx).graph.node
    ]
    assert compiler.import_onnx(proto).graph.outputs[0].name == "y"


def test_a_model_that_was_read_can_be_written_as_text_alone(tiny_onnx: Path):
    """``weights=module`` gives back every weight: the exports are the same."""
    module = compiler.import_onnx(tiny_onnx)
    back = compiler.from_text(compiler.to_text(module), weights=module)
    assert back == module
    a, b = (compiler.export_onnx(m).SerializeToString(deterministic=True) for m in (module, back))
    assert a == b
