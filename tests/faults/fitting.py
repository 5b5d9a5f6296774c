"""Thresholds fitted on two architectures and scored on the third."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np

from faults.recording import judged, load
from pyspectra.training import Thresholds
from pyspectra.training.rules import RULES, known_codes

# A threshold, and the findings that hang on it.
FITTED = {
    "explosion": ("exploding_gradient",),
    "vanishing": ("vanishing_gradient",),
    "update_low": ("update_ratio",),
    "update_high": ("update_ratio",),
    "jump": ("update_ratio",),
    "lost": ("lost_updates",),
    "divergence": ("divergence",),
    "dead_error": ("dead_units",),
    "saturated": ("saturated_units",),
    "baseline_share": ("not_learning",),
    "least_decrease": ("not_learning",),
    "overfit_share": ("overfitting",),
    "overfit_errors": ("overfitting",),
    "swing": ("oscillation",),
    "paradox_accuracy": ("accuracy_paradox",),
    "worsening_errors": ("train_metric_worsening",),
    "learned_share": ("labels_carry_no_information",),
    "repeated_share": ("duplicated_batches",),
}
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Shares stay shares.
SHARES = ("lost", "dead_error", "saturated", "paradox_accuracy", "learned_share",
          "repeated_share")  # fmt: skip


def values_of(name):
    """Return the values of a threshold that are tried."""
    usual = getattr(Thresholds(), name)
    return [min(usual * k, 0.95) if name in SHARES else usual * k for k in FACTORS]


def family(row):
    """Return the architecture of a row, whatever its data."""
    return row.architecture.split("/")[0]


def loud_codes(recording, thresholds, codes):
    """Return those of some codes that are said aloud, symptoms of others included."""
    wanted = set(codes)
    rules = defaultdict(list)
    for r in RULES:
        if wanted & set(r.codes):
            rules[r.needs].append(r.check)
    during, _ = recording
    return wanted & {
        x.code
        for _, facts in during
        for fact in facts
        for check in rules[type(fact)]
        for x in check(fact, thresholds)
        if x.severity != "info"
    }


def balanced_accuracy(rows, said):
    """Return the mean of recall on faults and of silence on healthy runs."""
    faults = [bool(set(row.codes) & said[row]) for row in rows if row.kind == "fault"]
    silent = [not said[row] for row in rows if row.kind == "healthy"]
    return (float(np.mean(faults)) + float(np.mean(silent))) / 2


def table_of(rows):
    """Return, for each row, what is said at each value of each threshold."""
    usual, tried = {}, {}
    every = tuple(known_codes())
    for row in rows:
        recording = load(row.path)
        usual[row] = loud_codes(recording, Thresholds(), every)
        for name, codes in FITTED.items():
            for value in values_of(name):
                if value == getattr(Thresholds(), name):
                    continue
                thresholds = dataclasses.replace(Thresholds(), **{name: value})
                found = loud_codes(recording, thresholds, codes)
                if found != usual[row] & set(codes):
                    tried[row, name, value] = (usual[row] - set(codes)) | found
    return usual, tried


def fit(rows, usual, tried):
    """Return the best value of each threshold on some rows; of equal ones the usual."""
    chosen = {}
    for name in FITTED:

        def score(value, name=name):
            said = {row: tried.get((row, name, value), usual[row]) for row in rows}
            near = -abs(np.log(value / getattr(Thresholds(), name)))
            return balanced_accuracy(rows, said), near

        chosen[name] = max(values_of(name), key=score)
    return dataclasses.replace(Thresholds(), **chosen)


def scores(rows, thresholds):
    """Return balanced accuracy, recall and share of silent healthy runs, by full judgement."""
    hits, silent = [], []
    for row in rows:
        loud = [x for x in judged(load(row.path), thresholds) if x[1] != "info"]
        if row.kind == "fault":
            hits.append(any(x[0] in row.codes for x in loud))
        else:
            silent.append(not loud)
    recall, quiet = float(np.mean(hits)), float(np.mean(silent))
    return (recall + quiet) / 2, recall, quiet


def held_out_table(rows, out):
    """Write what thresholds that were fitted on two architectures are worth on the third."""
    rows = [row for row in rows if row.kind == "healthy" or not row.exact]
    usual, tried = table_of(rows)
    print("| held out | fitted: recall, silent | held out: recall, silent | balanced accuracy: "
          "fitted, held out, loss | thresholds that moved |", file=out)  # fmt: skip
    print("|---|---|---|---|---|", file=out)
    for held in dict.fromkeys(family(row) for row in rows):
        own = [row for row in rows if family(row) == held]
        others = [row for row in rows if family(row) != held]
        thresholds = fit(others, usual, tried)
        a, b = scores(others, thresholds), scores(own, thresholds)
        moved = [
            f"{name} {getattr(thresholds, name):.3g}"
            for name in FITTED
            if getattr(thresholds, name) != getattr(Thresholds(), name)
        ]
        print(
            f"| {held} | {a[1]:.3f}, {a[2]:.3f} | {b[1]:.3f}, {b[2]:.3f} | {a[0]:.3f}, {b[0]:.3f}, "
            f"{a[0] - b[0]:+.3f} | {', '.join(moved) or 'none'} |",
            file=out,
        )
