from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.calibration.table import (
    Table,
    WeightScale,
    load_table,
    parse_table,
    print_table,
    save_table,
)
from qdqc.calibration.table_check import check_digest, check_table
from qdqc.diagnostics import QdqcError, Severity
from qdqc.ir.types import Range

NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["/conv/Conv", "a b", "#x", '"', '"q"', "a\tb", "a\nb", "é", "\u2028x", "x\x85y", "1.0", "###"]
)
NUMBERS = st.floats(-1e30, 1e30) | st.floats(-10, 10) | st.just(0.0) | st.floats(-1e-20, 1e-20)
RANGES = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(
    lambda t: Range(min(t[:2]), max(t[:2]), abs(t[2]))
)
PAIRS = st.tuples(NUMBERS, NUMBERS).map(lambda t: (min(t), max(t)))
SCALES = st.lists(NUMBERS, min_size=1, max_size=3).map(tuple)
TABLES = st.builds(
    Table,
    rows=st.dictionaries(NAMES, RANGES, max_size=5),
    observed=st.dictionaries(NAMES, PAIRS, max_size=3),
    header=st.fixed_dictionaries({"tool": st.just("qdqc 0.1"), "method": st.just("kl")}),
    int4=st.dictionaries(NAMES, RANGES, max_size=2),
    asym_ops=st.lists(NAMES, max_size=3).map(tuple),
    int4_ops=st.lists(NAMES, max_size=3).map(tuple),
    weight_scales=st.dictionaries(NAMES, st.builds(WeightScale, SCALES), max_size=2),
    channel_means=st.dictionaries(NAMES, SCALES, max_size=3),
)


@given(TABLES)
def test_tables_read_back(table: Table) -> None:
    text = print_table(table)
    found = parse_table(text, "t")
    assert print_table(found) == text
    assert found.header == table.header
    assert list(found.rows) == list(table.rows)
    assert (found.asym_ops, found.int4_ops) == (table.asym_ops, table.int4_ops)
    assert list(found.weight_scales) == list(table.weight_scales)
    for name, row in table.rows.items():
        back = found.rows[name]
        expected = (row.min, row.max, row.threshold)
        assert (back.min, back.max, back.threshold) == pytest.approx(expected, rel=1e-6, abs=0)
    for name, pair in table.observed.items():
        assert found.observed[name] == pytest.approx(pair, rel=1e-6, abs=0)
    assert list(found.channel_means) == list(table.channel_means)
    for name, means in table.channel_means.items():
        assert found.channel_means[name] == pytest.approx(means, rel=1e-6, abs=0)


def test_the_text() -> None:
    table = Table(
        rows={
            "images": Range(0, 1.000008, 1.000008),
            "small one": Range(-1.5e-9, 2e-9, 2e-9),
        },
        observed={"images": (0.0, 1.25)},
        header={"tool": "qdqc 0.1.0", "model": "m.qir", "digest": "sha256:12", "method": "kl"},
        asym_ops=("images",),
        weight_scales={"c_weight": WeightScale((0.5, 0.25), (1, 2))},
    )
    assert print_table(table) == (
        "# tool: qdqc 0.1.0\n"
        "# model: m.qir\n"
        "# digest: sha256:12\n"
        "# method: kl\n"
        "###\n"
        "# op_name    threshold    min    max\n"
        "images 1.0000080 0.0000000 1.0000080\n"
        '"small one" 2.00000000e-09 -1.50000000e-09 2.00000000e-09\n'
        "#observed\n"
        "images 0.0000000 1.2500000\n"
        "#asym_op\n"
        "images\n"
        "#weight_scale\n"
        "c_weight 2 0.5000000 0.2500000 2 1.0000000 2.0000000\n"
    )
    assert parse_table(print_table(table), "t") == table


TPU_MLIR = """\
# mlir version: v1.6 cali version 1.0
# mlir: yolov5s.mlir
# genetated time: 2022-08-11 10:00:59.743675
# quantization threshold calculation method: kl
# histogram number: 2048
# sample number: 100
###
# tune number: 5
###
# op_name    threshold    min    max
images 1.0000080 0.0000000 1.0000080\r
122_Conv 56.4281803 -102.5830231 97.6811752
#int4_th
122_Conv 1.5 -1.7 1.5
#tpu-mlir-fp8 caliration table
122_Conv 9.9 -9.9 9.9
#asym_op
122_Conv
"""


def test_a_table_of_tpu_mlir() -> None:
    found = parse_table(TPU_MLIR, "yolo_cali_table")
    assert found.rows == {
        "images": Range(0.0, 1.000008, 1.000008),
        "122_Conv": Range(-102.5830231, 97.6811752, 56.4281803),
    }
    assert found.int4 == {"122_Conv": Range(-1.7, 1.5, 1.5)}
    assert found.asym_ops == ("122_Conv",)
    assert found.header["method"] == "kl"
    assert found.header["samples"] == "100"
    assert found.header["model"] == "yolov5s.mlir"
    assert found.places["122_Conv"].line == 12


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x 1 -1", "a row is 'name threshold min max', but this one has 3 fields"),
        ("my name 1 -1 1", "has 5 fields"),
        ("x 1 -1 l", "'x': 'l' is not a number"),
        ("x nan -1 1", "'x': nan is not a range"),
        ("x 1 -inf 1", "'x': -inf is not a range"),
        ("x 1 2 -2", "the range is inverted, min 2 is above max -2"),
        ("x -1 -1 1", "the threshold -1 is negative"),
        ('"x 1 -1 1', "the quoted name is not a JSON string"),
        ("ok 2 -1 1", "'ok' has two rows with different numbers"),
        ("#observed\nx 1", "a row is 'name min max'"),
        ("#observed\nx 2 1", "min 2 is above max 1"),
        ("#asym_op\nx 2", "a row is 'name', but"),
        ("#weight_scale\nw 3 1 2", "a row is 'name N scale"),
        ("#weight_scale\nw 2 1 2 1 0", "a row is 'name N scale"),
    ],
)
def test_malformed_rows_are_located(row: str, message: str) -> None:
    with pytest.raises(QdqcError) as found:
        parse_table(f"# op_name    threshold    min    max\nok 1 -1 1\n{row}\n", "t.cali")
    assert message in str(found.value)
    line = 3 + row.count("\n")
    assert str(found.value).startswith(f"t.cali:{line}:1: error: ")


def test_files(tmp_path: Path) -> None:
    table = Table(rows={"x": Range(-1, 1, 1)}, header={"method": "max"})
    save_table(table, tmp_path / "t")
    assert load_table(tmp_path / "t") == table
    assert os.listdir(tmp_path) == ["t"]
    with pytest.raises(QdqcError, match="No such file"):
        load_table(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QdqcError, match="it is not text"):
        load_table(tmp_path / "binary")
    with pytest.raises(QdqcError):
        save_table(table, tmp_path / "none" / "t")


def rows(*names: str) -> Table:
    return parse_table("".join(f"{n} 1 -1 1\n" for n in names), "t")


def rendered(table: Table, *names: str) -> list[str]:
    return [d.render() for d in check_table(table, names, "t")]


def test_a_table_that_fits() -> None:
    assert check_table(rows("x", "conv1"), ["x", "conv1"]) == []


def test_a_misspelt_row_is_an_error() -> None:
    error, warning = rendered(rows("x", "/conv1/Cnov"), "x", "/conv1/Conv")
    assert error.startswith("t:2:1: error: the model has no value '/conv1/Cnov'; did you mean")
    assert "'/conv1/Conv', which has no row?" in error
    assert warning.startswith("t: warning: no row for '/conv1/Conv': ")


def test_a_row_too_many_is_a_warning() -> None:
    (warning,) = rendered(rows("x", "conv1", "conv2"), "x", "conv1")
    assert warning.startswith("t:3:1: warning: the model has no value 'conv2'")
    assert "the nearest is 'conv1'" in warning


def test_missing_rows_are_counted() -> None:
    (warning,) = rendered(rows("x"), "x", *(f"conv{i}" for i in range(9)))
    assert "'conv4' and 4 more" in warning


def test_a_table_of_another_model() -> None:
    for table in (rows("a", "b"), Table()):
        (found,) = check_table(table, ["x", "y"], "t")
        assert found.severity is Severity.ERROR
        assert "wrong calibration table" in found.message
    stated = Table(header={"digest": "sha256:1", "model": "m.qir"})
    check_digest(stated, "sha256:1")
    check_digest(Table(), "sha256:2")
    with pytest.raises(QdqcError, match=r"it was made from m.qir with digest sha256:1"):
        check_digest(stated, "sha256:2", "t")


def test_channel_means_stand_in_comments_of_their_own() -> None:
    table = Table(
        rows={"x": Range(-1, 2, 2)}, channel_means={"x": (0.5, -1e-9), "a b": (3.0,), "none": ()}
    )
    text = print_table(table)
    assert text.endswith('#channel_mean x 2 0.5 -1e-09\n#channel_mean "a b" 1 3\n')
    assert parse_table(text, "t").channel_means == {"x": (0.5, -1e-9), "a b": (3.0,)}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x 3 1 2", "a row is 'name N m0 m1 ...'"),
        ("x", "a row is 'name N m0 m1 ...'"),
        ("x 2 1 2 3", "'x': 1 numbers too many"),
        ("x 1 one", "'x': 'one' is not a number"),
        ("x 1 nan", "is not a range to quantize with"),
        ('"x 1 2', "the quoted name is not a JSON string"),
    ],
)
def test_malformed_channel_means(line: str, reason: str) -> None:
    with pytest.raises(QdqcError, match=re.escape(reason)) as caught:
        parse_table(f"x 1 -1 1\n#channel_mean {line}\n", "t")
    assert caught.value.diagnostic.position is not None
    assert caught.value.diagnostic.position.line == 2
