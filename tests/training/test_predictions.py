"""Looking at predictions: the worst, the least sure, each class; and the table of bias."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from report.test_html_parts import EVIL

from pyspectra.errors import ArgumentValueError
from pyspectra.report.html.picture import picture, png
from pyspectra.training import History, bias_variance
from pyspectra.training.predictions import Predictions, plot_confusion

LOGITS = np.array([[5.0, 0, 0], [0, 0.1, 0], [0, 9.0, 0], [1.0, 0.9, 0], [0, 0, 2.0]])
TARGETS = np.array([0, 1, 2, 0, 2])


def test_losses_are_cross_entropies():
    torch = pytest.importorskip("torch")
    found = Predictions.of(torch.tensor(LOGITS), torch.tensor(TARGETS))
    want = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(TARGETS), reduction="none"
    )
    np.testing.assert_allclose(found.losses, want.numpy(), rtol=1e-6)
    assert found.accuracy == 0.8


def test_the_worst_the_least_sure_and_mistakes():
    found = Predictions.of(LOGITS, TARGETS, names=("a", "b", "c"))
    assert found.top_losses(2).tolist() == [2, 1]
    assert found.least_sure(2).tolist() == [1, 3]
    assert found.wrong_of(2).tolist() == [2]
    assert found.wrong_of(0).tolist() == []
    np.testing.assert_array_equal(found.confusion, [[2, 0, 0], [0, 1, 0], [0, 1, 1]])
    rows = found.classes()
    assert rows[2] == {"class": "c", "samples": 2, "recall": 0.5, "precision": 1.0,
                       "most often taken for": "b (1)"}  # fmt: skip
    same = Predictions.of(found.probabilities, TARGETS, logits=False)
    np.testing.assert_array_equal(same.losses, found.losses)


@pytest.mark.parametrize(
    ("outputs", "targets", "more", "argument"),
    [
        (np.zeros(3), TARGETS, {}, "outputs"),
        (LOGITS, TARGETS[:3], {}, "outputs"),
        (LOGITS, TARGETS + 1, {}, "targets"),
        (LOGITS, TARGETS, {"names": ("a",)}, "names"),
        (LOGITS, TARGETS, {"inputs": ["x"]}, "inputs"),
    ],
)
def test_arguments(outputs, targets, more, argument):
    with pytest.raises(ArgumentValueError, match=f"'{argument}'"):
        Predictions.of(outputs, targets, **more)


def test_a_page_of_images(tmp_path):
    images = np.random.default_rng(0).standard_normal((5, 1, 8, 8))
    found = Predictions.of(LOGITS, TARGETS, names=("a", "b", EVIL), inputs=images)
    made = found.to_html(tmp_path / "said.html", n=3)
    assert (tmp_path / "said.html").read_text(encoding="utf-8") == made
    assert "<script" not in made
    assert "; img-src data:" in made
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', made)
    assert len(pictures) == 7  # three worst, three least sure, one mistake
    assert base64.b64decode(pictures[0]) == base64.b64decode(
        re.search(r"base64,([^\"]*)", picture(images[2], "")).group(1)
    )
    assert "Largest losses" in made
    assert "accuracy 0.8" in made


def test_a_page_of_texts():
    texts = ["good", EVIL, "x" * 1000, "fine", "bad"]
    made = Predictions.of(LOGITS, TARGETS, inputs=texts).to_html()
    assert "<script" not in made
    assert "x" * 400 + "…" in made
    assert "x" * 401 not in made


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pictures_are_png(shape):
    image = pytest.importorskip("matplotlib.image")
    import io

    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = image.imread(io.BytesIO(png(pixels)), format="png")
    np.testing.assert_array_equal(np.round(255 * read).astype(np.uint8)[..., : len(shape)].squeeze()
                                  if len(shape) == 3 else np.round(255 * read), pixels)  # fmt: skip


def test_the_plot_of_a_confusion_matrix():
    pytest.importorskip("matplotlib")
    found = Predictions.of(LOGITS, TARGETS, names=("a", "b", "c"))
    ax = plot_confusion(found)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    assert sorted(t.get_text() for t in ax.texts) == ["1", "1", "1", "2"]
    ax.figure.savefig("/dev/null", format="png")
    assert plot_confusion(found.confusion, ax=ax) is ax
    with pytest.raises(ArgumentValueError, match="square"):
        plot_confusion(np.zeros((2, 3)))


def test_bias_and_variance_of_a_loss_and_of_a_score():
    history = History()
    for epoch, (a, b) in enumerate([(0.9, 1.0), (0.5, 0.6), (0.2, 0.9)], 1):
        history.log(epoch=epoch, train_loss=a, val_loss=b, train_accuracy=1 - a, val_accuracy=1 - b)
    found = bias_variance(history, target=0.1, test=0.65)
    assert [(n, pytest.approx(v)) for n, v, _ in found.rows] == [
        ("target", 0.1), ("avoidable bias", 0.4), ("variance", 0.1),
        ("validation overfitting", 0.05),
    ]  # fmt: skip
    assert found.largest == "avoidable bias"
    score = bias_variance(history, "accuracy", target=0.9)
    assert [v for _, v, _ in score.rows] == [0.9, pytest.approx(0.4), pytest.approx(0.1)]
    assert "work at the avoidable bias first" in str(score)
    with pytest.raises(KeyError):
        bias_variance(history, "mae")
