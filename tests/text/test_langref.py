"""The language reference says what the reader does."""

from __future__ import annotations

import re
from pathlib import Path

from qdqc.ir.types import Elem
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

LANGREF = (Path(__file__).parents[2] / "docs" / "langref.md").read_text("utf-8")
BLOCKS = [b for b in re.findall(r"```\n(.*?)```", LANGREF, re.DOTALL) if "::=" not in b]


def test_the_module_on_the_page_is_canonical():
    (block,) = [b for b in BLOCKS if b.startswith("module @")]
    printed = print_module(parse_module(block), weights="block.safetensors")
    assert printed == block


def test_the_constants_on_the_page_are_read():
    (block,) = [b for b in BLOCKS if b.startswith("const %")]
    lines = [line for line in block.splitlines() if "resource(" not in line]
    module = parse_module("module @m {\n" + "\n".join(lines) + "\ngraph () -> () {}\n}")
    assert len(module.constants) == 5


def test_the_nodes_on_the_page_are_read():
    nodes = [b for b in BLOCKS if b.startswith("%")]
    assert len(nodes) == 2
    inputs = ", ".join(f"%{name} : f32[*]" for name in ("w", "r"))
    text = "".join(nodes).replace("%y = if", "%z = if")
    head = f"module @m {{ graph (%x : f32[N], %cond : bool[], {inputs}) -> () {{\n"
    module = parse_module(head + text.replace("if(%c)", "if(%cond)") + "} }")
    assert [node.op.name for node in module.walk()] == ["conv", "lstm", "if", "relu"]


def test_types_and_attributes_on_the_page_are_read():
    types = re.findall(r"^\| `([a-z]\d.*?\))` \|", LANGREF, re.MULTILINE)
    values = ['["a", 1.0]', '{min = 0, "a key" = 1}', "f32[2,3] dense[1, 2, 3, 4, 5, 6]"]
    assert len(types) == 3
    for value in [*types, *values]:
        assert value in LANGREF
        text = (
            f'module @m {{ graph () -> () {{ %y = onnx() {{type = "A", v = {value}}} : f32[] }} }}'
        )
        (node,) = parse_module(text).walk()
        assert node.name == "y"


def test_all_element_types_are_listed():
    line = next(line for line in LANGREF.splitlines() if line.startswith("Element types:"))
    listed = " ".join(re.findall(r"`([^`]*)`", line.partition(". ")[0])).split()
    assert sorted(listed) == sorted(e.text for e in Elem)
