"""npz_tool as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.data.archive import Archive, write_arrays
from qdqc.tools.npz_tool import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.array([1.0, 2.0]), y=np.array([1.0, 1.0]), extra=np.ones(1))
    np.savez("b.npz", y=np.array([1.0, 1.5]), x=np.array([1.0, 2.0]), lost=np.ones(1))
    return tmp_path


def test_compare_fails_with_one_and_names_the_first_and_the_worst(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["compare", "a.npz", "b.npz", "--save", "f.csv", "--report", "r.json"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "2 compared, 1 passed, 1 failed at tolerance 0.99,0.99",
        "first below tolerance:",
    ]
    assert out.splitlines()[-1] == "npz compare FAILED"
    assert "1 only in b.npz, 1 only in a.npz" in err
    assert (folder / "f.csv").read_text().splitlines()[1].startswith("y,NOT_SIMILAR,false,")
    report = json.loads((folder / "r.json").read_text())
    assert (report["compared"], report["failed"], report["first_failure"]) == (2, 1, "y")


def test_compare_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a.npz", "b.npz", "--tolerance", "0.9,0.6"]) == 0
    assert main(["compare", "a.npz", "b.npz", "--excepts", "y"]) == 0
    capsys.readouterr()
    assert main(["compare", "a.npz", "a.npz", "-v"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["EQUAL"] * 3
    assert err == ""
    assert main(["-v", "compare", "a.npz", "b.npz", "--excepts", "y"]) == 0
    assert "only b.npz has 'lost'" in capsys.readouterr().err


def test_dump(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "a.npz"]) == 0
    assert capsys.readouterr().out == "x  float64[2]\ny  float64[2]\nextra  float64[1]\n"
    assert main(["dump", "a.npz", "x", "1"]) == 0
    assert capsys.readouterr().out.startswith("x  float64[2]\n1.0 ...\nall: min 1  max 2")


def test_extract_merge_rename(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "a.npz", "part.npz", "y,x"]) == 0
    assert list(Archive("part.npz")) == ["y", "x"]
    assert main(["merge", "a.npz", "b.npz", "all.npz"]) == 0
    merged = Archive("all.npz")
    assert set(merged) == {"x", "y", "extra", "lost"}
    assert merged["y"].tolist() == [1.0, 1.5]
    assert main(["rename", "a.npz", "named.npz", "x", "z"]) == 0
    assert list(Archive("named.npz")) == ["z", "y", "extra"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "none.npz", "b.npz"], "none.npz: error: can't read the file: No such file"),
        (["compare", "a.npz", "text.npz"], "text.npz: error: this is not an npz file"),
        (["compare", "a.npz", "c.npz"], "the files share no name: it has 'x', 'y', 'extra'"),
        (["compare", "a.npz", "b.npz", "--excepts", "*"], "--excepts leaves nothing"),
        (["compare", "a.npz", "b.npz", "--save", "no/f.csv"], "there is no folder 'no'"),
        (["compare", "a.npz", "b.npz", "--save", "a.npz"], "is also an input"),
        (["dump", "a.npz", "X1"], "there is no array 'X1'"),
        (["extract", "a.npz", "o.npz", "xy"], "there is no array 'xy'"),
        (["rename", "a.npz", "o.npz", "x", "y"], "there is already an array 'y'"),
        (["rename", "a.npz", "a.npz", "x", "z"], "is also an input"),
        (["merge", "a.npz", "b.npz", "b.npz"], "is also an input"),
        (["merge", "a.npz", "none.npz", "o.npz"], "none.npz: error: can't read the file"),
        (["statistic", "a.npz", "no*"], "no array is named 'no*'"),
        (["statistic", "a.npz", "--save", "a.npz"], "is also an input"),
        (["visualize_diff", "a.npz", "b.npz", "lost"], "there is no array 'lost'"),
        (["visualize_diff", "a.npz", "d.npz"], "no array has the same shape in both files"),
        (["dump", "empty.npz"], "empty.npz: error: this is not an npz file"),
        (["dump", "."], ".: error: can't read the file: Is a directory"),
    ],
)
def test_errors_write_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (folder / "text.npz").write_text("hello")
    np.savez("c.npz", other=np.ones(1))
    np.savez("d.npz", x=np.ones(3), y=np.array(["a"]))
    (folder / "empty.npz").touch()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert main(words) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "note: " in err
    assert "Traceback" not in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cmopare", "a"], "unknown command 'cmopare'; did you mean 'compare'?"),
        ([], "the following arguments are required: COMMAND"),
        (["compare", "a.npz"], "the following arguments are required: B.npz"),
        (["compare", "a", "b", "--tolerance", "1"], "'1' is not a pair of similarities"),
        (
            ["compare", "a", "b", "--per_axis_compare", "-1"],
            "'-1' is not an axis; axes count from 0",
        ),
        (["statistic", "a", "--per_axis", "x"], "'x' is not an axis"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_compare_loads_neither_onnx_nor_onnxruntime(folder: Path) -> None:
    code = (
        "import sys; from qdqc.tools.npz_tool import main\n"
        "code = main(['compare', 'a.npz', 'a.npz'])\n"
        "print(code, [m for m in ('onnx', 'onnxruntime', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_an_array_of_another_shape_is_told_with_both(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("t.npz", y=np.array([[1.0, 1.5]]))
    assert main(["compare", "t.npz", "b.npz", "-q"]) == 1
    assert "NOT_MATCH   shape [1, 2] against [2]  y" in capsys.readouterr().out


def test_rows_along_an_axis_reach_the_table_and_the_csv(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.ones((2, 3))
    np.savez("p.npz", x=x)
    x[:, 1] = 5
    np.savez("q.npz", x=x)
    words = ["compare", "p.npz", "q.npz", "--per_axis_compare", "1", "--save", "f.csv", "-v"]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines[:4]] == [
        ("NOT_SIMILAR", "x"),
        ("EQUAL", "x[:,0]"),
        ("NOT_SIMILAR", "x[:,1]"),
        ("EQUAL", "x[:,2]"),
    ]
    names = [line.partition(",")[0] for line in (folder / "f.csv").read_text().splitlines()[1:]]
    assert names == ["x", '"x[:', '"x[:', '"x[:'], "a comma in a name is quoted"


def test_statistic(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statistic", "a.npz", "--save", "s.csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["min", "max", "mean", "mean|x|", "std", "zeros", "odd", "type", "name"]
    assert rows[0].split() == ["1", "2", "1.5", "1.5", "0.5", "0.0%", "float64[2]", "x"]
    assert len((folder / "s.csv").read_text().splitlines()) == 4
    assert main(["statistic", "a.npz", "e*,y"]) == 0
    assert [r.split()[-1] for r in capsys.readouterr().out.splitlines()] == ["name", "y", "extra"]


def test_visualize_diff_takes_the_worst_array_or_the_named_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["visualize_diff", "a.npz", "b.npz", "-q", "--report", "r.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  y")
    assert lines[1] == "A - B over 2 elements: rms 0.353553, largest 0.5"
    assert lines[-1].split() == ["1", "1.5", "-0.5", "[1]"]
    assert json.loads((folder / "r.json").read_text())["name"] == "y"
    assert main(["visualize_diff", "a.npz", "b.npz", "x", "--per_axis", "0"]) == 0
    assert "worst along axis 0:" in capsys.readouterr().out


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("compare", "visualize_diff", "statistic", "dump", "extract", "merge", "rename"):
        assert f"  {name} " in shown
        assert main([name, "--help"]) == 0
        assert f"npz_tool {name}" in capsys.readouterr().out


def test_a_full_disk_leaves_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for words in (["merge", "a.npz", "b.npz"], ["compare", "a.npz", "a.npz", "--save"]):
        assert main([*words, "/dev/full"]) == 1
        assert "No space left on device" in capsys.readouterr().err


def test_memory_of_all_commands_stays_below_an_array(tmp_path: Path) -> None:
    """Peak of Python's own memory, on arrays of 32 MB."""
    big = np.zeros(1 << 23, np.float32)
    np.savez(tmp_path / "a.npz", x=big)
    np.savez(tmp_path / "b.npz", x=big, y=np.ones(1))
    del big
    runs = [
        ["compare", "a.npz", "b.npz"],
        ["dump", "a.npz", "x", "4"],
        ["statistic", "a.npz"],
        ["visualize_diff", "a.npz", "b.npz"],
        ["extract", "b.npz", "c.npz", "x"],
        ["merge", "a.npz", "b.npz", "d.npz"],
        ["rename", "a.npz", "e.npz", "x", "z"],
    ]
    code = (
        "import sys, tracemalloc\nimport numpy\nfrom qdqc.tools.npz_tool import main\n"
        f"for words in {runs!r}:\n"
        "    tracemalloc.start()\n"
        "    code = main([*words, '-qq'])\n"
        "    print(words[0], code, tracemalloc.get_traced_memory()[1] >> 20, file=sys.stderr)\n"
        "    tracemalloc.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    told = [line.split() for line in done.stderr.splitlines()]
    assert [t[:2] for t in told] == [[words[0], "0"] for words in runs]
    assert all(int(megabytes) < 16 for *_, megabytes in told), told


NAMES = st.text("abc/._ é,[]", min_size=1, max_size=8).filter(
    lambda n: n.strip() == n and not n.endswith(".npy")
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int8, np.bool_, np.float16]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=3, min_side=0),
)
FILES = st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=4)


def same(found: Archive, wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=25, deadline=None)
@given(FILES, FILES)
def test_what_was_merged_is_there_and_the_last_counts(one: dict, other: dict) -> None:
    with tempfile.TemporaryDirectory() as name:
        a, b, out = (f"{name}/{n}.npz" for n in "abo")
        write_arrays(a, one)
        write_arrays(b, other)
        assert main(["merge", a, b, out, "-q"]) == 0
        same(Archive(out), one | other)
        assert main(["merge", out, f"{name}/again.npz", "-q"]) == 0
        assert Path(out).read_bytes() == Path(f"{name}/again.npz").read_bytes()
        assert main(["compare", b, out, "-q"]) == 0


@settings(max_examples=25, deadline=None)
@given(FILES, st.data())
def test_an_extract_merged_with_the_rest_is_the_whole(arrays: dict, data: st.DataObject) -> None:
    plain = [n for n in arrays if "," not in n]
    chosen = data.draw(st.lists(st.sampled_from(plain), unique=True)) if plain else []
    rest = [n for n in plain if n not in chosen]
    with tempfile.TemporaryDirectory() as name:
        whole, part, left, both = (f"{name}/{n}.npz" for n in ("w", "p", "l", "b"))
        write_arrays(whole, arrays)
        assert main(["extract", whole, part, ",".join(chosen), "-q"]) == 0
        assert main(["extract", whole, left, ",".join(rest), "-q"]) == 0
        same(Archive(part), {n: arrays[n] for n in chosen})
        assert main(["merge", part, left, both, "-q"]) == 0
        same(Archive(both), {n: arrays[n] for n in [*chosen, *rest]})


@settings(max_examples=25, deadline=None)
@given(FILES, NAMES, st.data())
def test_a_name_that_was_changed_and_changed_back(
    arrays: dict, fresh: str, data: st.DataObject
) -> None:
    old = data.draw(st.sampled_from(list(arrays)))
    with tempfile.TemporaryDirectory() as name:
        a, b, c = (f"{name}/{n}.npz" for n in "abc")
        write_arrays(a, arrays)
        code = main(["rename", a, b, old, fresh, "-q"])
        if fresh in arrays:
            assert code == 1
            assert not Path(b).exists()
            return
        assert code == 0
        same(Archive(b), {fresh if n == old else n: x for n, x in arrays.items()})
        assert main(["rename", b, c, fresh, old, "-q"]) == 0
        same(Archive(c), arrays)


def test_an_interruption_leaves_no_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Archive, "copy", stop)
    before = sorted(p.name for p in folder.iterdir())
    assert main(["merge", "a.npz", "b.npz", "all.npz"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert sorted(p.name for p in folder.iterdir()) == before
