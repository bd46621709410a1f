"""report.html in a real browser: it opens without a network, and points can be picked."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.results import write_report
from nni_aiop.search_spaces import get_space
from tests.results.pages import NASTY, results, told, toy

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
)

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # No GPU: the figures of many points are drawn by the processor.
    "--enable-unsafe-swiftshader",
)


class Page:
    """A page that is open."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> float:
        """Seconds until its figures are there."""
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        begun = time.monotonic()
        self.driver.get(path.as_uri())
        self.wait("return document.documentElement.dataset.ready === 'yes'")
        return time.monotonic() - begun

    def do(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not self.do(script):
            assert time.monotonic() < end, (script, self.errors())
            time.sleep(0.05)

    def errors(self) -> list[str]:
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but the page itself and what is inside of it."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:", "about:", "chrome:"))]

    def click_point(self, figure: str, number: int) -> None:
        """A real click on the point of an evaluation."""
        x, y = self.do(
            """
            const figure = document.getElementById(arguments[0]);
            figure.scrollIntoView({block: "center"});
            const axes = figure._fullLayout;
            for (const trace of figure.data) {
              const place = (trace.customdata ?? []).indexOf(arguments[1]);
              if (place < 0) continue;
              const box = figure.getBoundingClientRect();
              const at = (axis, value) => axis._offset + axis.d2p(value);
              return [box.left + at(axes.xaxis, trace.x[place]),
                      box.top + at(axes.yaxis, trace.y[place])];
            }
            """,
            figure,
            number,
        )
        actions = webdriver.ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(round(x) - 2, round(y))
        actions.perform()
        time.sleep(0.2)  # hovering finds the point
        actions = webdriver.ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        actions.pause(0.2).click().perform()


def browser(folder: Path, width: int) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    driver = browser(tmp_path_factory.mktemp("profile"), 1400)
    try:
        yield Page(driver)
    finally:
        driver.quit()


def test_it_opens_offline_and_points_can_be_picked(page: Page, tmp_path: Path) -> None:
    space, history = toy(), told(toy(), 40, failed=[5])
    found = results(space, history, limits={"flops": 19.0})
    found.save(tmp_path)
    page.open(tmp_path / "report.html")
    assert found.best is not None
    assert page.do("return document.getElementById('panel').dataset.number") == str(found.best)
    worst = int(np.nanargmin(found.metrics["accuracy"]))
    for figure, number in (("front", found.front[0]), ("progress", worst), ("progress", 5)):
        page.click_point(figure, number)
        page.wait(f"return document.getElementById('panel').dataset.number === '{number}'", 5)
    text = page.do("return document.getElementById('picked').textContent")
    assert "Evaluation 5" in text and "it failed" in text
    page.click_point("front", worst)
    page.wait(f"return document.getElementById('panel').dataset.number === '{worst}'", 5)
    text = page.do("return document.getElementById('picked').textContent")
    for value in space.canonical(history[worst][0]).values():
        assert (f"[{', '.join(value)}]" if isinstance(value, list) else f"{value:.6g}"
                if isinstance(value, float) else str(value)) in text  # fmt: skip
    # plotly.js 4 shows a button that uploads a figure unless it is told not to.
    assert page.do("return document.querySelectorAll('[data-title*=hare]').length") == 0
    assert page.errors() == []
    assert page.requests() == [(tmp_path / "report.html").as_uri()]


@pytest.mark.slow
def test_five_thousand_evaluations_stay_usable(page: Page, tmp_path: Path) -> None:
    space = get_space("nasbench201")
    rng = np.random.default_rng(0)
    history = [(s, {"accuracy": float(rng.random())}) for s in space.sample(5000, rng)]
    found = results(space, history)
    found.save(tmp_path)
    # A processor that draws all points itself, beside other tests.
    assert page.open(tmp_path / "report.html") < 60
    begun = time.monotonic()
    assert found.best is not None
    page.click_point("progress", found.best)
    page.wait(f"return document.getElementById('panel').dataset.number === '{found.best}'", 10)
    assert time.monotonic() - begun < 20
    page.do("document.getElementById('parallel').scrollIntoView()")
    page.wait("return document.querySelectorAll('#parallel canvas').length > 0")
    assert page.errors() == []


@pytest.mark.slow
def test_names_are_no_html(page: Page, tmp_path: Path) -> None:
    from nni_aiop.search import Objective
    from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

    space = CodeSpace([Nominal(NASTY, (NASTY, "b", "<i>")), Ordinal("d", (1, 2, 4))], name=NASTY)
    rng = np.random.default_rng(0)
    history = [(s, {NASTY + "m": float(rng.random())}) for s in space.sample(12, rng)]
    results(space, history, objectives=[Objective(NASTY + "m")]).save(tmp_path)
    page.open(tmp_path / "report.html")
    assert page.do("return document.title").startswith(NASTY)
    assert NASTY in page.do("return document.querySelector('h1').textContent")
    assert NASTY in page.do("return document.getElementById('picked').textContent")
    title = page.do("return document.querySelector('#progress .ytitle').textContent")
    assert title == NASTY + "m"
    page.do("document.getElementById('parallel').scrollIntoView()")
    page.wait("return document.querySelectorAll('#parallel .axis-title').length > 0")
    assert page.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize("space", ["digits", "toy"])
def test_a_phone_needs_no_scrolling_to_the_side(
    page: Page, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, space: str
) -> None:
    code_space = get_space("digits") if space == "digits" else toy()
    results(code_space, told(code_space, 30)).save(tmp_path)
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page.open(tmp_path / "report.html")
        page.do("document.getElementById('parallel').scrollIntoView()")
        page.wait("return document.querySelectorAll('#parallel canvas').length > 0")
        wide, shown = page.do("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= shown == 390
        hidden = "return getComputedStyle(document.getElementById('panel')).display"
        assert page.do(hidden) == "none"
        page.do("document.querySelector('[data-pick]').click()")
        assert page.do(hidden) == "block"
        page.do("document.getElementById('unpick').click()")
        assert page.do(hidden) == "none"
        assert page.errors() == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_a_page_without_evaluations_opens(page: Page, tmp_path: Path) -> None:
    results(toy(), []).save(tmp_path)
    page.open(tmp_path / "report.html")
    results(toy(), told(toy(), 3, failed=range(3))).save(tmp_path, page=False)
    page.open(write_report(tmp_path))
    assert page.errors() == []
