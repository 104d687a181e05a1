"""The page in a browser: it loads alone, sorts, filters, opens nodes, changes colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qdqc.report.page.payload import Inspection
from qdqc.report.page.render import render_page


@pytest.fixture(scope="module")
def page(inspection: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jinja2", reason="the page needs the extra 'report'")
    pytest.importorskip("plotly", reason="the page needs the extra 'report'")
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render_page(inspection, "hostile"), "utf-8")
    return path


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[object]:
    from browser import Browser, find_browser

    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with Browser(program, tmp_path) as found:
        yield found


@pytest.fixture
def tab(browser, page: Path):
    browser.open(page, width=1280)
    return browser


def names(tab) -> list[str]:
    return tab.run(
        "[...document.querySelectorAll('#window .row span:first-child')].map(e => e.textContent)"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1920])
def test_it_loads_without_errors_or_requests(
    browser, page: Path, width: int, dark: bool, hostile: str, tmp_path: Path
) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.errors == []
    assert browser.requests == [page.as_uri()]
    assert browser.run("window.stolen") is None
    assert names(browser)[1] == hostile, "shown as it is spelt"
    theme = browser.run("document.documentElement.dataset.theme")
    assert theme == ("dark" if dark else "light")
    wide = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "nothing hangs over"
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_a_click_on_a_head_sorts_and_another_one_turns_it_round(tab) -> None:
    given = names(tab)
    tab.click("#head [data-column=op]")
    ops = "[...document.querySelectorAll('#window .row span:nth-child(2)')].map(e => e.textContent)"
    assert tab.run(ops) == ["conv", "input", "mul", "sigmoid"]
    tab.click("#head [data-column=op]")
    assert tab.run(ops) == ["sigmoid", "mul", "input", "conv"]
    assert sorted(names(tab)) == sorted(given)


@pytest.mark.parametrize(
    ("text", "count"),
    [("conv", 1), ("", 4), ("precision=u8", 2), ("sqnr<500 mul", 1), ("nothing", 0), ("<b>", 1)],
)
def test_filters(tab, text: str, count: int) -> None:
    tab.run(
        f"(() => {{ const f = document.getElementById('filter'); f.value = {text!r};"
        "f.dispatchEvent(new Event('input')); })()"
    )
    assert len(names(tab)) == count
    assert tab.run("document.getElementById('count').textContent") == f"{count} of 4"


def test_a_click_on_a_row_opens_the_node(tab, hostile: str) -> None:
    tab.click("#window .row[data-row='1']")
    assert tab.run("document.getElementById('chosen').textContent") == f"conv {hostile}"
    steps = tab.run("[...document.querySelectorAll('#steps b')].map(e => e.textContent)")
    assert steps == ["import-calibration", "assign-precision", "quantize"]
    for chart in ("histogram", "scatter", "weights"):
        assert tab.run(f"document.querySelectorAll('#{chart} svg').length") > 0
    assert tab.run("document.querySelectorAll('#graph .chosen').length") == 1
    tab.click("#window .row[data-row='2']")
    assert tab.run("document.querySelectorAll('#weights svg').length") == 0, "it has no weight"
    assert tab.errors == []


def test_colours_and_themes_toggle(tab) -> None:
    fills = "[...document.querySelectorAll('#graph .box')].map(e => e.getAttribute('fill'))"
    found = [tab.run(fills)]
    for how in ("precision", "time"):
        tab.run(
            f"(() => {{ const c = document.getElementById('colour'); c.value = '{how}';"
            "c.dispatchEvent(new Event('change')); })()"
        )
        found.append(tab.run(fills))
    assert found[0] != found[1] != found[2]
    before = tab.run("getComputedStyle(document.body).backgroundColor")
    drawn = tab.run("document.getElementById('front').layout.font.color")
    tab.click("#theme")
    assert tab.run("getComputedStyle(document.body).backgroundColor") != before
    tab.until(f"document.getElementById('front').layout.font.color !== '{drawn}'")
    assert tab.run("document.getElementById('scatter').layout.font.color") != drawn
    assert tab.errors == []


def test_groups_unfold_and_fold(tab) -> None:
    boxes = "document.querySelectorAll('#graph .box').length"
    assert tab.run(boxes) == 4
    tab.click("#fold")
    assert tab.run(boxes) <= 4
    tab.click("#open")
    assert tab.run(boxes) == 4


def texts(tab, selector: str) -> list[str]:
    return tab.run(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def typed(tab, field: str, text: str) -> None:
    tab.run(
        f"(() => {{ const f = document.getElementById({field!r}); f.value = {text!r};"
        "f.dispatchEvent(new Event('input')); })()"
    )


def test_what_a_search_found_is_shown(tab, hostile: str) -> None:
    assert not tab.run("document.getElementById('search').hidden")
    scores = tab.run("document.getElementById('scores').textContent")
    assert scores == "INT8 0.980000 · with 1 float layers 0.990000"
    ticks = tab.run("document.getElementById('ranking').textContent")
    assert "onerror=window.stolen=1" in ticks
    assert tab.run("document.querySelectorAll('#ranking img').length") == 0
    assert tab.run("document.querySelectorAll('#front .point').length") == 2


def test_differences_are_listed_filtered_and_lead_to_their_node(tab, hostile: str) -> None:
    assert tab.run("document.getElementById('compared').textContent").startswith(f"from {hostile}")
    heads = texts(tab, "#changes b")
    assert f"~ conv {hostile}" in heads
    count = len(heads)
    typed(tab, "find-change", "conv precision")
    assert texts(tab, "#changes b") == [f"~ conv {hostile}"]
    assert tab.run("document.getElementById('changes-count').textContent") == f"1 of {count}"
    tab.click("#changes b")
    assert tab.run("document.getElementById('chosen').textContent") == f"conv {hostile}"
    assert texts(tab, "#changed b") == [f"~ conv {hostile}"]
    assert "precisionf32 → u8" in texts(tab, "#changed code")
    typed(tab, "find-change", "nothing like it")
    assert texts(tab, "#changes b") == []
    assert tab.errors == []


def test_the_first_node_that_is_open_is_the_worst(tab) -> None:
    worst = tab.run(
        "data.rows.reduce((a, b) => b[column.sqnr] < a[column.sqnr] ? b : a)[column.name]"
    )
    assert tab.run("document.getElementById('chosen').textContent").endswith(worst)


def test_finding_goes_from_match_to_match(tab) -> None:
    typed(tab, "find", "S")
    chosen = "chosen.row"
    found = [tab.run(chosen)]
    enter = "new KeyboardEvent('keydown', {key: 'Enter'})"
    for _ in range(2):
        tab.run(f"document.getElementById('find').dispatchEvent({enter})")
        found.append(tab.run(chosen))
    assert found == [1, 2, 1], "the conv and the sigmoid hold an s, and it goes round"
    typed(tab, "find", "nothing like it")
    assert tab.run(chosen) == 1


def test_names_are_text_wherever_they_stand(tab, hostile: str) -> None:
    tab.run("choose(1)")
    assert tab.run("document.getElementById('chosen').textContent") == f"conv {hostile}"
    assert hostile in texts(tab, "#graph title"), "as the tip of a node"
    tails = texts(tab, "#graph text")
    assert any(t.startswith("…") and hostile.endswith(t[1:]) for t in tails)
    assert any(hostile.replace('"', '\\"') in line for line in texts(tab, "#steps code"))
    assert any(hostile in text for text in texts(tab, "#changes b"))
    assert hostile in tab.run("document.querySelector('#window .row[data-row=\"1\"]').textContent")
    tips = tab.run("[...document.querySelectorAll('#window span')].map(e => e.title)")
    assert hostile in tips
    assert tab.run("document.title") == "hostile"
    assert tab.run("document.querySelectorAll('main img').length") == 0
    assert tab.run("window.stolen") is None


@pytest.mark.parametrize("chart", ["depth", "ranking"])
def test_a_hover_shows_the_name_and_runs_nothing(tab, chart: str, hostile: str) -> None:
    given = tab.run(f"document.getElementById('{chart}').data[0].text")
    assert any("&lt;/script&gt;" in text for text in given)
    assert not any("<" in text for text in given)
    place = next(i for i, text in enumerate(given) if "script" in text)
    tab.run(f"Plotly.Fx.hover('{chart}', [{{curveNumber: 0, pointNumber: {place}}}])")
    tab.until(f"document.querySelectorAll('#{chart} .hoverlayer text').length > 0")
    shown = tab.run(f"document.querySelector('#{chart} .hoverlayer').textContent")
    assert "window.stolen=1" in shown
    assert tab.run(f"document.querySelectorAll('#{chart} img, #{chart} script').length") == 0
    assert tab.run("window.stolen") is None


def test_the_first_divergence_and_the_causes_lead_to_their_nodes(tab) -> None:
    assert tab.run("document.getElementById('first').textContent") == (
        "No value is below tolerance 0.99, 0.9."
    )
    assert texts(tab, "#causes li") == ["none stands out: ranges and weights fit"]


def test_a_point_of_a_chart_opens_its_node(tab, hostile: str) -> None:
    tab.run("choose(3)")
    tab.run("document.getElementById('depth').emit('plotly_click', {points: [{x: 1}]})")
    assert tab.run("document.getElementById('chosen').textContent") == f"conv {hostile}"
    tab.run("document.getElementById('ranking').emit('plotly_click', {points: [{y: 1}]})")
    assert tab.run("document.getElementById('chosen').textContent") == "mul y"


@pytest.mark.parametrize(
    ("deltaY", "grows"),
    [(-300, False), (300, True)],
)
def test_the_wheel_zooms_about_the_pointer(tab, deltaY: int, grows: bool) -> None:  # noqa: N803
    box = "document.getElementById('graph').getAttribute('viewBox').split(' ').map(Number)"
    before = tab.run(box)
    tab.run(
        "(() => { const g = document.getElementById('graph'); const r = g.getBoundingClientRect();"
        f"g.dispatchEvent(new WheelEvent('wheel', {{deltaY: {deltaY}, clientX: r.left,"
        "clientY: r.top, cancelable: true})); })()"
    )
    after = tab.run(box)
    assert (after[2] > before[2]) is grows
    assert after[:2] == pytest.approx(before[:2], abs=2), "the corner under the pointer stays"
    assert after[2] / before[2] == pytest.approx(after[3] / before[3])


def test_a_narrow_window_puts_parts_below_each_other(browser, page: Path) -> None:
    browser.open(page, width=700)
    places = browser.run(
        "['network', 'nodes'].map(i => document.getElementById(i).getBoundingClientRect().left)"
    )
    assert places[0] == places[1]
    wide = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert browser.errors == []
