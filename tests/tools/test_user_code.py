"""Python files of the user in every command that takes them: whatever is wrong is told by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qdqc.diagnostics import Stopped
from qdqc.tools.model_transform import main as transform
from qdqc.tools.qir_opt import main as qir_opt
from qdqc.tools.run_calibration import main as calibrate
from qdqc.tools.run_sensitive_layer import main as sensitive
from qdqc.user_files import function_of

RAISED = (
    "raise SystemExit(0)",
    "raise KeyboardInterrupt",
    "raise BaseException('b')",
    "raise GeneratorExit",
    "raise MemoryError",
    "raise BrokenPipeError",
    "raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})",
    "raise ValueError('a\\nwrote good.onnx')",
    "from qdqc import QdqcError; raise QdqcError('mine')",
)
GIVEN = (
    "return None",
    "return {'a': [[1], [1, 2]]}",
    "return object()",
    "return type('F', (), {'__float__': lambda s: 1 / 0, '__repr__': None})()",
    "return 10**400",
)
SAMPLES = (
    "yield 5",
    "yield {'x': [[1], [1, 2]]}",
    "yield {5: 1}",
    "yield {'x': np.ones((2, 2))}",
    "yield {'x': np.ones((1, 3, 8, 8), complex)}",
    "yield {'x': np.array([object()])}",
    "yield {'x': np.ones((1, 3, 8, 8), np.float32)}; 1 / 0",
    "return type('D', (), {'__len__': lambda s: -1, '__getitem__': lambda s, i: 1})()",
)
TOP = (
    "def f(:\n",
    "\0",
    "# -*- coding: nope -*-\n",
    "raise SystemExit(3)\n",
    "raise KeyboardInterrupt\n",
)
HEADS = {
    "--dataset": "def dataset()",
    "--metric": "def metric(outputs, labels)",
    "--post_process": "def PostProcess(outputs)",
}
PASS = """from qdqc import Pass
class Mine(Pass):
    name = 'mine-{number}'
    def run(self, graph, ctx):
        {body}
"""
SEARCH = ["--inference_num", "2", "--input_num", "4", "--max_float_layers", "1", "--no_cache"]


def cases() -> Iterator[tuple[str, str]]:
    """The option that takes a file, and the text of the file."""
    for option, head in HEADS.items():
        for body in (*RAISED, *(SAMPLES if option == "--dataset" else GIVEN)):
            yield option, f"import numpy as np\n{head}:\n    {body}\n"
        yield option, "x = 1\n"
    yield from ((option, text) for option in (*HEADS, "--plugin") for text in TOP)
    for number, body in enumerate((*RAISED[:-1], *GIVEN[:3])):
        yield "--plugin", PASS.format(number=number, body=body)


@pytest.fixture(scope="module")
def qir(tiny_onnx: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, with its table beside it."""
    path = tmp_path_factory.mktemp("user") / "net.qir"
    assert transform(["--model_def", str(tiny_onnx), "-o", str(path), "-q"]) == 0
    table = str(path.with_suffix(".table"))
    assert calibrate([str(path), "--dataset", str(tiny_data), "-o", table, "-q"]) == 0
    return path


def test_whatever_a_file_does_is_told_with_its_place(
    qir: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = str(qir.with_suffix(".table")), str(tmp_path / "out")
    search = [str(qir), "--dataset", str(tiny_data), "--calibration_table", table, *SEARCH]
    wrong: list[str] = []
    for number, (option, text) in enumerate(cases()):
        path = tmp_path / f"mine{number}.py"
        path.write_text(text)
        given = [option, str(path), "-qq"]
        if option == "--dataset":
            code = calibrate([str(qir), *given, "-o", out, "--no_cache"])
        elif option == "--plugin":
            name = re.search(r"name = '(.*)'", text)
            passes = name[1] if name else "canonicalize"
            code = qir_opt([str(qir), *given, "--passes", passes, "-o", f"{out}.qir"])
        else:
            code = sensitive([*search, *given, "-o", out])
        lines = capsys.readouterr().err.split("\n")
        told = lines[0].startswith(str(path)) and "error: " in lines[0]
        if code != 1 or not told or "Traceback" in lines[0] or "wrote good.onnx" in lines:
            wrong.append(f"exit code {code}, {option}, {text!r}: {lines}")
    assert not wrong


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "__import__('qdqc').diagnostics.Stopped"])
def test_a_key_that_somebody_pressed_is_no_fault_of_the_file(tmp_path: Path, raised: str) -> None:
    """Python's own handler raises a KeyboardInterrupt as the code might: it goes on up."""
    path = tmp_path / "mine.py"
    arguments = "(143, 'terminated')" if "Stopped" in raised else ""
    path.write_text(f"def metric(x):\n    raise {raised}{arguments}\n")
    with pytest.raises(Stopped if arguments else KeyboardInterrupt):
        function_of(path, ("metric",), "the metric")(1)
