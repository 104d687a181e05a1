"""Expected diagnostics in comments: where they point, and what counts as met."""

from __future__ import annotations

import pytest

from qdqc.diagnostics import Diagnostic, Severity
from qdqc.ir.loc import Loc, Position
from qdqc.tools.expectations import find_expectations, mismatches


def diagnostic(
    message: str, line: int | None, severity: Severity = Severity.ERROR, *notes: str
) -> Diagnostic:
    loc = None if line is None else Loc(position=Position("f.qir", line, 1))
    return Diagnostic(severity, message, loc=loc, notes=notes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n// expected-error {{x}}", 2),
        ("\n// expected-error@+1 {{x}}", 3),
        ("\n// expected-error@-1 {{x}}", 1),
        ("// expected-error@below {{x}}\n// expected-error@below {{x}}\n", 3),
        ("a\n// expected-error@above {{x}}\n// expected-error@above {{x}}\n", 1),
        ("// expected-error@unknown {{x}}", None),
    ],
)
def test_places(text: str, line: int | None) -> None:
    assert {e.line for e in find_expectations(text)} == {line}


def test_several_in_one_comment() -> None:
    found = find_expectations("x // expected-error {{a}} expected-warning@+1 {{b}}")
    assert [(e.severity.value, e.pattern, e.line) for e in found] == [
        ("error", "a", 1),
        ("warning", "b", 2),
    ]


def test_outside_of_comments_nothing_is_expected() -> None:
    assert find_expectations('"expected-error {{x}}"') == []


def test_part_of_the_text_is_enough_and_is_taken_literally() -> None:
    expected = find_expectations("// expected-error {{f32[2] (+)}}")
    assert mismatches(expected, [diagnostic("not f32[2] (+) here", 1)]) == []
    assert len(mismatches(expected, [diagnostic("f3", 1)])) == 2


def test_patterns() -> None:
    expected = find_expectations("// expected-error-re {{f32\\[\\d+\\]}}")
    assert mismatches(expected, [diagnostic("f32[17]", 1)]) == []


@pytest.mark.parametrize(
    "found",
    [
        diagnostic("x", 2),
        diagnostic("x", None),
        diagnostic("x", 1, Severity.WARNING),
        diagnostic("y", 1),
    ],
)
def test_line_severity_and_text_must_agree(found: Diagnostic) -> None:
    problems = mismatches(find_expectations("// expected-error {{x}}"), [found])
    assert len(problems) == 2
    assert problems[0].startswith(f"unexpected {found.severity.value}: ")
    assert problems[1] == "line 1: the error expected here did not come"


def test_one_expectation_covers_one_diagnostic() -> None:
    expected = find_expectations("// expected-error {{x}}")
    assert len(mismatches(expected, [diagnostic("x", 1), diagnostic("x", 1)])) == 1


def test_notes_may_be_expected_but_need_not_be() -> None:
    found = [diagnostic("x", 1, Severity.ERROR, "why")]
    assert mismatches(find_expectations("// expected-error {{x}}"), found) == []
    both = "// expected-error {{x}} expected-note {{why}}"
    assert mismatches(find_expectations(both), found) == []
    other = "// expected-error {{x}} expected-note {{how}}"
    assert mismatches(find_expectations(other), found) == [
        "line 1: the note expected here did not come"
    ]


def test_the_ops_name_is_part_of_the_text() -> None:
    expected = find_expectations("// expected-error {{'conv': x}}")
    loc = Loc(position=Position("f", 1, 1))
    assert mismatches(expected, [Diagnostic(Severity.ERROR, "x", "conv", loc)]) == []
