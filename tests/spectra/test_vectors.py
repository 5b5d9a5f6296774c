"""Eigenvector statistics against plain formulas and WeightWatcher's columns."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import synthetic_cases
from reference import vectors as reference

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.metrics.vectors import bulk_and_tail
from pyspectra.report import weightwatcher
from pyspectra.spectra.eigenvectors import eigenvector_statistics, vector_entropies

DATA = Path(__file__).parents[1] / "data"


def host(x):
    return HostArray(np.asarray(x, dtype=np.float64), "float64")


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (30, 30)])
def test_each_vector_by_its_formula(shape):
    W = np.random.default_rng(0).standard_normal(shape)
    s = eigenvector_statistics([host(W)])
    gram = W.T @ W if shape[0] > shape[1] else W @ W.T
    evals, V = np.linalg.eigh(gram)
    assert np.allclose(s.evals, evals)
    for i, v in enumerate(V.T):
        assert s.loc_ratio[i] == pytest.approx(reference.loc_ratio(v), rel=1e-9)
        assert s.part_ratio[i] == pytest.approx(reference.part_ratio(v), rel=1e-9)
        assert s.vec_entropy[i] == pytest.approx(reference.vec_entropy(v), rel=1e-6)


def rows():
    with open(DATA / "vectors.csv", newline="") as file:
        return {row.pop("case"): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("case", synthetic_cases.cases())
def test_columns_are_the_reference(case):
    """xmin is an eigenvalue, and rounding decides on which side WeightWatcher puts its vector."""
    theirs = rows()[case]
    if case.startswith("lowrank"):  # the vectors of a null space, all in the bulk, are anybody's
        theirs = {column: value for column, value in theirs.items() if column.startswith("tail")}
        assert len(theirs) == 6
    report = ps.analyze({"w.weight": synthetic_cases.cases()[case]}, vectors=True)
    layer, (row,) = report.layers[0], report.rows("weightwatcher")
    # Where its fit fails, WeightWatcher's xmin is -1: all is tail.
    xmin = row["xmin"] / weightwatcher.factor(layer)
    start = 0 if row["status"] == "failed" else int(np.searchsorted(layer.esd.evals, xmin))

    def agrees(first):
        ours = bulk_and_tail(layer.vectors, first)
        return all(
            math.isnan(ours[c]) if math.isnan(float(v)) else ours[c] == pytest.approx(float(v))
            for c, v in theirs.items()
        )

    assert any(agrees(first) for first in (start - 1, start, start + 1) if first >= 0)
    failed = layer.fit.status is not ps.Status.OK
    start = 0 if failed else int(np.searchsorted(layer.esd.evals, layer.fit.xmin))
    for column, value in bulk_and_tail(layer.vectors, start).items():
        expected = math.nan if failed else value
        assert layer.metrics[column] == pytest.approx(expected, nan_ok=True)


def test_columns_of_both_dialects():
    W = synthetic_cases.cases()["conv_64x32x3x3_seed8"]
    report = ps.analyze({"w.weight": W}, vectors=True)
    (ours,), (theirs,) = report.rows(), report.rows("weightwatcher")
    assert len(rows()["conv_64x32x3x3_seed8"]) == 12
    for column in rows()["conv_64x32x3x3_seed8"]:
        assert ours[column] == theirs[column]
    slices = ps.analyze({"w.weight": W}, vectors=True, pool=False).layers
    assert [len(layer.vectors.evals) for layer in slices] == [32] * 9


def test_not_finite():
    W = np.ones((10, 9))
    W[0, 0] = np.inf
    assert eigenvector_statistics([host(W)]) is None


@pytest.mark.parametrize("m", [1, 2, 37, 384])
def test_histograms_of_many_vectors_are_those_of_numpy(m: int) -> None:
    rng = np.random.default_rng(m)
    columns = [rng.standard_normal(m), rng.integers(0, 5, m), np.ones(m), rng.random(m).round(2)]
    size = np.abs(np.array([*columns, *rng.standard_normal((30, m))], dtype=float)).T

    def entropy(v: np.ndarray) -> float:
        h, _ = np.histogram(v - np.mean(v), bins=100, density=True)
        p = (h + 1e-10) / math.sqrt(2.0 * math.pi)
        p /= np.sum(p)
        return -float(np.sum(p * np.log(p)))

    want = [entropy(v) for v in size.T]
    np.testing.assert_allclose(vector_entropies(size), want, rtol=0, atol=1e-13)
