"""The page in a real browser: it holds the numbers, films play, filters work, and whoever looks can use it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from support.reported import CHARTS, HOSTILE, STEPS, score_of

BLUE, LIGHT_BLUE = "#0072b2", "#56b4e9"


def test_charts_hold_the_numbers(robots: Any) -> None:
    found = robots
    charts = found.page.eval_on_selector_all(".card .chart", "boxes => boxes.map((box) => box.id)")
    assert charts == [f"chart-{name}" for name in CHARTS]
    drawn = found.page.eval_on_selector_all(".card .chart .main-svg:first-child", "boxes => boxes.length")
    assert drawn == len(charts)
    mean = found.trace("score", "mean", "kl")
    assert mean["x"] == list(STEPS)
    assert mean["y"] == pytest.approx([score_of(1, 2, step) for step in STEPS])
    assert found.trace("seeds", "point", "kl", "3")["x"] == [score_of(1, 3, 400)]
    assert found.trace("target", "bar", "baseline")["text"] == ["400 updates, 1 of 3 runs"]
    lines = found.page.eval_on_selector_all("#chart-score .scatterlayer .trace", "lines => lines.length")
    assert lines == 10  # of each method three seeds, their mean and their range


def test_filters_work_on_charts_rows_and_films(robots: Any) -> None:
    found = robots
    page = found.page
    page.get_by_role("checkbox", name="kl").uncheck()
    assert found.trace("score", "mean", "kl")["visible"] is False
    assert found.trace("score", "mean", "baseline")["visible"] is True
    assert page.locator("#runs tbody tr:visible").count() == 3
    assert page.locator("#rollouts figure:visible").count() == 1
    assert "1 of 2 arms" in page.locator("#chosen").inner_text()
    page.get_by_role("checkbox", name="kl").check()
    page.get_by_role("checkbox", name="1", exact=True).uncheck()
    assert found.trace("loss", "seed", "kl", "1")["visible"] is False
    assert page.locator("#runs tbody tr:visible").count() == 4
    assert page.locator("#rollouts figure:visible").count() == 0
    assert page.locator("#rollouts .group:visible").count() == 0
    # Mean and range of the seeds that are left, 2 and 3; the bar of the one that reaches the score of two.
    mean, band = found.trace("score", "mean", "kl"), found.trace("score", "band", "kl")
    low, high = ([score_of(1, seed, step) for step in STEPS] for seed in (2, 3))
    assert mean["y"] == pytest.approx([(a + b) / 2 for a, b in zip(low, high, strict=True)])
    assert band["y"] == pytest.approx([*high, *reversed(low)])
    assert found.trace("target", "bar", "baseline")["text"] == ["400 updates, 1 of 2 runs"]
    assert found.trace("seeds", "mean", "kl")["x"] == pytest.approx([0.525])
    page.get_by_role("checkbox", name="2", exact=True).uncheck()
    assert found.trace("score", "band", "kl")["y"] == []
    assert found.trace("score", "mean", "kl")["y"] == pytest.approx(high)
    page.get_by_role("checkbox", name="1", exact=True).check()
    page.get_by_role("checkbox", name="2", exact=True).check()
    assert found.trace("score", "mean", "kl")["y"] == pytest.approx([score_of(1, 2, step) for step in STEPS])


def test_films_play(robots: Any) -> None:
    page = robots.page
    assert page.locator("video").count() == 2
    page.get_by_role("button", name="Play all").click()
    robots.wait_for("[...document.querySelectorAll('video')].every((film) => film.currentTime > 0.2)")
    sizes = page.eval_on_selector_all("video", "films => films.map((f) => [f.videoWidth, f.videoHeight, f.error])")
    assert sizes == [[32, 32, None]] * 2
    page.get_by_role("button", name="Play all").click()
    assert page.eval_on_selector_all("video", "films => films.every((film) => film.paused)")


def test_an_action_chunk_is_denoised(robots: Any) -> None:
    """The slider moves it over the scene; the button plays from the noise to the result."""
    page = robots.page
    chunk = page.locator("#chunk-0")
    lines = "lines => lines.map((line) => line.getAttribute('points'))"
    whole, other, executed = chunk.locator("polyline").evaluate_all(lines)
    assert whole == "2,10 12,10 22,10 32,10"
    assert other == "2,11 12,11 22,11 32,11"
    assert executed == "12,10 22,10"
    assert chunk.locator("output").inner_text() == "the result"
    slider = chunk.get_by_role("slider", name="Evaluations of the network, baseline, seed 1")
    slider.fill("0")
    assert chunk.locator("polyline").evaluate_all(lines)[2] == "10,0 20,0"
    assert chunk.locator("output").inner_text() == "noise"
    slider.press("ArrowRight")
    assert chunk.locator("output").inner_text() == "1 of 2 evaluations"
    chunk.get_by_role("button", name="Play").click()
    robots.wait_for("document.querySelector('#chunk-0 input').value === '2'")
    assert chunk.locator("polyline").evaluate_all(lines)[2] == executed
    assert chunk.get_by_role("button", name="Play").is_visible()
    page.locator("#chunk-1").get_by_role("slider").fill("1")
    drawn = page.evaluate("document.getElementById('chunk-chart-1').data.map((line) => [...line.y])")
    assert drawn == [[0.1, 1.1, 2.1, 3.1], [0.5, 0.5, 0.5, 0.5]]
    page.locator("#chunk-1").get_by_role("slider").fill("2")


def test_both_colour_schemes(robots: Any) -> None:
    """The system's is taken; the button changes it; text stands out from its ground (WCAG AA: 4.5)."""
    found = robots
    for scheme, hue in (("light", BLUE), ("dark", LIGHT_BLUE)):
        found.page.emulate_media(color_scheme=scheme)
        found.wait_for(f"document.documentElement.dataset.theme === '{scheme}'")
        assert found.trace("loss", "mean", "baseline")["line"]["color"] == hue
        contrasts = found.page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert min(contrasts) >= 4.5
    found.page.get_by_role("button", name="Light colours").click()
    assert found.trace("loss", "mean", "baseline")["line"]["color"] == BLUE
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"


CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const luminance = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const texts = "h1, h2, h3, p, a, td, th, figcaption, summary, button, label, legend, dd, dt";
  return [...document.querySelectorAll(texts)].filter((e) => e.innerText && e.getClientRects().length).map((e) => {
    const both = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((a, b) => a - b);
    return (both[1] + .05) / (both[0] + .05);
  });
}"""


@pytest.mark.parametrize("track", ["robots", "images"])
def test_a_phone_shows_it_without_scrolling_sideways(track: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(track).page
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(200)
    page.eval_on_selector_all("details", "boxes => boxes.forEach((box) => { box.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('.chart .main-svg').getBoundingClientRect().right") < 390
    page.set_viewport_size({"width": 1200, "height": 800})


@pytest.mark.parametrize("track", ["robots", "images"])
def test_keyboards_and_screen_readers(track: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(track).page
    levels = page.eval_on_selector_all("h1, h2, h3, h4, h5, h6", "all => all.map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate(COMPLAINTS) == []
    for role in ("banner", "main", "navigation", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    # From the keyboard: the first stop leads past the filters, and the focus can be seen.
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.locator(".skip").focus()
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    box = page.locator("#filters input").first
    box.focus()
    page.keyboard.press("Space")
    assert not box.is_checked()
    page.keyboard.press("Tab")
    ring = "getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert page.evaluate(ring) == "solid"
    box.check()


COMPLAINTS = """() => {
  const found = [], all = (what) => [...document.querySelectorAll(what)];
  const none = (what, wrong) => found.push(...all(what).filter(wrong).map((e) => e.outerHTML.slice(0, 80)));
  if (document.documentElement.lang !== "en" || !document.title) found.push("language or title");
  const ids = all("[id]").filter((e) => !e.closest("svg")).map((e) => e.id);
  if (new Set(ids).size < ids.length) found.push("an id twice");
  none("[aria-labelledby]", (e) => !document.getElementById(e.getAttribute("aria-labelledby")));
  none("img", (e) => !e.alt);
  none("video, [role=img], .scroll", (e) => !e.getAttribute("aria-label"));
  none("input", (e) => !e.labels.length && !e.getAttribute("aria-label"));
  none("button, summary, a", (e) => !e.textContent.trim());
  none("table", (e) => !e.caption || e.querySelectorAll("th[scope=col]").length < 2);
  none(".card .chart", (e) => !e.closest("article").querySelector("table"));
  none("nav a", (e) => !document.querySelector(e.getAttribute("href")));
  none("fieldset", (e) => !e.querySelector("legend"));
  return found;
}"""


def test_names_of_a_stranger_are_text(images: Any) -> None:
    """A method and a setting that are HTML and JavaScript: read as they are, and never run."""
    page = images.page
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#filters label").nth(1).inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("JSON.parse(document.getElementById('report-data').textContent).arms[1]") == HOSTILE


def test_grids_and_measures_of_images(images: Any) -> None:
    found = images
    grids = found.page.eval_on_selector_all(
        "#samples img", "all => all.map((i) => [i.naturalWidth, i.complete, i.alt])"
    )
    assert [grid[:2] for grid in grids] == [[40, True]] * 4
    assert grids[0][2] == "Images that clts, training seed 1, generates after 10 updates"
    captions = found.page.locator("#samples figcaption").all_inner_texts()
    assert captions == ["10 updates", "20 updates"] * 2
    assert found.trace("measure-fid", "mean", "clts")["y"] == [10.0, 5.0]
    assert found.trace("measure-fid", "floor")["y"] == [1.0, 1.0]
