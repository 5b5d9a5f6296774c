"""What a notebook shows: small, still, and safe."""

from __future__ import annotations

import numpy as np
import pytest
from report.test_html_parts import EVIL, checked

import pyspectra as ps

RNG = np.random.default_rng(7)


def weights(n=3):
    made = {f"layers.{i}.weight": RNG.standard_t(2.0, size=(60, 40)) for i in range(n)}
    return {**made, f"{EVIL}.weight": RNG.standard_t(2.0, size=(60, 40)),
            "broken.weight": np.full((60, 40), np.nan)}  # fmt: skip


def test_a_report_shows_verdict_means_and_layers():
    report = ps.analyze(weights())
    parser = checked(report._repr_html_())
    assert report.verdict.text[:60] in parser.text
    assert "Means: log_norm" in parser.text
    assert parser.tags.count("tr") == 1 + len(report)
    assert "script" not in parser.tags
    assert "\x1b" not in parser.text


def test_a_long_report_shows_the_layers_to_look_at():
    report = ps.analyze(weights(30), goodness=False)
    made = report._repr_html_()
    parser = checked(made)
    assert parser.tags.count("tr") == 21
    assert "20 of 32 rows" in parser.text
    assert "broken" in parser.text
    assert len(made) < 30_000


@pytest.mark.parametrize("options", [{}, {"estimator": "tpl"}, {"estimator": "farms"}])
def test_a_layer_shows_its_spectrum_and_words(options):
    layer = ps.analyze({"fc.weight": RNG.standard_t(2.0, size=(60, 40))}, **options).layers[0]
    parser = checked(layer._repr_html_())
    assert f"α is {layer.alpha:.2f}" in parser.text
    assert parser.tags.count("svg") == 1
    assert parser.tags.count("path") == (1 if "farms" in layer.fit.estimator else 3)


def test_a_layer_without_a_spectrum_has_no_picture():
    layer = ps.analyze({"broken.weight": np.full((60, 40), np.nan)}).layers[0]
    parser = checked(layer._repr_html_())
    assert "has no spectrum" in parser.text
    assert "svg" not in parser.tags


def test_comparisons_show_their_sentences():
    found = ps.compare(weights(), weights(), names=("old", EVIL))
    parser = checked(found._repr_html_())
    assert "old against" in parser.text
    assert found.text[:50] in parser.text
    assert parser.tags.count("tr") == 1 + len(found)
    run = ps.compare([weights(), weights(), weights()])
    assert "3 checkpoints" in checked(run._repr_html_()).text
