from __future__ import annotations

import pytest
from markdown import print_table, table


def test_columns_line_up() -> None:
    assert table(["tool", "n"], [["before", 234], ["a", ""]]).splitlines() == [
        "| tool   |   n |",
        "| ------ | --: |",
        "| before | 234 |",
        "| a      |     |",
    ]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        table(["tool", "n"], [["a"]])


def test_a_table_has_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Nodes", ["tool"], [["a"]])
    assert capsys.readouterr().out.startswith("\n## Nodes\n| tool |\n")
