"""The page of a report: whole, closed, small, and true to the report that it shows."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re

import numpy as np
import pytest
from report.test_html_parts import EVIL, Checker

import pyspectra as ps
from pyspectra._support.text import printable
from pyspectra.cli.main import main
from pyspectra.report.html.curves import MOST_POINTS, ranks
from pyspectra.report.html.judgement import JUDGEMENTS, judgement
from pyspectra.report.html.page import ASSETS
from pyspectra.report.html.parts import COMMON_NAMES, short_name
from pyspectra.report.html.words import told

RNG = np.random.default_rng(3)


def heavy(n, m, exponent=2.5):
    return RNG.standard_t(exponent, size=(n, m))


@pytest.fixture(scope="module")
def hostile():
    """Names and values that no page may trip over."""
    return ps.analyze(
        {
            f"{EVIL}.weight": heavy(60, 40),
            "</script><img src=x onerror=alert(1)>.weight": np.full((50, 40), np.nan),
            "x" * 10_000 + ".weight": heavy(60, 40),
            "<!--<script>.weight": heavy(60, 40),
            "zero.weight": np.zeros((50, 40)),
            "rank1.weight": np.outer(np.arange(1.0, 61.0), np.arange(1.0, 51.0)),
            "small.weight": heavy(40, 20),
            "a\u202eb\u2066c.\u6a21.weight": heavy(80, 60),
        }
    )


class PageChecker(Checker):
    """Allows the scripts that are known by their hashes, and links within the page."""

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            assert dict(attrs) in ({}, {"type": "application/json", "id": "data"})
            tag = "template"
        elif tag == "a":
            assert re.fullmatch(r"#L\d+", dict(attrs)["href"])
            tag, attrs = "span", []
        super().handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        super().handle_endtag({"script": "template", "a": "span"}.get(tag, tag))


def whole(made):
    parser = PageChecker()
    parser.feed(made)
    parser.close()
    assert parser.open == []
    return parser


def data_of(made):
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', made)
    return json.loads(block)


def test_a_page_allows_only_what_it_brings(hostile):
    made = hostile.to_html()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', made)
    code = re.findall(r"<script>(.*?)</script>", made, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", made, re.DOTALL)
    assert (len(code), len(style)) == (3, 1)
    for part in (*code, *style):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"url\(|@import", style[0])
    assert not re.search(r"fetch\(|XMLHttpRequest|innerHTML\s*=|eval\(|new Function", code[2])
    assert not re.search(r"fetch\(|XMLHttpRequest|innerHTML\s*=|eval\(|new Function", code[1])


def test_no_name_becomes_markup(hostile):
    made = hostile.to_html()
    parser = whole(made)
    assert parser.tags.count("template") == 4
    assert "\x1b" not in made
    assert not set("\u202e\u2066") & set(made)
    names = [layer["t"] for layer in data_of(made)["layers"]]
    assert printable(EVIL) in names
    assert len(made) < 400_000  # a name of 10 kB does not come five times


def test_a_licence_travels_with_the_code_it_is_for(hostile):
    made = hostile.to_html()
    assert "Copyright (c) 2022 Leon Sorokin" in made
    assert (ASSETS / "uPlot.iife.min.js").read_text() in made


@pytest.mark.parametrize("n", [1, 2, 17, 256, 257, 384, 4096, 100_000])
def test_points_are_few_and_reach_both_ends(n):
    found = ranks(n)
    assert len(found) <= MOST_POINTS
    assert (found[0], found[-1]) == (1, n)
    assert (np.diff(found) > 0).all()
    if n <= MOST_POINTS:
        assert len(found) == n
    elif n >= 4096:
        assert (found <= 10).sum() == 10  # each of the largest
        assert np.diff(found).max() <= n / 100


def test_curves_are_the_eigenvalues(hostile):
    data = data_of(hostile.to_html())
    for layer, written in zip(hostile.layers, data["layers"], strict=True):
        curve = written["s"][0]
        evals = layer.esd.evals
        if not (np.isfinite(evals).all() and len(evals) and evals[-1] > 0):
            assert curve is None
            continue
        shown = evals[evals > 1e-9 * evals[-1]][::-1]
        steps = np.frombuffer(base64.b64decode(curve["q"]), "<u2")
        logs = curve["lo"] + (curve["hi"] - curve["lo"]) * steps / 65535
        of = np.array(data["ranks"][str(curve["k"])])
        assert (curve["n"], curve["k"]) == (len(evals), len(shown))
        np.testing.assert_allclose(10**logs, shown[of - 1], rtol=1e-3)


def test_the_law_begins_where_the_tail_does():
    report = ps.analyze({"fc.weight": heavy(90, 60)})
    (layer,) = report.layers
    curve = data_of(report.to_html())["layers"][0]["s"][0]
    (x0, x1), (y0, y1) = curve["law"]
    assert 10**x0 == pytest.approx(layer.fit.xmin, rel=1e-3)
    assert 10**y0 == pytest.approx(layer.n_tail / len(layer.esd.evals), rel=1e-3)
    assert (y1 - y0) / (x1 - x0) == pytest.approx(1 - layer.alpha, rel=1e-2)


@pytest.mark.parametrize(
    "options",
    [{"estimator": "tpl"}, {"estimator": "farms"}, {"estimator": "hill"},
     {"fix_fingers": "clip_xmax"}, {"xmax": 900.0}, {"pool": False}, {"bootstrap": 20},
     {"goodness": False}, {"mp_fit": True, "randomize": True, "detx": True, "vectors": True}],
)  # fmt: skip
def test_a_page_of_any_analysis(options):
    weights = {"fc.weight": heavy(60, 40), "conv.weight": RNG.standard_t(3, size=(40, 36, 2, 2))}
    report = ps.analyze(weights, **options)
    made = report.to_html()
    whole(made)
    data = data_of(made)
    assert [name for name, _ in data["columns"]] == list(report.columns())
    assert all(len(layer["v"]) == len(data["columns"]) for layer in data["layers"])
    laws = [layer["s"][0].get("law") for layer in data["layers"]]
    assert (laws[0] is None) == (options.get("estimator") == "farms")
    for x, y in filter(None, laws):
        assert (np.diff(y) < 0).all()
        assert len(x) == len(y) >= 2


def test_the_bulk_and_permuted_entries_are_shown():
    report = ps.analyze({"fc.weight": heavy(60, 40)}, mp_fit=True, randomize=True)
    (layer,), data = report.layers, data_of(report.to_html())
    own, permuted = data["layers"][0]["s"]
    assert own["e"] == pytest.approx(layer.mp.lambda_plus, rel=1e-4)
    assert 10 ** permuted["hi"] == pytest.approx(layer.randomized.evals[-1], rel=1e-3)
    assert data["series"] == ["", "entries permuted"]
    said = " ".join(told(layer))
    assert f"at λ = {layer.mp.lambda_plus:.3g}" in said
    assert "With its entries permuted" in said


def test_a_page_of_what_changed():
    base = heavy(60, 40)
    report = ps.analyze({"fc.weight": base + 0.1 * RNG.standard_normal((60, 40))},
                        base_model={"fc.weight": base})  # fmt: skip
    text = whole(report.to_html()).text
    assert "since the base model" in text
    assert judgement(report.layers[0]).word in {kind.word for kind in JUDGEMENTS}


def test_a_page_reads_without_a_script(hostile):
    parser = whole(hostile.to_html())
    shown = parser.text[: parser.text.index('{"columns"')]
    assert hostile.verdict.label.capitalize() in shown
    assert parser.tags.count("svg") > 2 + len(hostile.layers)
    for words in ("Overview", "Means over the layers", "Layers", "rank1"):
        assert words in shown
    for layer in hostile.layers:
        if layer.fit.status is ps.Status.OK:
            assert f"{layer.alpha:.2f}" in shown


def test_a_report_without_layers_has_a_page():
    empty = dataclasses.replace(ps.analyze({"fc.weight": heavy(20, 20)}), layers=())
    assert "No layer has an alpha to draw." in whole(empty.to_html()).text


def test_pages_are_small():
    report = ps.analyze({"fc.weight": heavy(60, 40)})
    (layer,) = report.layers
    evals = np.sort(RNG.pareto(2.0, 1024) + 1e-3)
    layer = dataclasses.replace(layer, esd=dataclasses.replace(layer.esd, evals=evals))

    def many(n):
        parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                 "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
        names = [f"model.layers.{i // 7}.{parts[i % 7]}" for i in range(n)]
        layers = tuple(dataclasses.replace(layer, name=name, layer_id=i)
                       for i, name in enumerate(names))  # fmt: skip
        return len(dataclasses.replace(report, layers=layers).to_html().encode())

    assert many(39) <= 250_000
    assert many(562) <= 1_500_000
    assert many(562) > 562 * 1000  # with all their curves


def test_words_say_what_the_numbers_say(hostile):
    said = {layer.name[:5]: " ".join(told(layer)) for layer in hostile.layers}
    assert "has no spectrum: not finite." in said["</scr"]
    assert "No power law could be fitted" in said["zero"]
    assert "too small to tell (fewer than 32 eigenvalues)" in said["small"]
    layer = next(x for x in hostile.layers if x.name.startswith("xxx"))
    assert f"α is {layer.alpha:.2f} ± {layer.fit.alpha_stderr:.2f}" in said["xxxxx"]
    assert f"The {layer.n_tail} of them from λ = {layer.fit.xmin:.3g} on" in said["xxxxx"]
    norm = math.sqrt(layer.esd.evals[-1])
    assert f"The spectral norm is {norm:.3g}, the stable rank" in said["xxxxx"]


def test_titles_do_not_carry_whole_paths():
    assert short_name("/home/me/runs/bert-base.safetensors") == "bert-base.safetensors"
    assert short_name("/home/me/bert-base/model.safetensors") == "bert-base/model.safetensors"
    assert short_name("state dict") == "state dict"
    assert short_name("/model") == "model"
    assert len(short_name("/" + "x" * 10_000)) < 200
    assert all(name == name.lower() for name in COMMON_NAMES)


def test_a_page_is_written_whole_and_never_over_the_model(tmp_path):
    file = tmp_path / "model.npz"
    np.savez(file, **{"fc.weight": heavy(60, 40)})
    report = ps.analyze(file)
    report.save_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report.to_html()
    with pytest.raises(ValueError, match="path"):
        report.save_html(file)
    with pytest.raises(OSError, match="no"):
        report.save_html(tmp_path / "no" / "report.html")


def test_the_command_writes_the_page(tmp_path, capsys):
    file = tmp_path / "model.npz"
    np.savez(file, **{"fc.weight": heavy(60, 40)})
    target = tmp_path / "report.html"
    assert main(["analyze", str(file), "--html", str(target)]) == 0
    assert f"wrote {target}" in capsys.readouterr().err
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["analyze", str(file), "--html", "-", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert main(["analyze", str(file), "--html", str(file)]) == 2
