"""Random permutations, randomised spectra against WeightWatcher's, and where traps are."""

import csv
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import synthetic_cases
from scipy import stats

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra import randomize

DATA = Path(__file__).parents[1] / "data"


def permuted(x, key=1):
    x = np.asarray(x)
    return ops.permute(HostArray(x, x.dtype.name), key).data


# --- the permutation ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (200, 3), (300, 250), (400, 700)])
def test_entries_are_kept(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y = permuted(x)
    assert y.shape == shape
    assert y.dtype == x.dtype
    assert np.array_equal(np.sort(y.ravel()), np.sort(x.ravel()))
    if x.size > 100:
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 6 / np.sqrt(x.size)


def test_strides_types_and_threads_do_not_matter():
    x = np.arange(330 * 401, dtype=np.float64).reshape(330, 401)
    expected = permuted(x)
    assert np.array_equal(permuted(np.asfortranarray(x)), expected)
    assert np.array_equal(permuted(np.repeat(x, 2, axis=1)[:, ::2]), expected)
    assert np.array_equal(permuted(x[::-1])[:, :5], (329 * 401 - 401 * (expected // 401)
                                                     + expected % 401)[:, :5])  # fmt: skip
    assert np.array_equal(permuted(x.astype(np.float32)), expected.astype(np.float32))
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        assert np.array_equal(permuted(x), expected)
    assert not np.array_equal(permuted(x, key=2), expected)


def test_bfloat16_bits_are_carried():
    bits = np.arange(600, dtype=np.uint16).reshape(20, 30)
    out = ops.permute(HostArray(bits, "bfloat16"), 3)
    assert out.dtype == "bfloat16"
    assert np.array_equal(np.sort(out.data.ravel()), bits.ravel())


def test_all_orders_are_equally_likely():
    x = np.arange(4.0).reshape(2, 2)
    count = Counter(tuple(permuted(x, key).ravel()) for key in range(24_000))
    assert set(count) == set(itertools.permutations(range(4)))
    assert stats.chisquare(list(count.values())).pvalue > 1e-4


def test_buckets_are_mixed_evenly():
    """Past the size of one bucket: where entries go does not depend on where they come from."""
    n, parts = 300 * 300, 12
    x = np.arange(float(n)).reshape(300, 300)
    table = np.zeros((parts, parts))
    for key in range(30):
        origin = permuted(x, key).ravel().astype(int) * parts // n
        np.add.at(table, (origin, np.arange(n) * parts // n), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


# --- randomised spectra ---------------------------------------------------------------------------


def reference_draws():
    out = defaultdict(dict)
    with open(DATA / "randomize_draws.csv", newline="") as file:
        for row in csv.DictReader(file):
            out[row["case"]][row["column"]] = np.array(row["values"].split(), dtype=float)
    return out


@pytest.mark.parametrize("case", synthetic_cases.cases())
def test_columns_are_distributed_as_the_reference(case):
    """Ten seeds of ours against twenty of WeightWatcher's: one distribution, by Kolmogorov."""
    W = synthetic_cases.cases()[case]
    rows = [
        ps.analyze({"w.weight": W}, randomize=True, seed=seed).rows("weightwatcher")[0]
        for seed in range(10)
    ]
    reference = reference_draws()[case]
    assert len(reference) == 11
    for column, theirs in reference.items():
        ours = np.array([row[column] for row in rows])
        if column == "rand_W_scale":  # the norm, which no permutation changes
            assert np.allclose(ours, theirs[0], rtol=1e-6), column
        else:
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-3, (column, ours, theirs)


def test_results_depend_on_seed_and_name_only():
    cases = synthetic_cases.cases()
    model = {
        "a.weight": cases["gauss_300x200_seed1"],
        "b.weight": cases["conv_64x32x3x3_seed8"],
        "c.weight": cases["small_40x12_seed11"],
    }
    state = np.random.get_state()[1].copy()
    options = {"randomize": True, "mp_fit": True}
    whole = {r["name"]: r for r in ps.analyze(model, **options).rows()}
    assert np.array_equal(np.random.get_state()[1], state)
    assert {r["name"]: r for r in ps.analyze(model, **options).rows()} == whole
    ops.set_num_threads(1)
    backwards = ps.analyze(dict(reversed(model.items())), **options).rows()
    for row in backwards:
        for column in ("rand_lambda_max", "rand_distance", "n_traps", "random_p_value"):
            assert row[column] == whole[row["name"]][column]
    other = ps.analyze(model, **options, seed=1).rows()[0]
    assert other["rand_lambda_max"] != whole["a"]["rand_lambda_max"]
    assert other["random_p_value"] == whole["a"]["random_p_value"]


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("pool", [True, False])
def test_own_columns(method, pool):
    W = synthetic_cases.cases()["conv_64x32x3x3_seed8"]
    report = ps.analyze({"w.weight": W}, randomize=True, pool=pool, method=method)
    assert len(report.layers) == (1 if pool else 9)
    layer = report.layers[0]
    assert len(layer.randomized.evals) == len(layer.esd.evals)
    assert layer.randomized.evals.sum() == pytest.approx(layer.esd.evals.sum())
    assert len(layer.randomized.all_evals) == (1 if pool else 5) * len(layer.esd.evals)
    m = layer.metrics
    assert m["rand_soft_rank"] == pytest.approx(m["rand_lambda_max"] / m["lambda_max"])
    assert 0.0 < m["rand_distance"] < 0.1
    assert m["n_traps"] == 0


def test_zero_and_broken_layers_do_not_stop_the_rest():
    W = np.random.default_rng(0).standard_normal((40, 20))
    broken = W.copy()
    broken[3, 4] = np.nan
    model = {"a.weight": np.zeros((30, 20)), "b.weight": broken, "c.weight": W}
    report = ps.analyze(model, randomize=True, mp_fit=True, vectors=True, detx=True)
    statuses = [str(layer.status) for layer in report.layers]
    assert statuses[1:] == ["not_finite", "ok"]
    report.rows("weightwatcher")
    assert np.isnan(report.layers[0].metrics["random_p_value"])
    assert report.layers[2].metrics["random_p_value"] > 1e-3


# --- traps ----------------------------------------------------------------------------------------


def planted(seed=0, shape=(120, 90), size=60.0):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal(shape)
    W[17, 23] = size
    return W


@pytest.mark.parametrize("transpose", [False, True])
def test_a_planted_entry_is_found(transpose):
    W = planted().T if transpose else planted()
    traps = ps.find_traps(W.astype(np.float32))
    assert len(traps) == 1
    (trap,) = traps
    assert (trap.rows, trap.cols) == (((23,), (17,)) if transpose else ((17,), (23,)))
    assert trap.values == (60.0,)
    assert trap.shares[0] > 0.9
    assert trap.eigenvalue > trap.threshold
    assert trap.removable[0] == pytest.approx(60.0, rel=0.1)


def test_several_traps_have_their_own_entries():
    W = planted()
    W[80, 3] = -45.0
    found = ps.find_traps(W, seed=5)
    assert [(t.rows[0], t.cols[0]) for t in found] == [(17, 23), (80, 3)]
    assert found[1].values[0] == -45.0


def test_a_random_matrix_has_no_trap():
    assert ps.find_traps(np.random.default_rng(1).standard_normal((100, 60))) == ()


def test_a_mean_is_carried_by_many_entries():
    W = np.random.default_rng(2).standard_normal((80, 60)) + 1.0
    (trap,) = ps.find_traps(W)
    assert len(trap.rows) > 500


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.ones(4), "must be a matrix"),
        (np.ones((0, 4)), "must be a matrix"),
        (np.array([[1.0, np.nan]]), "must be finite"),
    ],
)
def test_find_traps_refuses(W, message):
    with pytest.raises(ValueError, match=message):
        ps.find_traps(W)


def test_keys_differ():
    keys = {
        randomize.permutation_key(s, n, m, r)
        for s, n, m, r in itertools.product((0, 1, 11), ("a", "1", "a/1"), (0, 1, 11), (0, 1))
    }
    assert len(keys) == 54


@pytest.mark.parametrize("factor", [1e-200, 1e160])
def test_traps_of_entries_without_squares_are_refused(factor: float) -> None:
    W = np.random.default_rng(0).standard_normal((40, 30))
    W[3, 4] = 60.0
    assert len(ps.find_traps(W)) == 1
    with pytest.raises(ValueError, match="'W' must have squares in float64's range"):
        ps.find_traps(W * factor)
