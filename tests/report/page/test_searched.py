"""Reports of searches, read for the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.report.page.searched import read_searches

RANKING = {
    "int8_cos": 0.98,
    "mix_cos": 0.995,
    "float_layers": ["b"],
    "ranking": [
        {"name": "b", "op": "conv", "loss": 0.25, "method": "kl", "threshold": None},
        {"name": "a", "loss": 1e-9},
    ],
}
FRONT = {
    "ranking": [{"name": "z", "loss": 0}],
    "front": [
        {"float_layers": ["a", "b"], "score": 0.99, "predicted_ms": 3.0, "measured_ms": 2.5},
        {"float_layers": [], "score": 0.9, "predicted_ms": 1.0, "measured_ms": 1.5},
    ],
}


def written(path: Path, report: object) -> Path:
    path.write_text(json.dumps(report))
    return path


def test_the_ranking_says_which_layers_stay_float(tmp_path: Path) -> None:
    found = read_searches([written(tmp_path / "r.json", RANKING)])
    assert found == {
        "scores": {"int8_cos": 0.98, "mix_cos": 0.995, "floats": 1},
        "ranking": [
            {"name": "b", "op": "conv", "loss": 0.25, "float": True},
            {"name": "a", "op": "", "loss": 1e-9, "float": False},
        ],
    }
    assert read_searches([]) == {}


def test_the_front_goes_from_fast_to_slow_and_a_later_report_wins(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{i}.json", r) for i, r in enumerate((FRONT, RANKING))]
    found = read_searches(paths)
    assert [p["ms"] for p in found["front"]] == [1.5, 2.5]
    assert found["front"][1] == {"ms": 2.5, "predicted": 3.0, "score": 0.99, "floats": 2}
    assert found["ranking"][0]["name"] == "b"
    assert read_searches(reversed(paths))["ranking"][0]["name"] == "z"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it has no ranking of layers"),
        ('{"ranking": {}}', "it has no ranking of layers"),
        ('{"ranking": [{"name": "a"}]}', "an entry is not as expected: KeyError('loss')"),
        ('{"ranking": [{"name": "a", "loss": "x"}]}', "'x' is not a number"),
        ('{"ranking": [{"name": "a", "loss": NaN}]}', "nan is not a number"),
        ('{"ranking": [1]}', "an entry is not as expected"),
        ('{"ranking": [], "front": [{"score": 1}]}', "KeyError('measured_ms')"),
        ('{"ranking": [], "float_layers": 3}', "an entry is not as expected"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(QdqcError) as caught:
        read_searches([path])
    assert f"{path}: error: this is not a report of a search" in str(caught.value)
    assert why in str(caught.value)
    assert "by --report" in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("none.json", "b.json"):
        with pytest.raises(QdqcError, match="can't read the report of a search"):
            read_searches([tmp_path / name])
