"""Pictures of a search hold what was found, as the files that their names say."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from qdqc.diagnostics import QdqcError
from qdqc.report.search_plot import SearchPlot, check_plot, draw
from qdqc.search.strategies.mixes import Mix
from qdqc.search.strategies.pareto import Point

pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")

ORANGE = "#d55e00"


def plot(losses: dict[str, float], **more: object) -> SearchPlot:
    names = list(losses)
    verified = [Mix(frozenset(names[:n]), 0.9 + 0.01 * n) for n in range(len(names) + 1)]
    found = SearchPlot("net", losses, "loss", verified, verified[1], 0.915)
    return replace(found, **more)  # type: ignore[arg-type]


def tree(found: SearchPlot) -> ElementTree.Element:
    return ElementTree.fromstring(draw(found, "p.svg"))


def texts(found: SearchPlot) -> list[str]:
    return ["".join(e.itertext()).strip() for e in tree(found).iter() if e.tag.endswith("}text")]


def groups(found: SearchPlot, start: str) -> dict[str, ElementTree.Element]:
    every = ((e.get("id", ""), e) for e in tree(found).iter())
    return {name: e for name, e in every if name.startswith(start)}


def height(bar: ElementTree.Element) -> float:
    """How tall the bar of a layer is drawn."""
    (path,) = (e for e in bar.iter() if e.tag.endswith("}path"))
    ys = [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d", ""))]
    return max(ys) - min(ys)


def markers(group: ElementTree.Element) -> list[tuple[float, float]]:
    uses = [e for e in group.iter() if e.tag.endswith("}use")]
    return [(float(e.get("x", "")), float(e.get("y", ""))) for e in uses]


LOSSES = {"conv1": 1e-3, "relu $x_1$": 1e-5, 'a<b>&"c"': 5e-3, "fc": 2e-4}


def test_a_png_is_an_image_with_something_in_it() -> None:
    with Image.open(io.BytesIO(draw(plot(LOSSES), "x/p.PNG"))) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        pixels = np.asarray(image.convert("RGB"))
    colours = {tuple(c) for c in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert {(0, 114, 178), (213, 94, 0), (255, 255, 255)} <= colours, "both kinds of bars"


def test_every_layer_has_a_bar_and_losses_order_their_heights() -> None:
    bars = groups(plot(LOSSES), "loss ")
    assert set(bars) == {f"loss {n}" for n in LOSSES}
    tall = sorted(LOSSES, key=lambda n: height(bars[f"loss {n}"]))
    assert tall == sorted(LOSSES, key=LOSSES.__getitem__)
    orange = [n for n, bar in bars.items() if ORANGE in ElementTree.tostring(bar).decode()]
    assert orange == ["loss conv1"], "the one that stays float"


def test_the_worst_layers_are_named_as_they_are_with_their_losses() -> None:
    losses = {f"layer{n}": 10.0**-n for n in range(12)}
    shown = "\n".join(texts(plot(losses)))
    for place in range(10):
        loss = re.escape(f"{10.0**-place:.2e}")
        assert re.search(rf"{place + 1}\s+{loss}\s+layer{place}\b", shown)
    assert "layer10" not in shown
    assert "relu $x_1$" in "\n".join(texts(plot(LOSSES))), "nothing in a name is a formula"


def test_a_verified_model_is_a_dot_by_float_layers_and_score() -> None:
    found = plot(LOSSES)
    (dots,) = groups(found, "verified").values()
    assert len(markers(dots)) == len(found.verified) == 5
    xs, ys = zip(*sorted(markers(dots)), strict=True)
    np.testing.assert_allclose(np.diff(xs), np.diff(xs)[0], rtol=1e-3)
    np.testing.assert_allclose(np.diff(ys), np.diff(ys)[0], rtol=1e-3)
    assert np.diff(ys)[0] < 0, "a better score stands higher"
    ((x, y),) = markers(groups(found, "written")["written"])
    assert (x, y) == pytest.approx((xs[1], ys[1]))


def test_a_front_is_drawn_where_there_is_one() -> None:
    assert "measured" not in texts(plot(LOSSES))
    names = list(LOSSES)
    points = [Point(frozenset(names[:n]), 0.002 + n / 1e3, 0.9, 0.002 + n / 5e2) for n in range(3)]
    found = plot(LOSSES, points=points, limit=0.004)
    assert {"measured", "predicted", "time limit", "goal", "written"} <= set(texts(found))
    (dots,) = groups(found, "measured").values()
    xs = [x for x, _ in markers(dots)]
    np.testing.assert_allclose(np.diff(xs), np.diff(xs)[0], rtol=1e-3)
    assert xs == sorted(xs)


def test_the_same_search_gives_the_same_bytes() -> None:
    for file in ("p.svg", "p.png"):
        assert draw(plot(LOSSES), file) == draw(plot(LOSSES), file)


@pytest.mark.parametrize(
    "losses",
    [
        {},
        {"a": 0.0, "b": 0.0},
        {"a": -1e-6, "b": 1e-2},
        {"a": -0.5},
        {"a\nb": 1e-3, "漢字": 1e-4, "\x00\x1b": 1e-5, "_hidden": 1e-6, "n" * 5000: 1e-7},
        {f"n{i}": 1e-9 * i for i in range(2000)},
    ],
)
def test_whatever_was_found_can_be_drawn(losses: dict[str, float]) -> None:
    found = SearchPlot("net", losses, "loss", [Mix(frozenset(), 0.5)], Mix(frozenset(), 0.5), 0.9)
    assert len(groups(found, "loss ")) == len(losses)
    assert draw(found, "p.png").startswith(b"\x89PNG\r\n\x1a\n")


def test_long_names_keep_their_ends() -> None:
    name = "/model/" + "layers/" * 20 + "MatMul_7"
    (line,) = [t for t in texts(plot({name: 1e-3})) if "MatMul_7" in t]
    assert "…" in line
    assert len(line) < 80


@pytest.mark.parametrize("path", ["p", "p.jpg", "png", ".png/p", "p.svg.gz"])
def test_a_name_says_what_kind_of_picture_it_is(path: str) -> None:
    with pytest.raises(QdqcError, match="what kind of picture") as error:
        check_plot(path)
    assert "end its name in .png or .svg" in str(error.value.diagnostic.notes)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(QdqcError, match="`plot` needs 'matplotlib'") as error:
        check_plot("p.svg")
    assert "qdqc[plot]" in str(error.value.diagnostic.notes)
