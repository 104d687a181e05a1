"""The page as a file: whole, by itself, and with the model's texts as texts only."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest

from qdqc.diagnostics import QdqcError, visible
from qdqc.report.page.payload import Inspection, payload
from qdqc.report.page.render import render_page, script_json


class Reader(HTMLParser):
    """Elements, and what scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.title = ""
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag
        self.links += [v for k, v in attrs if k in ("src", "href") or k.startswith("on")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, text: str) -> None:
        if self._open == "script":
            attrs, held = self.scripts[-1]
            self.scripts[-1] = (attrs, held + text)
        elif self._open == "title":
            self.title += text


@pytest.fixture(scope="module")
def page(inspection: Inspection, hostile: str) -> str:
    pytest.importorskip("jinja2", reason="the page needs the extra 'report'")
    pytest.importorskip("plotly", reason="the page needs the extra 'report'")
    return render_page(inspection, f"{hostile} against y")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_texts_of_the_model_are_texts(page: str, hostile: str, inspection: Inspection) -> None:
    found = read(page)
    assert len(found.scripts) == 3
    assert "img" not in found.tags
    assert hostile not in page
    assert found.title == f"{hostile} against y"
    attrs, held = found.scripts[1]
    assert attrs["type"] == "application/json"
    assert json.loads(held) == json.loads(json.dumps(payload(inspection)))
    assert json.loads(held)["rows"][1][0] == hostile


def test_nothing_is_fetched(page: str) -> None:
    found = read(page)
    assert found.links == ["data:,"]
    assert "default-src 'none'" in page
    assert "link" in found.tags


def test_scripts_never_read_markup() -> None:
    from importlib import resources

    folder = resources.files("qdqc.report.page")
    scripts = [f for f in folder.iterdir() if f.name.endswith(".js")]
    assert len(scripts) == 8
    for file in scripts:
        text = file.read_text("utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert way not in text, f"{file.name}: {way}"
        assert max(map(len, text.splitlines())) <= 100
        assert len(text.splitlines()) <= 400


@pytest.mark.parametrize("text", ["</script>", "<!--", "&amp;", "]]>", "\u2028", "a\\u003c"])
def test_json_in_a_script(text: str) -> None:
    made = script_json({"a": text})
    assert not set("<>&") & set(made)
    assert json.loads(made) == {"a": visible(text)}


@pytest.mark.parametrize("name", ["jinja2", "plotly"])
def test_a_missing_library_is_named(
    name: str, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for held in [m for m in sys.modules if m.partition(".")[0] == name] or [name]:
        monkeypatch.setitem(sys.modules, held, None)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    if name == "plotly":
        pytest.importorskip("jinja2")
    with pytest.raises(QdqcError, match=f"the page needs '{name}'") as caught:
        render_page(inspection, "title")
    assert "qdqc[report]" in str(caught.value)
