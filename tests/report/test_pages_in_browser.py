"""Pages in a real browser: nothing is loaded, nothing complains, everything works by key.

Needs Chromium (Debian: apt-get install chromium) and playwright, and skips without. Playwright's
event loop runs in this thread while its browser is open, which is why every test of pages is in
this module, and the browser ends with it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from report.test_html_parts import EVIL

import pyspectra as ps

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

RNG = np.random.default_rng(11)
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def browser():
    # Chromium's sandbox refuses to start for root, as which CI runs.
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def weights():
    names = [f"encoder.{i}.{part}" for i in range(3) for part in ("query", "output")]
    weights = {f"{name}.weight": RNG.standard_t(2.2, size=(60, 50)) for name in names}
    # What training leaves: a few directions far above the rest, so that structure is seen.
    steps = np.geomspace(1.0, 12.0, 50)
    weights["head.weight"] = RNG.standard_normal((60, 50)) * steps
    weights[f"{EVIL}.weight"] = RNG.standard_normal((60, 50))
    weights["</script><img src=x onerror=alert(1)>.weight"] = np.full((60, 50), math.nan)
    weights["conv.weight"] = RNG.standard_normal((40, 36, 2, 2))
    return weights


@pytest.fixture(scope="module")
def report(weights):
    return ps.analyze(weights)


@pytest.fixture(scope="module")
def files(weights, report, tmp_path_factory):
    """The pages, by name."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "report": report.to_html(),
        "empty": dataclasses.replace(report, layers=()).to_html(),
        "comparison": comparison_page(weights),
        "trajectory": trajectory_page(),
        "run": run_page(),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


def comparison_page(weights):
    other = {name: 3.0 * RNG.standard_normal(W.shape) for name, W in weights.items()}
    return ps.compare(weights, other, names=("old", EVIL)).to_html()


def trajectory_page():
    names = ("fc1", "fc2", f"fc3{EVIL}")
    run = [{f"{name}.weight": RNG.standard_t(c, size=(60, 50)) for name in names}
           for c in (9.0, 4.0, 2.0)]  # fmt: skip
    return ps.compare(run).to_html()


def run_page():
    from training.test_run_page import overfitting

    from pyspectra.training import diagnose

    return diagnose(overfitting(config={"note": EVIL})).to_html()


PAGES = ("report", "comparison", "trajectory", "run")
WITH_LAYERS = ("report", "comparison", "trajectory")


@pytest.fixture
def visit(browser, files):
    """Return what opens a page; nothing may be loaded or said while it is open."""

    @contextmanager
    def opened(name, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        requests, said = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(files[name].as_uri())
        yield page
        page.wait_for_timeout(50)
        assert requests == [files[name].as_uri()]
        assert said == []
        context.close()

    return opened


def names_in(page):
    return page.locator("#layers tbody tr:visible th a").all_inner_texts()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_and_complains_of_nothing(visit, name):
    with visit(name) as page:
        assert page.locator("h1").count() == 1


@pytest.mark.parametrize("name", PAGES)
def test_foreign_scripts_do_not_run(visit, name):
    with visit(name) as page:
        assert page.evaluate("() => document.images.length") == 0
        assert "<script>alert" in page.content().replace("&lt;", "<").replace("&gt;", ">")


def test_a_page_with_another_script_does_not_run_it(browser, files, tmp_path):
    """What `visit` relies on: the policy holds, and a breach of it is told."""
    changed = tmp_path / "changed.html"
    text = files["report"].read_text(encoding="utf-8")
    changed.write_text(text.replace("</main>", "</main><script>window.ran = 1</script>"), "utf-8")
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(changed.as_uri())
    assert page.evaluate("() => window.ran") is None
    assert any("Content Security Policy" in message for message in said)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_grave(visit, name, scheme):
    with visit(name, color_scheme=scheme, bypass_csp=True) as page:
        check(page)
        if name in WITH_LAYERS:
            page.locator("#layers tbody a").first.click()
            check(page)


def check(page):
    found = axe_core.Axe().run(page).response["violations"]
    grave = [(x["id"], x["nodes"][0]["html"][:200]) for x in found if x["impact"] in GRAVE]
    assert grave == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints(visit, name):
    with visit(name) as page:
        printed = page.pdf()
        assert printed.startswith(b"%PDF")
        assert len(printed) > 10_000


@pytest.mark.parametrize(
    ("name", "words"),
    [("comparison", ("old against", "No ranking", "In words")),
     ("trajectory", ("3 checkpoints", "Checkpoints", "fc1")),
     ("run", ("Training run", "overfitting"))],
)  # fmt: skip
def test_other_pages_read_without_scripts(visit, name, words):
    with visit(name, java_script_enabled=False) as page:
        text = page.locator("main").inner_text()
        assert all(word in text for word in words)
        assert page.locator("svg[role=img]").first.is_visible()


def test_a_report_reads_without_scripts(visit, report):
    with visit("report", java_script_enabled=False) as page:
        text = page.locator("main").inner_text()
        assert report.verdict.label.capitalize() in text
        assert page.locator("svg[aria-label^='Histogram of alpha']").is_visible()
        assert page.locator("svg[aria-label^='Alpha of']").is_visible()
        assert not page.locator("#tools").is_visible()
        assert len(names_in(page)) == len(report)


def test_a_table_sorts(visit, report):
    with visit("report") as page:
        first = names_in(page)
        head = page.locator("#layers thead th", has_text="alpha").first
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        fitted = sorted((x for x in report if math.isfinite(x.alpha)), key=lambda x: x.alpha)
        shown = [name[:4] for name in names_in(page)]
        assert shown == [x.name[:4] for x in fitted] + ["</sc"]  # what has no alpha comes last
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert [name[:4] for name in names_in(page)] == [x.name[:4] for x in fitted[::-1]] + [
            "</sc"
        ]
        head.locator("button").click()
        assert names_in(page) == first


def test_a_table_searches_and_filters(visit, report):
    with visit("report") as page:
        page.keyboard.press("/")
        page.keyboard.type("ENCODER query")
        assert names_in(page) == [f"encoder.{i}.query" for i in range(3)]
        assert page.locator("#count").inner_text() == f"3 of {len(report)} layers"
        page.locator("#search").fill("")
        page.locator("select[aria-label='Show only one kind']").select_option("conv2d")
        assert names_in(page) == ["conv"]
        page.locator("select[aria-label='Show only one kind']").select_option("")
        chip = page.locator(".chip", has_text="no fit")
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        assert len(names_in(page)) == 1
        chip.click()
        assert len(names_in(page)) == len(report)


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_a_layer_opens_by_mouse_and_closes(visit, name):
    with visit(name) as page:
        page.locator("#layers tbody td").nth(3).click()
        sheet = page.locator("#sheet")
        assert sheet.is_visible()
        page.wait_for_function("() => location.hash === '#L0'")
        canvas = sheet.locator("canvas")
        assert canvas.get_attribute("role") == "img"
        assert "eigenvalues" in canvas.get_attribute("aria-label")
        sheet.get_by_role("button", name="Density").click()
        assert sheet.locator("canvas").count() == 1
        sheet.get_by_role("button", name="Close").click()
        assert not sheet.is_visible()
        page.wait_for_function("() => !location.hash")  # the event comes after it is closed


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_a_layer_opens_by_key_and_the_focus_returns(visit, name):
    with visit(name) as page:
        link = page.locator("#layers tbody a").nth(1)
        title = page.locator("#sheet-title")
        link.focus()
        page.keyboard.press("Enter")
        assert title.inner_text() == link.inner_text()
        page.keyboard.press("ArrowRight")
        assert title.inner_text() == page.locator("#layers tbody a").nth(2).inner_text()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Escape")
        assert not page.locator("#sheet").is_visible()
        assert link.evaluate("(a) => a === document.activeElement")


def test_a_layer_tells_its_numbers(visit, report):
    with visit("report") as page:
        page.locator("#layers tbody a", has_text="encoder.1.query").click()
        layer = report["encoder.1.query"]
        words = page.locator("#sheet-words").inner_text()
        assert f"α is {layer.alpha:.2f} ± {layer.fit.alpha_stderr:.2f}" in words
        page.locator("#sheet summary").click()
        row = page.locator("#sheet-numbers tr", has_text="Exponent of the power-law tail.")
        assert float(row.locator("td").inner_text()) == pytest.approx(layer.alpha, rel=1e-4)


def test_the_curve_is_that_of_the_eigenvalues(visit, report):
    """The pointer tells how many eigenvalues lie above where it is."""
    with visit("report") as page:
        page.locator("#layers tbody a", has_text="encoder.1.query").click()
        box = page.locator("#chart .u-over").bounding_box()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 20)
        told = page.locator("#readout").inner_text()
        edge, count = float(told.split("≥ ")[1].split(":")[0]), int(told.split(": ")[1].split()[0])
        evals = report["encoder.1.query"].esd.evals
        assert abs(count - np.count_nonzero(evals >= edge)) <= 1
        assert 0 < count < len(evals)


def test_a_compared_layer_shows_both(visit):
    with visit("comparison") as page:
        page.locator("#layers tbody a", has_text="encoder.1.query").click()
        said = page.locator("#chart-key").inner_text()
        assert said.count("eigenvalues") == 2
        assert "old: 50 eigenvalues" in said
        box = page.locator("#chart .u-over").bounding_box()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
        assert " and " in page.locator("#readout").inner_text()


def test_a_report_without_layers_opens(visit):
    with visit("empty") as page:
        assert page.locator("#count").inner_text() == "0 layers"
        page.locator("#layers thead button").first.click()


def test_a_click_beside_the_sheet_closes_it(visit):
    with visit("report") as page:
        page.locator("#layers tbody a").first.click()
        page.mouse.click(40, 300)
        assert not page.locator("#sheet").is_visible()


def test_a_failed_layer_opens_without_a_picture(visit):
    with visit("report") as page:
        page.locator("#layers tbody a", has_text="onerror").click()
        assert page.locator("#sheet-kind").inner_text() == "no fit"
        assert "not finite" in page.locator("#sheet-words").inner_text()
        assert page.locator("#chart canvas").count() == 0
        assert not page.locator("#chart").is_visible()


def test_a_link_leads_to_a_layer(visit, files):
    with visit("report") as page:
        page.evaluate("() => { location.hash = '#L4'; }")
        page.locator("#sheet").wait_for()
        assert page.locator("#sheet-title").inner_text() == "encoder.2.query"


def test_signs_of_the_overview_open_layers(visit, report):
    with visit("report") as page:
        page.locator(".pair [data-i='2']").click()
        assert page.locator("#sheet-title").inner_text() == report.layers[2].name


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_page_does_not_scroll_sideways(visit, name):
    with visit(name, viewport={"width": 390, "height": 844}) as page:
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 390
