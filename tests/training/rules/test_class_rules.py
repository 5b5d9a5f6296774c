"""Rules of classes, on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest
from rule_facts import codes, found

from pyspectra.training.rules import facts as f


@pytest.mark.parametrize(
    ("matrix", "fires"),
    [
        ([[900, 0], [100, 0]], True),  # one class is never predicted
        ([[895, 5], [10, 90]], False),
        ([[700, 0], [300, 0]], False),  # an accuracy of 0.7 deceives nobody
        ([[980, 0], [19, 0]], False),  # too few of the second to tell
        ([[980, 0], [20, 0]], True),
        ([[860, 40], [60, 40]], True),  # no better than the majority, and half is not found
        ([[500, 5], [5, 490]], False),
        ([[1000, 0], [0, 0]], False),  # a single class
    ],
)
def test_the_accuracy_paradox(matrix, fires):
    assert bool(codes(f.Classes(100, np.array(matrix)))) is fires


def test_rare_classes_need_not_be_found_at_once():
    assert codes(f.Classes(99, np.array([[900, 0], [100, 0]]))) == []


def test_it_names_the_class():
    finding = found(f.Classes(100, np.array([[900, 0, 0], [10, 50, 0], [60, 0, 0]])))
    assert finding.where == "class 2"
    assert "class 2 is never predicted" in finding.message
    assert finding.evidence["recall"][1] == pytest.approx(50 / 60)


AUGMENTED = np.array([[50, 0, 0], [0, 48, 2], [0, 0, 50]])


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ([0, 30, 20], True),  # recall from 0.96 to 0.6, the errors to one class
        ([0, 34, 16], False),  # to 0.68: less than 0.3
        ([9, 30, 11], False),  # the errors go to both
    ],
)
def test_an_augmentation_that_changes_the_label(row, fires):
    after = AUGMENTED.copy()
    after[1] = row
    fact = f.Augmented(AUGMENTED, after)
    assert bool(codes(fact)) is fires
    if fires:
        assert "go to class 2" in found(fact).message
    few = f.Augmented(AUGMENTED // 2, after // 2)
    assert codes(few) == []  # 25 samples of a class


@pytest.mark.parametrize(("wrong", "fires"), [(4, False), (6, True)])
def test_labels_that_held_out_predictions_contradict(wrong, fires):
    labels = np.arange(100) % 2
    p = np.where(labels[:, None] == np.arange(2), 0.95, 0.05)
    p[:wrong] = p[:wrong, ::-1]
    assert codes(f.HeldOut(p, labels)) == ([("label_noise", "info")] if fires else [])
    unsure = np.where(labels[:, None] == np.arange(2), 0.85, 0.15)[:, ::-1]
    assert codes(f.HeldOut(unsure, labels)) == []
