"""Make the pictures of docs/html.md: ``python docs/make_page_pictures.py FOLDER``.

FOLDER holds all-MiniLM-L6-v2, which ``make demo`` installs. Needs Chromium and playwright.
"""

import dataclasses
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import pyspectra as ps

PICTURES = Path(__file__).parent / "pictures"
LAYER = "encoder.layer.0.output.dense"


def main(folder: str) -> None:
    """Take the pictures: the page in light, and a layer in dark."""
    report = dataclasses.replace(ps.analyze(folder), source="all-MiniLM-L6-v2")
    page_file = Path(tempfile.mkdtemp()) / "report.html"
    report.save_html(page_file)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        page = browser.new_page(viewport={"width": 1240, "height": 1290})
        page.goto(page_file.as_uri())
        page.screenshot(path=PICTURES / "html-report.png")
        page = browser.new_page(viewport={"width": 1240, "height": 800}, color_scheme="dark")
        page.goto(page_file.as_uri())
        page.locator("#layers tbody a", has_text=LAYER).click()
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / "html-layer.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
