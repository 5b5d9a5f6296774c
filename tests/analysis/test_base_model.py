"""`analyze(base_model=...)`: spectra of what fine-tuning changed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.weights import open_weights
from pyspectra.weights.deltas import deltas

Array = np.ndarray


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([*shape, seed]).standard_normal(shape)


def heavy(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([*shape, seed]).standard_t(2.5, shape)


def test_the_spectrum_is_that_of_the_difference() -> None:
    base = random(60, 50)
    change = heavy(60, 50) * 1e-2
    report = ps.analyze({"fc.weight": base + change}, base_model={"fc.weight": base})
    plain = ps.analyze({"fc.weight": (base + change) - base})
    assert report.layers[0].esd.evals == pytest.approx(plain.layers[0].esd.evals, rel=1e-12)
    assert report.layers[0].alpha == pytest.approx(plain.layers[0].alpha, rel=1e-12)
    assert report.options.base_model == "state dict"
    assert '"base_model": "state dict"' in report.to_json()


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_small_changes_are_fitted_whatever_the_scale(scale: float) -> None:
    """WeightWatcher's absolute threshold drops all of the eigenvalues of the second scale."""
    base = random(60, 50).astype(np.float32)
    tuned = (base + heavy(60, 50) * 1e-3).astype(np.float32)
    one = ps.analyze({"fc.weight": tuned}, base_model={"fc.weight": base}).layers[0]
    factor = np.float32(scale)
    two = ps.analyze(
        {"fc.weight": tuned.astype(np.float64) * factor},
        base_model={"fc.weight": base.astype(np.float64) * factor},
    ).layers[0]
    assert one.status is two.status is ps.Status.OK
    assert one.fit.n == two.fit.n == 50
    assert two.alpha == pytest.approx(one.alpha, rel=1e-6)
    assert two.fit.xmin == pytest.approx(one.fit.xmin * factor**2, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(120, 100), (300, 60)])
def test_rounding_alone_is_no_change(dtype: type, shape: tuple[int, int]) -> None:
    exact = random(*shape)
    W = exact.astype(dtype).astype(np.float64)
    # What is left is the rounding of one of the two; the floor must lie above nearly all of it.
    source = open_weights({"fc.weight": exact.astype(np.float32)})
    found = deltas(source, open_weights({"fc.weight": W.astype(dtype)}))
    _, change = found.layers[0].load_with_change()
    assert change is not None
    assert change.only_rounding
    floor = change.floor
    evals = np.linalg.svd(exact - W, compute_uv=False) ** 2
    assert np.mean(evals < floor) > 0.95
    assert evals.max() < 3.0 * floor


def test_a_low_rank_change_stands_above_the_rounding() -> None:
    base = random(120, 100).astype(np.float32)
    spread = 0.1 * np.arange(1.0, 13.0)
    change = (random(120, 12, seed=1) * spread) @ random(12, 100, seed=2) * 1e-2
    tuned = (base + change).astype(np.float32)
    layer = ps.analyze({"fc.weight": tuned}, base_model={"fc.weight": base}).layers[0]
    assert layer.fit.n == 12


def test_layers_without_a_partner_are_listed() -> None:
    a = {"both.weight": heavy(30, 20), "new.weight": heavy(30, 20), "other.weight": heavy(30, 20)}
    b = {"both.weight": random(30, 20), "old.weight": heavy(30, 20), "other.weight": heavy(30, 24)}
    report = ps.analyze(a, base_model=b)
    assert [layer.name for layer in report.layers] == ["both"]
    reasons = {s.name: s.reason for s in report.skipped}
    assert reasons["new"] == "not in base_model"
    assert reasons["old"] == "only in base_model"
    assert reasons["other"] == "has shape (30, 20), and (30, 24) in base_model"


def test_an_unchanged_layer_is_listed_as_such_and_no_failed_fit() -> None:
    a = {"fc.weight": heavy(30, 20), "conv.weight": heavy(30, 20, seed=3).reshape(5, 6, 4, 5)}
    b = {**a, "fc.weight": heavy(30, 20, seed=1)}
    report = ps.analyze(a, base_model=b, min_evals=1)
    assert [layer.name for layer in report.layers] == ["fc"]
    assert [(s.name, s.skip.code, s.failed) for s in report.skipped] == [
        ("conv", "unchanged", False)
    ]


def test_a_report_says_how_names_were_matched() -> None:
    W = heavy(30, 20)
    base = {"encoder.0.weight": W, "encoder.1.weight": random(30, 20)}
    tuned = {f"bert.{name}": value + heavy(30, 20, seed=3) for name, value in base.items()}
    report = ps.analyze({**tuned, "classifier.weight": W}, base_model=base)
    assert [layer.name for layer in report.layers] == ["bert.encoder.0", "bert.encoder.1"]
    (note,) = report.notes
    assert "without their prefix 'bert.'" in note
    assert json.loads(report.to_json())["notes"] == [note]
    assert ps.analyze(tuned).notes == ()


def test_a_model_compared_with_itself_is_unchanged() -> None:
    a = {"fc.weight": heavy(30, 20), "head.weight": heavy(30, 20, seed=3), "n.weight": np.ones(3)}
    report = ps.analyze(a, base_model=a)
    assert len(report) == 0
    assert {s.name: s.skip.code for s in report.skipped} == {
        "n": "vector", "fc": "unchanged", "head": "unchanged"
    }  # fmt: skip
    assert report.verdict.label == "unchanged"
    assert report.verdict.n_failed == 0
    assert report.verdict.text.startswith(
        "Unchanged: the weight matrices are those of the base model"
    )


def test_two_models_without_a_common_layer_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^analyze: .* 1 x not in base_model"):
        ps.analyze({"a.weight": heavy(30, 20)}, base_model={"b.weight": heavy(30, 20)})
    with pytest.raises(TypeError, match="'base_model' must be a torch module"):
        ps.analyze({"a.weight": heavy(30, 20)}, base_model=3)


@pytest.mark.parametrize("tied", ["neither", "base", "tuned", "both"])
def test_weights_that_were_tied_or_untied_are_compared(tied: str) -> None:
    torch = pytest.importorskip("torch")

    def state(seed: int, *, tie: bool) -> dict[str, object]:
        emb = torch.from_numpy(random(40, 20) + 0.1 * heavy(40, 20, seed=seed))
        head = emb if tie else emb + torch.from_numpy(0.1 * heavy(40, 20, seed=seed + 1))
        return {"emb.weight": emb, "head.weight": head}

    base, tuned = (
        state(1, tie=tied in ("base", "both")),
        state(5, tie=tied in ("tuned", "both")),
    )
    report = ps.analyze(tuned, base_model=base)
    names = [layer.name for layer in report.layers]
    assert names == (["emb"] if tied == "both" else ["emb", "head"])
    assert [s.name for s in report.skipped] == (["head"] if tied == "both" else [])
    for layer in report.layers:
        delta = (tuned[f"{layer.name}.weight"] - base[f"{layer.name}.weight"]).numpy()  # type: ignore[operator]
        assert layer.esd.evals == pytest.approx(ps.esd(delta).evals, rel=1e-9)


def test_the_scale_of_a_change_does_not_decide_whether_clipping_fails() -> None:
    W = heavy(12, 40)
    rows = [
        ps.analyze(
            {"fc.weight": scale * W},
            base_model={"fc.weight": np.zeros_like(W)},
            fix_fingers="clip_xmax",
        ).rows("weightwatcher")[0]
        for scale in (1.0, 1e-7)
    ]
    assert rows[0]["status"] == rows[1]["status"] == "success"
    assert rows[0]["raw_alpha"] == pytest.approx(rows[1]["raw_alpha"], rel=1e-9)


def test_infinities_in_both_models_raise_no_warning() -> None:
    W = np.random.default_rng(0).standard_normal((30, 20))
    W[0, 0] = np.inf
    report = ps.analyze({"w.weight": W}, base_model={"w.weight": W})
    assert [layer.status for layer in report.layers] == [ps.Status.NOT_FINITE]
