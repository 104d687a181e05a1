"""Each mistake in a text is named where it stands, in words, with what was expected."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.diagnostics import QdqcError
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import TensorType
from qdqc.text.parser import parse_dim, parse_module
from qdqc.text.printer import print_module


@pytest.fixture(scope="module", autouse=True)
def _ops():
    with OPS.scratch():

        class Pool(Op):
            name, operands = "test.pool", ("x",)
            pads: tuple[int, ...] = ()
            mode: str = ""

            def infer(self, x: TensorType) -> tuple[TensorType]:
                return (x,)

        class Needs(Op):
            name, operands = "test.needs", ("x",)
            axis: int

        yield


def text(*lines: str, const: str = "") -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"module @m {{\n  {const}\n  graph (%x : f32[1,3]) -> (%y) {{\n{body}\n  }}\n}}\n"


def problem(source: str) -> QdqcError:
    with pytest.raises(QdqcError) as caught:
        parse_module(source, file="m.qir")
    return caught.value


def at(error: QdqcError) -> tuple[int, int]:
    place = error.diagnostic.position
    assert place is not None
    assert place.file == "m.qir"
    return place.line, place.column


def test_rendering_has_place_line_and_caret():
    error = problem(text("%y = test.pool(%z) : f32[1,3]"))
    assert str(error).splitlines() == [
        "m.qir:4:20: error: %z is not defined here",
        "      %y = test.pool(%z) : f32[1,3]",
        "                     ^^",
    ]


NODE = "%y = test.pool(%x) : f32[1,3]"

WRONG_NODES = [
    ("%y = test.pol(%x) : f32[1,3]", 10, "unknown op 'test.pol'; did you mean 'test.pool'?"),
    ("%y = test.pool(%x) {pad = [1]} : f32[1,3]", 25, "has no 'pad'; did you mean 'pads'?"),
    ("%y = test.pool(%x) {pads = 1} : f32[1,3]", 25, "a list, each an integer, not 1"),
    ("%y = test.pool(%x) {pads = [1], pads = [2]} : f32[1]", 37, "'pads' is given twice"),
    ("%y = test.needs(%x) : f32[1,3]", 10, "needs 'axis'"),
    ("%y = test.pool(%x)", 10, "names of results: 1, types of results: 0"),
    ("%y = test.pool(%x) : f33[1,3]", 26, "unknown element type 'f33'"),
    ("%y = test.pool(%x) : f32[1,%]", 26, "bad dimension '%': write it like"),
    ("%y = test.pool(%x) : f32[N//0]", 26, "it divides by zero"),
    ("%y = test.pool(%x) : f32[2-3]", 26, "is negative"),
    ("%x = test.pool(%x) : f32[1,3]", 5, "%x is defined twice"),
    ("%y, %y = test.pool(%x) : f32[1], f32[1]", 14, "the name '%y' is taken"),
    ('%y = test.pool(%x) {mode = "\\q"} : f32[1]', 32, "unknown escape"),
    ('%y = test.pool(%x) {mode = "a} : f32[1]', 32, "the quoted text does not end on this line"),
    ("%y = test.pool(%x) : u8[1] q(scale = 1, zero = 1)", 45, "has no 'zero'"),
    ("%y = test.pool(%x) : u8[1] q(axis = 0)", 34, "needs 'scale'"),
    ("%y = test.pool(%x) : u8[1] q(axis = 0.5, scale = 1)", 34, "'axis' is an integer"),
    ('%y = test.pool(%x) : u8[1] q(scale = "a")', 34, "bad 'scale'"),
    ("%y = test.pool(%x) : u8[1] q(scale = 1, zero_point = 0.5)", 45, "bad 'zero_point'"),
]


@pytest.mark.parametrize(("line", "column", "message"), WRONG_NODES)
def test_wrong_nodes(line: str, column: int, message: str):
    error = problem(text(line))
    assert message in error.diagnostic.message
    assert at(error) == (4, column)


WRONG_SYNTAX = [
    ("%y test.pool(%x) : f32[1,3]", 8, "expected ',' or '=', found 'test.pool'"),
    ("%y = test.pool %x : f32[1,3]", 20, "expected '(', found '%x'"),
    ("%y = test.pool(%x : f32[1,3]", 23, "expected ')' or ',', found ':'"),
    ("%y = test.pool(x) : f32[1,3]", 20, "expected ')', 'none' or a value, such as %x, found 'x'"),
    ("%y = test.pool(%x) {pads [1]} : f32[1]", 30, "expected '=', found"),
    ("%y = test.pool(%x) {pads = } : f32[1]", 32, "expected an attribute's value"),
    ("%y = test.pool(%x) {= 3} : f32[1]", 25, "expected an attribute's name or '}', found '='"),
    ("%y = test.pool(%x) : f32[1,3] loc(a)", 39, "expected a text in quotes, found 'a'"),
    ("%y = test.pool(%x) : f32[1,3] range(1, 2)", 45, "expected ',', found ')'"),
    ("%y = test.pool(%x) : f32[1,3] &", 35, "found '&'"),
    ("%y = test.pool(%x) : seq<f32[1]", 3, "found '}'"),
]


@pytest.mark.parametrize(("line", "column", "message"), WRONG_SYNTAX)
def test_wrong_syntax(line: str, column: int, message: str):
    error = problem(text(line))
    assert message in error.diagnostic.message
    assert "ANON" not in error.diagnostic.message
    assert at(error)[1] == column


WRONG_CONSTANTS = [
    ("const %w : f32[2] = dense[1]", "1 elements are given, the type has 2"),
    ("const %w : i8[1] = dense[200]", "200 does not fit i8 (-128 to 127)"),
    ("const %w : i8[1] = dense[1.5]", "elements are integers"),
    ("const %w : bool[1] = dense[1]", "elements are true or false"),
    ('const %w : f32[1] = dense["a"]', "elements are numbers"),
    ("const %w : f16[1] = dense[1e6]", "1e+06 does not fit f16"),
    ("const %w : c64[1] = dense[1]", "pairs [real, imaginary]"),
    ("const %w : f32[N] = dense[1]", "known shape"),
    ("const %w : seq<f32[1]> = dense[1]", "known shape"),
    ('const %w : f32[1] = elided("md5:1")', "not a digest"),
    ('const %w : f32[1] = resource("sha256:12")', "not a digest"),
    (f'const %w : f32[9] = resource("sha256:{"0" * 64}")', "in a sidecar, which was not given"),
    ('const %w : string[1] = elided("sha256:12")', "strings stand in the text"),
    ("const %w : f32[1] : dense[1]", "expected '=', 'q(...)' or 'range(...)', found ':'"),
    ("const %w : f32[1] = [1]", "expected dense[...], resource(...) or elided(...), found '[1]'"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_CONSTANTS)
def test_wrong_constants(line: str, message: str):
    error = problem(text(NODE, const=line))
    assert message in error.diagnostic.message
    assert at(error)[0] == 2


def test_graph_outputs_are_looked_up_at_the_end():
    error = problem(text("%yy = test.pool(%x) : f32[1,3]"))
    assert error.diagnostic.message == "%y is not defined here; did you mean 'yy'?"
    assert at(error) == (3, 29)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expected 'module', found the end of the text"),
        ("module", "the module's name, such as @main, found the end of the text"),
        ("module @m {", "found the end of the text"),
        ("module @m {}", "expected '{', found the end of the text"),
        ("module @m { } }", "expected '{', found '}'"),
        ("module @m { {} }", "found '{'"),
        ("module @m { graph () () {} }", "expected '->', found '('"),
        ("graph () -> () {}", "expected 'module', found 'graph'"),
        ("module @m { graph () -> () {} } x", "expected the end of the text, found 'x'"),
        ('module @m {opsets = "a"} { graph () -> () {} }', "opsets are versions by domain"),
        ("\x08\x00\x12", "expected 'module'"),
    ],
)
def test_wrong_modules(source: str, message: str):
    assert message in problem(source).diagnostic.message


def test_an_attribute_may_bear_the_name_of_a_keyword():
    with OPS.scratch():

        class Odd(Op):
            name, operands = "test.odd", ()
            graph: int = 0
            none: int = 0
            loc: int = 0

        source = text("%y = test.odd() {graph = 1, none = 2, loc = 3} : f32[1]")
        op = next(parse_module(source).walk()).op
        assert op == Odd(graph=1, none=2, loc=3)


def test_a_definition_names_the_first_one():
    error = problem(text(NODE, NODE))
    assert at(error) == (5, 5)
    assert error.diagnostic.notes == ("%y is a result of 'test.pool' at m.qir:4:10",)


def test_an_error_leaves_the_parser_fit_for_the_next_text():
    problem(text("%y = test.pool("))
    assert parse_module(text(NODE)).graph.outputs[0].name == "y"


def test_verification_on_request():
    source = text("%y = test.pool(%x) : f32[1,4]")
    assert parse_module(source).graph.outputs
    with pytest.raises(QdqcError, match=r"declared f32\[1,4\]"):
        parse_module(source, verify=True)


@pytest.mark.parametrize("bad", ["", "N+", "2N", "N M", "(N", "N//0", "N$"])
def test_wrong_dimensions(bad: str):
    with pytest.raises(ValueError, match=r"write it like|divides by zero"):
        parse_dim(bad)


def test_lark_is_loaded_when_a_text_is_read():
    code = "import qdqc.text.parser, sys; assert 'lark' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SOUND = """module @m {opsets = {"" = 17}} {
  const %w : i8[2,2] q(axis = 0, scale = [0.01, 0.02]) = dense[12, -3, 0, 4]
  graph (%x : f32[(N+1)//2,3] {mean = [0.0]}) -> (%y) {
    %a = test.pool(%x) {pads = [1, 1], mode = "m"} : f32[1,3] range(0, 1, 1) loc("/p") // end
    %y = test.needs(%a) {axis = 1} : seq<f32[*]> { graph () -> (%x) {} } mode(INT8)
  }
}
"""


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(SOUND)),
    st.integers(0, 6),
    st.text(st.sampled_from('%"{}[]()<>=,:/.-_01aexf \n\\@?*'), max_size=3),
)
def test_whatever_is_broken_the_error_is_located(start: int, length: int, put: str):
    broken = SOUND[:start] + put + SOUND[start + length :]
    error = first_problem(broken)
    if error is not None:
        place = error.diagnostic.position
        assert place is not None
        assert 1 <= place.line <= broken.count("\n") + 1
        assert error.diagnostic.message
        assert "__" not in error.diagnostic.message.partition("found")[0]


def first_problem(source: str) -> QdqcError | None:
    try:
        parse_module(source, file="m.qir")
    except QdqcError as error:
        return error
    return None


def nested(depth: int) -> list[str]:
    """Ways to nest: lists, mappings, types, dimensions, graphs."""
    node = '%y = onnx(%x) {{type = "A", v = {}}} : f32[1]'
    graphs = "".join(
        f'graph () -> () {{ %g{i} = onnx() {{type = "A"}} : f32[] {{' for i in range(depth)
    )
    return [
        text(node.format("[" * depth + "]" * depth)),
        text(node.format("{a = " * depth + "1" + "}" * depth)),
        text(node.format("seq<" * depth + "f32[]" + ">" * depth)),
        text(node.format("f32[" + "(" * depth + "N" + ")//2" * depth + "]")),
        f"module @m {{ {graphs} graph () -> () {{}} {'} }' * depth} }}",
    ]


@pytest.mark.parametrize("kind", range(5))
def test_deep_nesting_is_read_or_refused(kind: int):
    print_module(parse_module(nested(40)[kind]))
    error = problem(nested(5000)[kind])
    assert "too deep" in error.diagnostic.message or "too long" in error.diagnostic.message


def test_numbers_without_end_are_refused():
    for number in ("9" * 5000, "[1, " + "9" * 5000 + "]", f"f32[{'9' * 5000}]"):
        error = problem(text(f"%y = test.needs(%x) {{axis = {number}}} : f32[1]"))
        assert "too" in error.diagnostic.message


def test_long_lines_are_shown_around_the_caret():
    error = problem(text(f"%y = test.pool(%x) {{pads = [{'1, ' * 3000}1], mod = 1}} : f32[1]"))
    _, line, caret = str(error).splitlines()
    assert len(line) < 220
    assert line[caret.index("^") :].startswith("mod = 1")
    assert line.lstrip().startswith("... ")
