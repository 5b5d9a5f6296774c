"""Rules of the beginning and of trials, on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest
from rule_facts import RNG, codes, found

from pyspectra.training.rules import facts as f

HE = (2 / 100) ** 0.5


def summary(**more):
    usual = {
        "name": "fc", "shape": (50, 100), "mean": 0.0, "std": HE, "max_abs": 1.0,
        "row_difference": 1.0, "column_difference": 1.0, "stable_rank": 20.0, "activation": "relu",
    }  # fmt: skip
    return f.WeightSummary(**{**usual, **more})


@pytest.mark.parametrize(
    ("more", "fires"),
    [
        ({}, False),
        ({"std": 0.31 * HE}, False),  # PyTorch's own default is 0.41
        ({"std": 0.29 * HE}, True),
        ({"std": 2.9 * HE}, False),
        ({"std": 3.1 * HE}, True),
        ({"std": 9 * HE, "normalized": True}, False),
        ({"std": 9 * HE, "activation": None}, False),
        ({"std": (3 * 10) ** -0.5, "shape": (1000, 10), "activation": "tanh"}, False),
    ],
)
def test_scales_of_initialisation(more, fires):
    assert codes(f.InitialWeights(1, [summary(**more)])) == (
        [("init_scale", "info")] if fires else []
    )


@pytest.mark.parametrize(
    ("more", "fires"),
    [
        ({"stable_rank": 1.0005}, True),
        ({"stable_rank": 1.002}, False),
        ({"stable_rank": 1.0, "shape": (7, 100)}, False),  # too small to tell
        ({"stable_rank": float("nan")}, False),
        ({"row_difference": 1e-8}, True),
        ({"std": 0.0, "max_abs": 0.0}, False),  # as LoRA's B, until its gradient is zero, too
    ],
)
def test_units_that_begin_alike(more, fires):
    assert codes(f.InitialWeights(0, [summary(**more)])) == (
        [("symmetric_init", "warning")] if fires else []
    )


@pytest.mark.parametrize(
    ("loss", "more", "fires"),
    [
        (2.3, {}, False),
        (4.2, {}, False),
        (4.4, {}, True),
        (1.2, {}, False),
        (1.1, {}, True),
        (1.1, {"pretrained": True}, False),
        (0.5, {"entropy": 0.9}, False),  # the shares of the classes are known
    ],
)
def test_the_first_loss(loss, more, fires):
    assert bool(codes(f.InitialLoss(loss, 10, **more))) is fires


@pytest.mark.parametrize(
    ("real", "fires"),
    [
        (np.geomspace(1.0, 0.01, 60), False),
        (np.geomspace(1.0, 0.69, 60), True),
    ],
)
def test_inputs_that_make_no_difference(real, fires):
    zeroed = np.geomspace(1.0, 0.69, 60)
    assert codes(f.InputTrial(real, zeroed)) == ([("input_ignored", "warning")] if fires else [])
    assert codes(f.InputTrial(real[:3], zeroed[:3])) == []
    assert codes(f.InputTrial(np.full(60, np.nan), zeroed)) == []


@pytest.mark.parametrize(
    ("order", "fires"),
    [
        (list(range(20)), False),
        ([0, 0, *range(1, 19)], False),  # one of twenty, by chance
        (list(np.repeat(range(5), 4)), True),  # four workers of one seed
        (list(range(5)) * 4, False),  # four passes in one order
        ([3] * 20, False),  # one batch, on purpose
        ([0, 0, 1], False),  # too few
    ],
)
def test_batches_that_come_again(order, fires):
    sums = RNG.standard_normal(20)[order]
    fact = f.EpochBatches(20, sums)
    assert codes(fact) == ([("duplicated_batches", "warning")] if fires else [])
    if fires:
        assert "only 5 differ" in found(fact).message
