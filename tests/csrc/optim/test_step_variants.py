"""Slices, statistics, masters and compact moments of the step kernel: the bits of their
specification, on every instruction set and for any number of threads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from csrc.optim.kernel_cases import DTYPES, arrays, column, options, row, run, widened
from reference import optim as ref

from pyspectra import ops

STATES = ("param", "exp_avg", "exp_avg_sq", "ema")


# --- slices of a tensor ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        ((13, 29), (0, 5, 6, 13)),
        ((37, 3), (0, 1, 2, 3)),
        ((5, 1111), (0, 2, 3, 5)),
        ((70, 515), (0, 11, 60, 70)),
    ],
)
def test_slices_take_the_step_of_the_whole(
    isa: str, shape: tuple[int, int], cuts: tuple[int, ...], axis: int, dtype: str
) -> None:
    rows, columns = shape
    settings = [
        options("adamw", keep=20_000, ema_decay=0.9, stochastic_rounding=dtype == "bfloat16")
    ]
    roles = "param grad exp_avg exp_avg_sq ema"
    whole = arrays(rows * columns, dtype)
    parts = [
        {
            k: np.ascontiguousarray(
                whole[k].reshape(shape)[(slice(None),) * axis + (slice(a, b),)]
            ).reshape(-1)
            for k in roles.split()
        }
        for a, b in zip(cuts, (*cuts[1:], shape[axis]), strict=True)
        if a < shape[axis] and a < b
    ]
    starts = [a for a, b in zip(cuts, (*cuts[1:], shape[axis]), strict=True) if a < b]
    table = []
    for part, start in zip(parts, starts, strict=True):
        r = row(part, dtype, roles=roles)
        if axis == 0:
            r[column("offset")] = start * columns
        else:
            r[column("offset")] = start
            r[column("run")] = part["param"].size // rows
            r[column("pitch")] = columns
        table.append(r)
    run([row(whole, dtype, roles=roles)], settings)
    run(table, settings)
    for k in STATES:
        joined = np.concatenate(
            [p[k].reshape((-1, columns) if axis == 0 else (rows, -1)) for p in parts], axis=axis
        )
        np.testing.assert_array_equal(joined, whole[k].reshape(shape), err_msg=k)


def test_impossible_slices_are_refused() -> None:
    a = arrays(64, "float32")
    for name, value in (("run", 0), ("pitch", 63)):
        r = row(a, "float32")
        r[column(name)] = value
        with pytest.raises(ValueError, match="'run' must be positive"):
            run([r], [options("adamw")])


# --- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["none", "F", "D", "D, decay in the child"])
def test_statistics_equal_the_reference_to_the_bit(isa: str, mode: str, dtype: str) -> None:
    S = np.float64 if dtype == "float64" else np.float32
    roles = "param grad exp_avg exp_avg_sq ema" + (" mask" if mode.startswith("D") else "")
    decay_masked = mode != "D, decay in the child"
    settings = [
        options(
            "adamw",
            keep=20_000 if mode == "F" else 0,
            decay_masked=decay_masked,
            ema_decay=0.9,
            grad_scale=0.7,
            lr=1e-5,
        )
    ]
    for threads in (1, 3):
        ops.set_num_threads(threads)
        many = [arrays(n, dtype, seed=n) for n in (0, 1, 7, 511, 4096, 4097, 30_011)]
        for a in many:
            a["grad"][::5] = 0
            a["exp_avg"][::10] = 0
        before = [widened(a["param"], dtype, S).copy() for a in many]
        got = run([row(a, dtype, roles=roles) for a in many], settings, statistics=True)
        assert got.shape == (len(many), len(ops.STATISTICS_COLUMNS))
        for a, old, values in zip(many, before, got, strict=True):
            n = old.size
            decays = np.ones(n, bool)
            if not decay_masked:
                decays = np.unpackbits(a["mask"], bitorder="little")[:n].astype(bool)
            want = ref.statistics(
                widened(a["grad"], dtype, S),
                old,
                widened(a["param"], dtype, S),
                a["exp_avg"],
                decays,
                True,
            )
            assert dict(zip(ops.STATISTICS_COLUMNS, values.tolist(), strict=True)) == want
            if n > 4000:
                assert want["zero"] > 0
                assert (want["rounded_away"] > 0) == (dtype != "float64")


def test_statistics_change_no_bit_of_the_step(isa: str) -> None:
    for dtype in DTYPES:
        a, b = arrays(9000, dtype), arrays(9000, dtype)
        roles = "param grad exp_avg exp_avg_sq ema"
        settings = [options("adamw", keep=30_000, ema_decay=0.8)]
        assert run([row(a, dtype, roles=roles)], settings).shape[0] == 0
        run([row(b, dtype, roles=roles)], settings, statistics=True)
        for k in STATES:
            np.testing.assert_array_equal(a[k], b[k])


def test_statistics_count_what_is_not_finite(isa: str) -> None:
    a = arrays(1000, "float32")
    a["grad"][[3, 500]] = np.nan, -np.inf
    got = run([row(a, "float32")], [options("adamw")], statistics=True)[0]
    values = dict(zip(ops.STATISTICS_COLUMNS, got, strict=True))
    assert values["non_finite"] == 2
    assert values["grad_max"] == np.inf
    assert np.isnan(values["grad_squares"])
    a = arrays(1000, "float32")
    a["grad"][7] = np.nan
    got = run([row(a, "float32")], [options("adamw")], statistics=True)[0]
    assert got[ops.STATISTICS_COLUMNS.index("grad_max")] == np.nanmax(np.abs(a["grad"]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_squares_equal_the_reference_to_the_bit(isa: str, dtype: str) -> None:
    S = np.float64 if dtype == "float64" else np.float32
    for threads in (1, 4):
        ops.set_num_threads(threads)
        many = [arrays(n, dtype, seed=n) for n in (0, 1, 9, 4095, 4097, 60_001)]
        got = ops.optim_grad_squares(ops.optim_table([row(a, dtype) for a in many]))
        want = [ref.blocked_sum(widened(a["grad"], dtype, S).astype(np.float64) ** 2) for a in many]
        assert got.tolist() == want


# --- masters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_master_moves_as_a_float32_parameter(isa: str, dtype: str, stochastic: bool) -> None:
    n = 3001
    wide, narrow = arrays(n, "float32"), arrays(n, dtype)
    wide["grad"] = widened(narrow["grad"], dtype, np.float32).copy()
    narrow["master"] = wide["param"].copy()
    roles = "param grad exp_avg exp_avg_sq ema"
    changes = {"keep": 20_000, "ema_decay": 0.9, "stochastic_rounding": stochastic}
    run([row(wide, "float32", roles=roles)], [options("adamw", **changes)])
    run([row(narrow, dtype, roles=roles + " master")], [options("adamw", **changes)])
    for k in ("exp_avg", "exp_avg_sq", "ema"):
        np.testing.assert_array_equal(wide[k], narrow[k])
    np.testing.assert_array_equal(wide["param"], narrow["master"])
    if dtype == "float16":
        want = wide["param"].astype(np.float16)
    else:
        r = row(narrow, dtype)
        random = ref.draws(r[column("key")], 5, 1, 0, n) if stochastic else None
        want = ref.to_bfloat16(wide["param"], random)
    np.testing.assert_array_equal(narrow["param"], want)


def test_masters_of_wide_parameters_are_refused() -> None:
    a = arrays(8, "float32")
    a["master"] = a["param"].copy()
    with pytest.raises(ValueError, match="'master' is for parameters of 16 bits"):
        run([row(a, "float32", roles="param grad exp_avg exp_avg_sq master")], [options("adamw")])


# --- compact moments ------------------------------------------------------------------------------


def compacted(a: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    child = np.unpackbits(a["mask"], bitorder="little")[: a["param"].size].astype(bool)
    b = {k: x.copy() for k, x in a.items()}
    for k in ("exp_avg", "exp_avg_sq"):
        a[k][~child] = 0
        b[k] = a[k][child]
    return b, child


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["adamw", "adamw_alicemind"])
@pytest.mark.parametrize("decay_masked", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_compact_moments_take_the_step_of_whole_ones(
    isa: str, rule: str, dtype: str, decay_masked: bool, share: float
) -> None:
    roles = "param grad exp_avg exp_avg_sq ema mask"
    ops.set_num_threads(2)
    pairs = []
    for n in (1, 7, 8, 513, 1000, 40_003):
        a = arrays(n, dtype)
        a["param"][::3] = 0
        bits = np.random.default_rng(n).random(n) < share
        a["mask"] = np.packbits(bits, bitorder="little")
        pairs.append((a, *compacted(a)))
    for step in (5, 6):
        settings = [
            options(
                rule,
                step=step,
                decay_masked=decay_masked,
                ema_decay=0.9,
                grad_scale=0.6,
                stochastic_rounding=dtype == "bfloat16",
            )
        ]
        table = []
        for _, b, child in pairs:
            r = row(b, dtype, roles=roles)
            r[column("children")] = int(child.sum())
            table.append(r)
        whole = run([row(a, dtype, roles=roles) for a, _, _ in pairs], settings, statistics=True)
        small = run(table, settings, statistics=step == 5)
        if step == 5:
            np.testing.assert_array_equal(whole, small)
    for a, b, child in pairs:
        for k in ("param", "ema"):
            np.testing.assert_array_equal(a[k], b[k], err_msg=k)
        for k in ("exp_avg", "exp_avg_sq"):
            np.testing.assert_array_equal(a[k][child], b[k], err_msg=k)
            assert not a[k][~child].any()


def test_compact_moments_that_do_not_fit_are_refused() -> None:
    a = arrays(1000, "float32")
    b, child = compacted(a)
    roles = "param grad exp_avg exp_avg_sq mask"
    before = b["param"].copy()

    def refused(message: str, children: int, roles: str = roles, rule: str = "adamw") -> None:
        r = row(b, "float32", roles=roles)
        r[column("children")] = children
        with pytest.raises(ValueError, match=re.escape(message)):
            run([r], [options(rule)])
        np.testing.assert_array_equal(b["param"], before)

    n = int(child.sum())
    refused(f"'mask' has {n} ones, but the moments have {n + 1}", n + 1)
    refused("compact moments are for AdamW", n, rule="adam")
    refused("compact moments are for AdamW", n, roles="param grad exp_avg exp_avg_sq")
