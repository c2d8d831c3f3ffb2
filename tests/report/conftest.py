from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from support.reported import HOSTILE, write_film, write_lines, write_run, write_sweep

from policy_accel.cli import main
from policy_accel.report.runs import ReportedRun
from policy_accel.run_files import read_metrics


def watched(run: ReportedRun) -> SimpleNamespace:
    """A chunk of 4 actions, two samples, two evaluations: over a scene of 80 x 60 px, and of kl as curves alone.

    At state k action i lies at x = 10 i + k, y = 5 k + sample.
    """
    k, sample, i = np.indices((3, 2, 4))
    pixels = np.stack([10.0 * i + k, 5.0 * k + sample], axis=-1)
    scene = None if run.arm == "kl" else np.full((60, 80, 3), 200, dtype=np.uint8)
    return SimpleNamespace(normalized=pixels / 10, executed=(1, 3), pixels=pixels, scene=scene)


@pytest.fixture(scope="session")
def robots_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two methods and three seeds, with films."""
    sweep = write_sweep(tmp_path_factory.mktemp("robots") / "sweep")
    for run in ("baseline-seed1", "kl-seed1"):
        write_film(sweep / run / "videos" / "100.mp4")
        (sweep / run / "checkpoints" / "last" / "ema.safetensors").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policy_accel.report.chunks._watched", watched)
        assert main(["report", str(sweep), "--target", "0.425"]) == 0
    return sweep / "report.html"


@pytest.fixture(scope="session")
def images_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two image runs with grids, one of a method with a hostile name."""
    folder = tmp_path_factory.mktemp("images")
    runs = [folder / "a", folder / "b"]
    for number, (run, method) in enumerate(zip(runs, ("clts", HOSTILE), strict=True)):
        write_run(run, method, losses={10: 0.5, 20: 0.25}, scores={20: 0.5}, track="images", settings={"note": HOSTILE})
        (run / "samples").mkdir()
        for step in (10, 20):
            pixels = np.full((40, 40, 3), 5 * step, dtype=np.uint8)
            Image.fromarray(pixels).save(run / "samples" / f"{step:08d}.png")
        fid = {step: {"value": 100.0 * (number + 1) / step, "floor": 1.0} for step in (10, 20)}
        rows = read_metrics(run / "metrics.jsonl")
        measured = [{"step": step, "measures": {"fid": found}} for step, found in fid.items()]
        write_lines(run / "metrics.jsonl", [*rows, *measured])
    page = folder / "report.html"
    assert main(["report", *map(str, runs), "--output", str(page)]) == 0
    return page


# Of the container, and for less memory.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--in-process-gpu",
    "--renderer-process-limit=1",
    "--disable-features=SpareRendererForSitePerProcess,IsolateOrigins,site-per-process",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window: Debian's chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no chromium: `make test` as root installs it; otherwise: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page in the browser, and what it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def trace(self, chart: str, role: str, arm: str | None = None, seed: str | None = None) -> dict[str, Any]:
        """What Plotly drew of a trace: its numbers, colour and whether it is seen."""
        found = self.page.evaluate(
            """([chart, role, arm, seed]) => document.getElementById(`chart-${chart}`).data
                .filter((t) => t.meta.role === role && t.meta.arm === arm && t.meta.seed === seed)
                .map((t) => ({x: [...t.x], y: [...t.y], visible: t.visible, text: t.text, line: t.line}))""",
            [chart, role, arm, seed],
        )
        assert len(found) == 1
        return dict(found[0])

    def wait_for(self, condition: str) -> None:
        """Until a JavaScript expression is true; the page forbids what Playwright's own waiting does."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(50)


class Tab:
    """Shows one page at a time, which takes half the memory of two."""

    def __init__(self, browser: Browser) -> None:
        self.browser, self.file = browser, Path()
        self.opened: Opened | None = None

    def show(self, file: Path) -> Opened:
        """The page of a file, opened unless it is open already."""
        if self.opened is None or self.file != file:
            self.close()
            page = self.browser.new_page(color_scheme="light", viewport={"width": 1200, "height": 800})
            self.file, self.opened = file, Opened(page)
            page.goto(file.as_uri())
            self.opened.wait_for("document.querySelectorAll('.chart .main-svg').length > 0")
        return self.opened

    def close(self) -> None:
        """Close the page, which must have said nothing and asked for nothing but itself."""
        if self.opened is not None:
            self.opened.page.close()
            assert self.opened.said == []
            asked = [url for url in self.opened.asked if not url.startswith(("data:", "blob:"))]
            assert asked == [self.file.as_uri()]


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Tab]:
    tab = Tab(browser)
    yield tab
    tab.close()


@pytest.fixture
def robots(tab: Tab, robots_file: Path) -> Opened:
    return tab.show(robots_file)


@pytest.fixture
def images(tab: Tab, images_file: Path) -> Opened:
    return tab.show(images_file)
