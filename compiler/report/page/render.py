"""The page as one file that needs nothing else: template, styles, scripts and data together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module, resources
from typing import Any

from qdqc.diagnostics import visible
from qdqc.report.extra import library
from qdqc.report.page.payload import Inspection, payload

__all__ = ["need_libraries", "render_page", "script_json"]

_SCRIPTS = (
    "state.js",
    "table.js",
    "layout.js",
    "graph.js",
    "charts.js",
    "pane.js",
    "changes.js",
    "main.js",
)


def render_page(inspection: Inspection, title: str) -> str:
    """The whole page. Raises QdqcError where the libraries of the extra ``report`` are missing.

    Texts of the model reach the page as data alone, and its scripts set them as text.
    """
    jinja2, plotly = _library("jinja2"), _library("plotly.offline")
    files = resources.files(__package__ or "")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    safe = import_module("markupsafe").Markup
    read = {n: (files / n).read_text("utf-8") for n in ("page.html", "page.css", *_SCRIPTS)}
    return environment.from_string(read["page.html"]).render(
        title=visible(title),
        style=safe(read["page.css"]),
        plotting=safe(plotly.get_plotlyjs()),
        data=safe(script_json(payload(inspection))),
        script=safe("\n".join(read[name] for name in _SCRIPTS)),
    )


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<``, ``>`` or ``&`` is left in it.

    Its texts are visible ones.
    """
    text = json.dumps(_visible(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _visible(value: Any) -> Any:
    """Plain data with all texts in it as people may see them."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _visible(item) for key, item in value.items()}
    return [*map(_visible, value)] if isinstance(value, list | tuple) else value


def need_libraries() -> None:
    """Raises QdqcError where one of them is missing."""
    for name in ("jinja2", "plotly.offline"):
        _library(name)


def _library(name: str) -> Any:
    return library(name, "the page", "report", "; `text` needs nothing more")
