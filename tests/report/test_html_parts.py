"""Parts of pages: whole, without scripts, and safe against whatever names hold."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from pyspectra.report.html.chart import Line, Mark, heat_map, line_chart
from pyspectra.report.html.page import badge, details, facts, page, section
from pyspectra.report.html.table import table
from pyspectra.report.html.ticks import axis

EVIL = '<script>alert("1")</script>&\x1b[31m"\'\u202e'
VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class Checker(HTMLParser):
    """Refuses what no page of ours may have, and tags that are not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "object", "base", "form")
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("style", "src", "href", "srcset", "action")
            assert "javascript:" not in (value or "")
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(text):
    parser = Checker()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_a_page_allows_its_own_style_and_nothing_else():
    made = page("A run", [section("One", "<p>text</p>"), details("more", "<p>x</p>")])
    parser = checked(made)
    assert parser.tags.count("h1") == 1
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', made)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", made, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "http://" not in made
    assert "https://" not in made
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_no_text_becomes_markup():
    x = np.arange(3.0)
    parts = [
        section(EVIL, badge(EVIL, "error"), facts((EVIL, EVIL), ("none", None))),
        table([{EVIL: EVIL, "n": 1.5}], caption=EVIL),
        line_chart([Line(EVIL, x, x)], x_name=EVIL, y_name=EVIL, marks=[Mark(1.0, EVIL)]),
        heat_map([[1, 2], [3, 4]], [EVIL, EVIL], row_name=EVIL, column_name=EVIL),
    ]
    parser = checked(page(EVIL, parts))
    assert "\x1b" not in parser.text
    assert "\u202e" not in parser.text
    assert "<script>alert" in parser.text  # as text


def figures(made):
    svgs = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    return [ET.fromstring(svg.replace("&quot;", "'")) for svg in svgs]


def test_curves_have_gaps_where_nothing_is_finite():
    y = np.array([1.0, 2.0, np.nan, 3.0, np.inf, 4.0, 2.0])
    svg = figures(line_chart([Line("a", np.arange(7.0), y)], x_name="x", y_name="y"))[0]
    paths = [p.get("d") for p in svg.iter("path")]
    assert [d.count("L") for d in paths] == [1, 1]  # of two points each; the third is alone
    assert len(list(svg.iter("circle"))) >= 5


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm():
    y = np.array([1e-3, 0.0, 10.0, -1.0, 100.0])
    svg = figures(line_chart([Line("a", np.arange(5.0), y)], x_name="x", y_name="y", log=True))[0]
    labels = [t.text for t in svg.iter("text")]
    assert {"0.01", "1", "100"} <= set(labels)
    assert len(list(svg.iter("circle"))) >= 3


@pytest.mark.parametrize("y", [[], [np.nan, np.nan]])
def test_without_values_there_is_a_sentence(y):
    made = line_chart([Line("a", np.arange(len(y), dtype=float), np.array(y, float))],
                      x_name="x", y_name="loss")  # fmt: skip
    assert "nothing to draw" in made
    checked(made)


def test_long_curves_are_drawn_by_means_of_neighbours():
    n = 10_000
    line = Line("a", np.arange(float(n)), np.sin(np.arange(n) / 500.0))
    made = line_chart([line], x_name="x", y_name="y")
    assert len(made) < 40_000


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0.0, 1.0, False), (5.0, 5.0, False), (0.0, 0.0, False), (-3e-9, 2e-9, False),
     (1e-12, 1e12, True), (2.0, 2.1, True), (7.0, 7.0, True), (0.3, 40.0, True),
     (1e300, 1.5e308, False)],
)  # fmt: skip
def test_axes_have_some_ticks_within_them(low, high, log):
    made = axis(low, high, log=log)
    assert 2 <= len(made.ticks) <= 14
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in made.ticks)
    assert len({label for _, label in made.ticks}) == len(made.ticks)
    assert 0 <= made.place(low) <= made.place(high) <= 1


def test_tables_show_dashes_for_what_is_not_there():
    parser = checked(table([{"a": 1, "b": "x"}, {"a": float("nan"), "c": 0.123456}]))
    assert parser.tags.count("td") == 6
    assert parser.text.count("–") == 3
    assert "0.1235" in parser.text


def test_a_heat_map_tells_each_cell():
    svg = figures(heat_map([[8, 2], [0, 5]], ["cat", "dog"], row_name="true", column_name="said"))[
        0
    ]
    titles = [t.text for t in svg.iter("title")]
    assert "cat taken for dog: 2" in titles
    assert len(list(svg.iter("rect"))) == 4
