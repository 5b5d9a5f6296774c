"""WeightWatcher's factor on convolutions stays in its dialect: ours are numbers of the slices."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerances as tol
from reference import metrics as ref_metrics
from reference import powerlaw as ref_powerlaw

import pyspectra as ps

PACKAGE = Path(ps.__file__).parent
OPTIONS: dict[str, Any] = {
    "randomize": True, "mp_fit": True, "detx": True, "vectors": True, "seed": 1
}  # fmt: skip


def kernel(*shape: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(shape).standard_t(3, shape) * scale


def slices(W: np.ndarray) -> list[np.ndarray]:
    return [W[:, :, i, j] for i in range(W.shape[2]) for j in range(W.shape[3])]


def squared(W: np.ndarray) -> np.ndarray:
    return np.linalg.svd(W, compute_uv=False)[::-1] ** 2


def layer_of(kind: str, W: np.ndarray) -> Any:
    """A model of one convolution of that kind, whose stored weight is W."""
    torch = pytest.importorskip("torch")
    a, b, *k = W.shape
    module = {
        "conv2d": lambda: torch.nn.Conv2d(b, a, k),
        "conv2d_grouped": lambda: torch.nn.Conv2d(2 * b, a, k, groups=2),
        "conv_transpose2d": lambda: torch.nn.ConvTranspose2d(a, b, k),
    }[kind]().double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(W))
    return torch.nn.Sequential(module)


def check_own(row: dict[str, Any], matrices: list[np.ndarray]) -> None:
    """Every column that depends on the scale of the weights."""
    each = [squared(W) for W in matrices]
    evals = np.sort(np.concatenate(each))
    sigma = math.sqrt(evals[-1])
    expected = {
        "n_evals": len(evals),
        "spectral_norm": sigma,
        "sv_max": sigma,
        "log_spectral_norm": math.log10(sigma),
        "sv_min": math.sqrt(max(e[0] for e in each)),
        "norm": sum(float(np.sum(W**2)) for W in matrices),
        "log_norm": math.log10(sum(float(np.sum(W**2)) for W in matrices)),
        "lambda_max": evals[-1],
        "stable_rank": float(np.sum(evals)) / evals[-1],
        "weak_rank_loss": int(np.count_nonzero(evals < 1e-6)),
        "alpha_weighted": row["alpha"] * math.log10(evals[-1]),
        "log_alpha_norm": ref_metrics.log_alpha_norm(evals, row["alpha"]),
        "xmax": evals[-1],
    }
    fit = ref_powerlaw.fit_ww(evals)
    expected |= {"alpha": fit.alpha, "xmin": fit.xmin, "n_fit": fit.n, "n_tail": fit.n_tail}
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=tol.ESD_SMALL_RTOL), name
    # The upper edge belongs to the spectrum, and the permuted entries have the same norm.
    assert row["lambda_plus"] == pytest.approx(row["mp_soft_rank"] * evals[-1])
    assert row["rand_lambda_max"] == pytest.approx(row["rand_soft_rank"] * evals[-1])
    assert np.min(np.abs(evals / row["detX_val"] - 1.0)) < tol.ESD_SMALL_RTOL


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_grouped", "conv_transpose2d"])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("field", [(3, 2), (1, 1), (2, 2)])
def test_our_columns_of_a_convolution_are_those_of_its_slices(
    kind: str, pool: bool, field: tuple[int, int]
) -> None:
    W = kernel(16, 12, *field)
    report = ps.analyze(layer_of(kind, W), pool=pool, **OPTIONS)
    assert {layer.kind for layer in report.layers} == {kind}
    rows = report.rows()
    if pool or field == (1, 1):
        (row,) = rows
        check_own(row, slices(W))
    else:
        assert len(rows) == len(slices(W))
        for row, matrix in zip(rows, slices(W), strict=True):
            check_own(row, [matrix])
    # An exported spectrum is the spectrum of the weights, too.
    for layer in report.layers:
        matrices = slices(W) if layer.slice_id is None else [slices(W)[layer.slice_id]]
        want = np.sort(np.concatenate([squared(m) for m in matrices]))
        np.testing.assert_allclose(layer.esd.evals, want, rtol=tol.ESD_SMALL_RTOL)
        assert layer.vectors is not None
        np.testing.assert_allclose(layer.vectors.evals, want, rtol=tol.ESD_SMALL_RTOL)


@pytest.mark.parametrize("pool", [True, False])
def test_the_other_dialect_scales_what_depends_on_the_scale(pool: bool) -> None:
    W = kernel(16, 12, 3, 2)
    report = ps.analyze({"conv.weight": W}, pool=pool, **OPTIONS)
    factor = 0.5 if pool else 3.0
    for own, theirs in zip(report.rows(), report.rows("weightwatcher"), strict=True):
        assert theirs["lambda_max"] == pytest.approx(factor * own["lambda_max"])
        assert theirs["spectral_norm"] == pytest.approx(factor * own["spectral_norm"] ** 2)
        assert theirs["norm"] == pytest.approx(factor * own["norm"])
        assert theirs["log_norm"] == pytest.approx(own["log_norm"] + math.log10(factor))
        assert theirs["sv_max"] == pytest.approx(math.sqrt(factor) * own["sv_max"])
        assert theirs["sv_min"] == pytest.approx(math.sqrt(factor) * own["sv_min"])
        assert theirs["xmin"] == pytest.approx(factor * own["xmin"])
        assert theirs["xmax"] == pytest.approx(factor * own["xmax"])
        assert theirs["alpha"] == pytest.approx(own["alpha"])
        weighted = own["alpha"] * math.log10(factor * own["lambda_max"])
        assert theirs["alpha_weighted"] == pytest.approx(weighted)
        assert theirs["detX_val"] == pytest.approx(factor * own["detX_val"])
        assert theirs["W_scale"] == pytest.approx(math.sqrt(own["n_evals"] / factor / own["norm"]))
        assert theirs["ww_softrank"] == pytest.approx(own["rand_soft_rank"])
        assert theirs["rand_distance"] == pytest.approx(own["rand_distance"])
        for name in ("stable_rank", "matrix_rank", "rank_loss", "detX_num"):
            assert theirs[name] == pytest.approx(own[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": False},
        {"drop_largest": 4},
        {"xmax": 1e-4},
        {"fix_fingers": "clip_xmax"},
        {"estimator": "csn(5)"},
        {"estimator": "hill(9)"},
    ],
)
def test_where_the_threshold_bites_the_other_dialect_fits_its_own_points(
    options: dict[str, Any],
) -> None:
    W = kernel(24, 20, 3, 3, scale=4e-4)
    report = ps.analyze({"conv.weight": W}, **options)
    rows = report.rows("weightwatcher")
    differs = False
    for layer, row in zip(report.layers, rows, strict=True):
        factor = 0.5 if layer.slice_id is None else 4.5
        # A linear layer of this spectrum has no factor: its fit is what is wanted.
        x = layer.esd.evals * factor
        limit = {"xmax": options["xmax"] * factor} if "xmax" in options else {}
        alone = {k: v for k, v in options.items() if k not in ("pool", "xmax")} | limit
        same = ps.analyze({"fc.weight": np.diag(np.sqrt(x))}, min_evals=1, method="svd", **alone)
        (want,) = same.rows("weightwatcher")
        for name in ("alpha", "D", "sigma", "xmin", "xmax", "num_pl_spikes", "status"):
            if isinstance(want[name], str):
                assert row[name] == want[name]
            else:
                assert row[name] == pytest.approx(want[name], rel=1e-9), name
        differs |= layer.fit.n != np.count_nonzero(x > 1e-5)
    assert differs


def test_weak_rank_loss_counts_at_the_scale_of_each_dialect() -> None:
    # Eigenvalues between 1e-6 and 2e-6: small ones after halving only.
    s = np.sqrt(np.linspace(1.1e-6, 1.9e-6, 10))
    W = np.stack([np.diag(s), np.diag(s)], axis=-1)[..., None]
    (own,), (theirs,) = (
        ps.analyze({"conv.weight": W}).rows(dialect) for dialect in ("pyspectra", "weightwatcher")
    )
    assert (own["weak_rank_loss"], theirs["weak_rank_loss"]) == (0, 20)


def test_with_a_base_model_the_points_of_the_fit_are_the_same() -> None:
    base = kernel(24, 20, 3, 3)
    model = base + kernel(24, 20, 3, 3, scale=1e-5)[::-1]
    report = ps.analyze({"conv.weight": model}, base_model={"conv.weight": base})
    (own,), (theirs,) = report.rows(), report.rows("weightwatcher")
    assert own["status"] == "ok"
    assert own["xmax"] < 1e-5
    assert theirs["alpha"] == own["alpha"]
    assert theirs["xmin"] == pytest.approx(own["xmin"] / 2)


def test_no_other_module_has_a_factor_on_convolutions() -> None:
    """A receptive field times or over a number is WeightWatcher's factor: nobody else has one."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult)):
                continue
            sides = node.left, node.right
            fields = [n for n in sides if "rf" in (getattr(n, "id", ""), getattr(n, "attr", ""))]
            if fields and any(isinstance(n, ast.Constant) for n in sides):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"report/weightwatcher.py"}
