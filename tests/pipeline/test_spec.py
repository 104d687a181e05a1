"""Pipeline strings: what they mean, how they print, and how their errors read."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.diagnostics import QdqcError
from qdqc.pipeline.pass_ import PASSES, Pass
from qdqc.pipeline.spec import Step, parse_pipeline, print_pipeline, resolve
from qdqc.registry import Registry

KNOWN: Registry[type[Pass]] = Registry("pass")


with PASSES.scratch():

    class FusePad(Pass):
        """A pass without options."""

        name = "fuse-pad"

    class Everything(Pass):
        """A pass with an option of every kind."""

        name = "every-thing"
        max_value: float = math.inf
        count: int = 3
        method: str = "kl"
        scheme: Literal["per-channel", "per-tensor"] = "per-tensor"
        sizes: tuple[int, ...] = ()
        names: tuple[str, ...] = ("a",)
        ratio: float | None = None
        strict: bool = False

    class Needs(Pass):
        """A pass with an option that must be given."""

        name = "needs"
        target: str


for _cls in (FusePad, Everything, Needs):
    KNOWN.add(_cls.name, _cls)

NAMED = {
    "clean": "fuse-pad,every-thing{count=1}",
    "all": "@clean,needs{target=cpu}",
    "loop": "fuse-pad,@pool",
    "pool": "@loop",
    "broken": "fuse-pad,fuse-pda",
}


def passes(text: str) -> list[Pass]:
    return resolve(text, NAMED, KNOWN)


def message(text: str) -> str:
    with pytest.raises(QdqcError) as caught:
        passes(text)
    return str(caught.value)


def test_the_syntax_by_example() -> None:
    text = ' a , b{x=1 y="k k"\n z-z=[1, -2.5,"q"] w=word}, @transform '
    assert parse_pipeline(text) == [
        Step("a"),
        Step("b", {"x": 1, "y": "k k", "z_z": (1, -2.5, "q"), "w": "word"}),
        Step("transform", named=True),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("true", True),
        ("false", False),
        ("none", None),
        ("per-channel", "per-channel"),
        ("/layer4/.*", "/layer4/.*"),
        ('"1"', "1"),
        ('"a \\"b\\" \\n"', 'a "b" \n'),
        ("[]", ()),
        ("[[1],[2,3]]", ((1,), (2, 3))),
    ],
)
def test_values(text: str, value: object) -> None:
    (step,) = parse_pipeline(f"p{{x={text}}}")
    assert step.options == {"x": value}
    assert type(step.options["x"]) is type(value)


def test_an_empty_pipeline_has_no_passes() -> None:
    assert passes("") == passes(" \n") == []


def test_options_are_fitted_to_the_fields() -> None:
    text = "every-thing{max-value=4 count=2 method=mse scheme=per-channel names=[b,c] ratio=1}"
    (found,) = passes(text)
    assert found == Everything(
        max_value=4.0, count=2, method="mse", scheme="per-channel", names=("b", "c"), ratio=1.0
    )
    assert isinstance(found.max_value, float)
    assert passes("every-thing{max_value=4}") == passes("every-thing{max-value=4}")


def test_named_pipelines_expand_through_one_another() -> None:
    assert passes("@all") == [FusePad(), Everything(count=1), Needs(target="cpu")]


def test_printing_leaves_out_defaults() -> None:
    found = [FusePad(), Everything(max_value=6.0, method="k k", sizes=(1, 2))]
    text = 'fuse-pad,every-thing{max-value=6 method="k k" sizes=[1, 2]}'
    assert print_pipeline(found) == text
    assert passes(text) == found


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_FLOAT = st.floats(allow_nan=False)
_PASS = st.one_of(
    st.just(FusePad()),
    st.builds(Needs, target=_TEXT),
    st.builds(
        Everything,
        max_value=_FLOAT,
        count=st.integers(),
        method=_TEXT,
        scheme=st.sampled_from(["per-channel", "per-tensor"]),
        sizes=st.lists(st.integers(), max_size=3).map(tuple),
        names=st.lists(_TEXT, max_size=3).map(tuple),
        ratio=st.none() | _FLOAT,
        strict=st.booleans(),
    ),
)


@given(st.lists(_PASS, max_size=4))
def test_printed_pipelines_read_back(found: list[Pass]) -> None:
    text = print_pipeline(found)
    assert passes(text) == found
    assert print_pipeline(passes(text)) == text


@given(st.text(alphabet='ab{}=,@[]" \\1.-\n', max_size=12))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        steps = parse_pipeline(text)
    except QdqcError as error:
        place = error.diagnostic.position
        assert place is not None
        assert place.text in text
        assert 1 <= place.column <= len(place.text) + 1
    else:
        assert len(steps) <= len(text)


def test_an_unknown_pass_suggests_the_nearest_and_points_at_it() -> None:
    assert message("fuse-pad, fuse-pda{x=1}") == (
        "<pipeline>:1:11: error: unknown pass 'fuse-pda'; did you mean 'fuse-pad'?\n"
        "      fuse-pad, fuse-pda{x=1}\n"
        "                ^^^^^^^^\n"
        "note: --list-passes shows all passes"
    )


def test_an_error_in_a_named_pipeline_says_which() -> None:
    assert message("fuse-pad,@broken").startswith("@broken:1:10: error: unknown pass 'fuse-pda'")


def test_an_unknown_option_is_underlined() -> None:
    lines = message("every-thing{count=1 max-valeu=2}").split("\n")
    assert "'max-valeu'; did you mean" in lines[0]
    assert lines[0].startswith("<pipeline>:1:21:")
    assert lines[2].strip() == "^^^^^^^^^"
    assert lines[2].index("^") == lines[1].index("max-valeu")


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("a,,b", 3, "expected the name of a pass, found ','"),
        ("a,", 3, "expected the name of a pass, found the end of the text"),
        ("a b", 3, "expected ',' or the end of the pipeline, found 'b'"),
        ("a{x=1", 6, "expected an option of 'a' or '}', found the end of the text"),
        ("a{x=1, y=2}", 6, "options are separated by spaces"),
        ("a{x}", 4, "expected '=' and the option's value, found '}'"),
        ("a{x=}", 5, "expected a value"),
        ("a{x=[1 2]}", 8, "expected ',' or ']', found '2'"),
        ('a{x="1}', 5, "expected a value"),
        ('a{x="\\q"}', 5, "escapes are those of JSON"),
        ("a{x=1 x=2}", 7, "option 'x' is given twice"),
        ("@clean{x=1}", 7, "takes no options"),
        ("clean", 1, "the named pipeline is written '@clean'"),
        ("@claen", 1, "did you mean '@clean'? (known: @all, @broken, @clean, @loop, @pool)"),
        ("needs", 1, "pass 'needs' needs 'target'"),
        ("every-thing{count=x}", 13, 'is an integer, not "x"'),
        ("every-thing{max-value=x}", 13, "'max-value' of pass 'every-thing' is a number"),
        ("every-thing{scheme=kl}", 13, "one of per-channel, per-tensor"),
        ("fuse-pad{x=1}", 10, "(it has: none)"),
    ],
)
def test_errors_have_a_place_and_a_reason(text: str, column: int, part: str) -> None:
    found = message(text)
    assert part in found
    assert found.startswith(f"<pipeline>:1:{column}: error: ")


def test_a_pipeline_that_contains_itself_is_refused() -> None:
    assert "contains itself: @loop -> @pool -> @loop" in message("@loop")


def test_places_count_lines() -> None:
    assert message("fuse-pad,\n  nonsense").startswith("<pipeline>:2:3: error: unknown pass")
