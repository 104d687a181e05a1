"""Data that a Python program gives, samples that are left out, and arrays that look wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qdqc.data.bad_samples import BadSamples
from qdqc.data.dataset import open_dataset
from qdqc.data.fit import input_specs
from qdqc.data.plausible import implausible
from qdqc.diagnostics import Diagnostic, QdqcError
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, TensorType


def graph(**attrs: Any) -> Graph:
    found = Module().graph
    found.add_input("x", TensorType(Elem.F32, (1, 3, 4, 4)), attrs or None)
    return found


def script(folder: Path, text: str) -> Path:
    path = folder / "data.py"
    path.write_text(text)
    return path


SAMPLE = "{'x': numpy.full((1, 3, 4, 4), i, 'f4')}"


@pytest.mark.parametrize(
    "body",
    [
        f"def dataset():\n    for i in range(3): yield {SAMPLE}",
        f"def dataset():\n    return [{SAMPLE} for i in range(3)]",
        f"""class Indexed:
    def __len__(self): return 3
    def __getitem__(self, i): return {SAMPLE}
def dataset(): return Indexed()""",
        f"dataset = lambda: ({SAMPLE} for i in range(3))",
    ],
)
def test_what_a_file_may_give(tmp_path: Path, body: str) -> None:
    data = open_dataset(script(tmp_path, f"import numpy\n{body}"), graph())
    for _ in range(2):  # a second pass calls it again
        assert [float(s["x"].max()) for s in data] == [0.0, 1.0, 2.0]
    few = open_dataset(tmp_path / "data.py", graph(), input_num=2)
    assert len(list(few)) == len(few) == 2


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("import numpy\nzero = numpy.zeros((1, 3, 4, 4), 'f4')\n")
    text = "from beside_it import zero\ndef dataset():\n    yield {'x': zero}\n"
    assert len(list(open_dataset(script(tmp_path, text), graph()))) == 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("def dataset(:\n", 1, "SyntaxError"),
        ("import nothing_of_that_name\n", 1, "ModuleNotFoundError"),
        ("x = 1\n\ndef dataset():\n    yield {'x': 1 / 0}\n", 4, "ZeroDivisionError"),
    ],
)
def test_an_error_of_the_file_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = script(tmp_path, text)
    with pytest.raises(QdqcError, match=message) as caught:
        list(open_dataset(path, graph()))
    assert str(caught.value).startswith(f"{path}:{line}: error: the data set fails: ")


def test_the_line_is_told_for_a_relative_path_and_for_an_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "import sys\ndef dataset():\n    sys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QdqcError, match=r"^data.py:3: error: the data set fails: SystemExit: 3"):
        list(open_dataset("data.py", graph()))


def test_an_indexed_data_set_is_read_no_further_than_it_is_used(tmp_path: Path) -> None:
    body = f"""import numpy
class Indexed:
    def __len__(self): return 10**9
    def __getitem__(self, i):
        assert i < 4
        return {SAMPLE}
def dataset(): return Indexed()"""
    data = open_dataset(script(tmp_path, body), graph(), input_num=2)
    assert [float(s["x"].max()) for s in data] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no function 'dataset'"),
        ("dataset = 3", "it has no function 'dataset'"),
        ("def dataset(): return 3", "gives a int, which holds no samples"),
        ("def dataset(): return []", "the given samples are empty"),
        ("def dataset(): return [3]", "a sample is a int, but a dict"),
    ],
)
def test_a_file_without_samples(tmp_path: Path, text: str, message: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(QdqcError, match=message) as caught:
        list(open_dataset(path, graph()))
    assert str(path) in str(caught.value)


def photos(folder: Path, bad: int) -> Path:
    """Five photos, of which the first ``bad`` are cut short."""
    rng = np.random.default_rng(0)
    for i in range(5):
        path = folder / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(path)
        if i < bad:
            path.write_bytes(path.read_bytes()[:-200])
    return folder


IMAGE = {"pixel_format": "rgb"}


def test_photos_that_are_cut_short_are_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="can't read the image") as caught:
        open_dataset(photos(tmp_path, 2), graph(**IMAGE), bad=BadSamples(0, print))
    assert "0.jpg" in str(caught.value)
    assert "`max_bad` N leaves out up to N such samples" in str(caught.value)


def test_as_many_as_are_allowed_are_named_and_left_out(tmp_path: Path) -> None:
    told: list[Diagnostic] = []
    data = open_dataset(photos(tmp_path, 2), graph(**IMAGE), bad=BadSamples(2, told.append))
    assert len(data) == len(list(data)) == 3
    assert [Path(str(d.file)).name for d in told] == ["0.jpg", "1.jpg"]
    assert all("left out" in d.message for d in told)


def test_one_more_than_is_allowed_stops(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="1 are left out already"):
        open_dataset(photos(tmp_path, 2), graph(**IMAGE), bad=BadSamples(1, print))


def test_a_data_set_of_bad_samples_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="all samples are left out"):
        open_dataset(photos(tmp_path, 5), graph(**IMAGE), bad=BadSamples(9))


def test_only_chosen_files_are_looked_into(tmp_path: Path) -> None:
    for seed in range(20):
        try:
            data = open_dataset(photos(tmp_path, 1), graph(**IMAGE), input_num=2, seed=seed)
        except QdqcError:
            continue
        assert len(data) == 2
        return
    pytest.fail("no seed left the bad photo out")


def test_bad_samples_of_an_iterator_are_left_out_in_each_pass() -> None:
    def samples() -> Iterator[dict[str, Any]]:
        for i in range(4):
            yield {"x": np.zeros((1, 3, 4, 4) if i else (1, 3, 5, 4), np.float32)}

    data = open_dataset(list(samples()), graph(), bad=BadSamples(1))
    assert [len(list(data)) for _ in range(2)] == [3, 3]


MEAN = {"pixel_format": "rgb", "mean": [127.0, 127.0, 127.0], "scale": [0.0078125] * 3}


@pytest.mark.parametrize(
    ("low", "high", "doubt"),
    [
        (0.0, 1.0, "divided by 255"),
        (0.0, 255.0, "were not preprocessed"),
        (-90.0, 80.0, "far outside"),
        (-0.9, 0.9, None),
    ],
)
def test_numbers_that_the_preprocessing_does_not_make(
    low: float, high: float, doubt: str | None
) -> None:
    array = np.linspace(low, high, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    found = implausible(input_specs(graph(**MEAN)), [{"x": array}])
    assert [doubt in d.message for d in found if doubt] == ([True] if doubt else [])
    assert len(found) == (doubt is not None)


def test_inputs_that_state_nothing_are_left_alone() -> None:
    array = np.full((1, 3, 4, 4), 1e6, np.float32)
    assert not implausible(input_specs(graph()), [{"x": array}])
    assert not implausible(input_specs(graph(**IMAGE)), [{"x": array}])
