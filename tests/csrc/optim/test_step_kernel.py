"""The fused step against its numpy specification: the same bits on every instruction set, thread
count and cut into pieces."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from csrc.optim.kernel_cases import BASE, DTYPES, KEY, arrays, column, options, row, run, widened
from reference import optim as ref

from pyspectra import ops

SIZES = (0, 1, 7, 64, 127, 128, 129, 511, 513, 1000, 40_001)
RULES = ("adamw", "adamw_alicemind", "adam", "sgd", "sgd_momentum")


def expected(
    a: dict[str, Any],
    rule: str,
    dtype: str,
    *,
    keep: int = 0,
    child: bool = False,
    decay_masked: bool = True,
    decay: float | None = None,
    scale: float = 1.0,
    stochastic: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    S = np.float64 if dtype == "float64" else np.float32
    o: dict[str, Any] = {**BASE, **changes}
    n = a["param"].size
    p, g = widened(a["param"], dtype, S), widened(a["grad"], dtype, S) * S(scale)
    if keep:
        kept = ref.draws(KEY, o["step"], 0, 0, n) < keep
        g = g * np.where(kept, S(65536 / keep), S(0))
    if child:
        bits = np.unpackbits(a["mask"], bitorder="little")[:n].astype(bool)
        g = g * bits.astype(S)
        if not decay_masked:
            o["decays"] = bits
    p, m, v = ref.rule(rule, p, g, a["exp_avg"], a["exp_avg_sq"], o, S)
    out = {"exp_avg": m, "exp_avg_sq": v, "ema": a["ema"], "grad": a["grad"]}
    if dtype == "bfloat16":
        random = ref.draws(KEY, o["step"], 1, 0, n) if stochastic else None
        out["param"] = ref.to_bfloat16(p, random)
    else:
        out["param"] = p.astype(a["param"].dtype)
    if decay is not None:
        out["ema"] = ref.ema(a["ema"], widened(out["param"], dtype, S), decay, S)
    return out


def assert_same(a: dict[str, Any], want: dict[str, Any]) -> None:
    for name, x in want.items():
        np.testing.assert_array_equal(a[name], x, err_msg=name, strict=True)


def test_philox_known_answers(isa: str) -> None:
    """The vectors published with Random123 (kat_vectors, philox4x32 10).

    The specification has them all, the kernel the one whose counter its draws can have.
    """
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    known = {
        ((0,) * 4, (0,) * 2): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ((ref.M32,) * 4, (ref.M32,) * 2): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        pi: (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    }
    for (counter, key), words in known.items():
        assert ref.philox4x32(counter, key) == words
    draws = ops.random_draws(0, 0, 0, 0, 128)
    zeros = np.concatenate([draws[:4], draws[64:68]])  # the eight of one counter
    assert zeros.view("<u4").tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("offset", [0, 1, 127, 128, 5_000_000_001, 2**35 - 70])
def test_draws_are_the_reference_draws(isa: str, offset: int) -> None:
    for stream in (0, 1):
        got = ops.random_draws(KEY, 77, stream, offset, 300)
        np.testing.assert_array_equal(got, ref.draws(KEY, 77, stream, offset, 300))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_rules_equal_the_reference_to_the_bit(isa: str, rule: str, dtype: str) -> None:
    moments = ("exp_avg", "exp_avg_sq")[: len(ops.OPTIM_RULES[rule].moments)]
    roles = " ".join(("param grad ema", *moments))
    for n in SIZES:
        a = arrays(n, dtype)
        want = expected(a, rule, dtype, decay=0.9, scale=0.6)
        run([row(a, dtype, roles=roles)], [options(rule, ema_decay=0.9, grad_scale=0.6)])
        assert_same(a, want)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_sgd_equals_torch(step: int, nesterov: bool) -> None:
    torch = pytest.importorskip("torch")
    a = arrays(1000, "float64")
    damp = 0.0 if nesterov else 0.15
    if step == 1:
        a["exp_avg"][:] = 0.0
    p = torch.nn.Parameter(torch.from_numpy(a["param"].copy()))
    p.grad = torch.from_numpy(a["grad"].copy())
    settings = {"momentum": 0.8, "dampening": damp, "nesterov": nesterov}
    opt = torch.optim.SGD([p], lr=0.013, weight_decay=0.07, **settings)
    if step > 1:
        opt.state[p]["momentum_buffer"] = torch.from_numpy(a["exp_avg"].copy())
    opt.step()
    run(
        [row(a, "float64", roles="param grad exp_avg")],
        [options("sgd_momentum", step=step, **settings)],
    )
    np.testing.assert_allclose(a["param"], p.detach().numpy(), rtol=1e-14, atol=1e-15)


# The case of the betas: what is small beside the old moment must not be lost.
@pytest.mark.parametrize("beta1", [0.0, 0.05, 0.3, 0.4999, 0.5, 0.5001, 0.9])
@pytest.mark.parametrize("rule", ["adam", "adamw", "adamw_alicemind"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_small_gradient_after_a_large_one(isa: str, rule: str, dtype: str, beta1: float) -> None:
    a = arrays(300, dtype)
    a["exp_avg"][:] = 1e6
    a["grad"][:] = 1e-3
    roles = "param grad exp_avg exp_avg_sq"
    exact = beta1 * 1e6 + (1 - beta1) * 1e-3
    changes = {"beta1": beta1, "weight_decay": 0.0}
    want = expected(a, rule, dtype, **changes)
    run([row(a, dtype, roles=roles)], [options(rule, **changes)])
    assert_same(a, {k: want[k] for k in ("param", "exp_avg", "exp_avg_sq")})
    np.testing.assert_allclose(a["exp_avg"], exact, rtol=1e-6)


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_momentum_begins_with_the_whole_gradient(isa: str, start: int) -> None:
    a = arrays(300, "float32")
    changes = {"momentum": 0.8, "dampening": 0.3, "step": 3, "momentum_start": start}
    want = expected(a, "sgd_momentum", "float32", **changes)
    run([row(a, "float32", roles="param grad exp_avg")], [options("sgd_momentum", **changes)])
    assert_same(a, {k: want[k] for k in ("param", "exp_avg")})


def test_sgd_without_momentum() -> None:
    a = arrays(1000, "float32")
    want = expected(a, "sgd", "float32")
    run([row(a, "float32", roles="param grad")], [options("sgd")])
    assert_same(a, want)


def test_adam_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    a = arrays(1000, "float64")
    p = torch.nn.Parameter(torch.from_numpy(a["param"].copy()))
    p.grad = torch.from_numpy(a["grad"].copy())
    opt = torch.optim.Adam([p], lr=0.013, betas=(0.87, 0.985), eps=3e-6, weight_decay=0.07)
    opt.state[p] = {
        "step": torch.tensor(4.0),
        "exp_avg": torch.from_numpy(a["exp_avg"].copy()),
        "exp_avg_sq": torch.from_numpy(a["exp_avg_sq"].copy()),
    }
    opt.step()
    run([row(a, "float64")], [options("adam")])
    np.testing.assert_allclose(a["param"], p.detach().numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["adamw", "adamw_alicemind", "adam"])
def test_masks_equal_the_reference_to_the_bit(isa: str, rule: str, dtype: str) -> None:
    roles = "param grad exp_avg exp_avg_sq ema"
    for n in (1, 127, 700, 2049):
        a = arrays(n, dtype)
        want = expected(a, rule, dtype, keep=20_000, decay=0.99)
        run([row(a, dtype, roles=roles)], [options(rule, keep=20_000, ema_decay=0.99)])
        assert_same(a, want)
        for decay_masked in (True, False):
            a = arrays(n, dtype)
            want = expected(a, rule, dtype, child=True, decay_masked=decay_masked)
            run(
                [row(a, dtype, roles="param grad exp_avg exp_avg_sq mask")],
                [options(rule, decay_masked=decay_masked)],
            )
            assert_same(a, want)


def test_stochastic_rounding_is_the_reference_and_unbiased(isa: str) -> None:
    a = arrays(3000, "bfloat16")
    want = expected(a, "adamw", "bfloat16", stochastic=True, decay=0.9)
    run(
        [row(a, "bfloat16", roles="param grad exp_avg exp_avg_sq ema")],
        [options("adamw", stochastic_rounding=True, ema_decay=0.9)],
    )
    assert_same(a, want)
    # 1 moves by -2^-11, an eighth of the spacing below it: an eighth of the weights step down.
    n = 80_000
    b = arrays(n, "bfloat16")
    b["param"][:], b["grad"][:] = 0x3F80, 0x3F80
    run(
        [row(b, "bfloat16", roles="param grad")],
        [options("sgd", weight_decay=0.0, lr=2.0**-11, stochastic_rounding=True)],
    )
    moved = np.mean(b["param"] == 0x3F7F)
    assert set(np.unique(b["param"])) == {0x3F7F, 0x3F80}
    assert abs(moved - 0.125) < 5 * (0.125 * 0.875 / n) ** 0.5


def test_special_values_survive(isa: str) -> None:
    special = np.array([np.nan, np.inf, -np.inf, 1.0, -0.0, 65519.9, 65520.0, 1e-7, 3e-8, 2.9e-8])
    x = np.resize(special, 600).astype(np.float32)
    for dtype, stored in (("float16", np.float16), ("float32", np.float32)):
        with np.errstate(over="ignore", invalid="ignore"):
            a = arrays(600, dtype)
            a["grad"] = x.astype(stored)
            a["param"][:] = 0
            run(
                [row(a, dtype, roles="param grad")],
                [options("sgd", weight_decay=0.0, lr=-1.0)],
            )
            np.testing.assert_array_equal(a["param"], x.astype(stored) + stored(0))
    # A mask hides no NaN: 0 * NaN is NaN, wherever the draw falls.
    a = arrays(600, "float32")
    a["grad"][:] = np.nan
    run([row(a, "float32")], [options("adamw", keep=3)])
    assert np.all(np.isnan(a["param"]))


def test_float16_rounding_of_every_interval() -> None:
    """Midpoints, and their neighbours, between all finite float16 values."""
    bits = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    up = (np.arange(0x7BFF, dtype=np.uint16) + 1).astype(np.uint16).view(np.float16)
    middle = (bits + up.astype(np.float32)) / 2
    for name in ops.available_isas():
        ops.set_isa(name)
        for x in (middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf), -middle):
            # The parameter is 0 and the first moment holds x: one step of p - 1 * (-x).
            a = arrays(x.size, "float16")
            a["param"][:], a["grad"][:] = 0, 0
            a["exp_avg"][:] = x.astype(np.float32)
            run(
                [row(a, "float16", roles="param grad exp_avg")],
                [options("sgd_momentum", momentum=1.0, nesterov=False, weight_decay=0.0, lr=-1.0)],
            )
            np.testing.assert_array_equal(a["param"], x.astype(np.float16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_thread_count_and_instruction_set(dtype: str) -> None:
    results = []
    for name in ops.available_isas():
        for threads in (1, 2, 5):
            ops.set_isa(name)
            ops.set_num_threads(threads)
            # Many small tensors and two large ones, each with other options.
            many = [arrays(n, dtype, seed=k) for k, n in enumerate([*range(0, 300, 7), 50_001, 17])]
            settings = [options("adamw", keep=30_000, ema_decay=0.9), options("adamw_alicemind")]
            roles = "param grad exp_avg exp_avg_sq ema"
            for _ in range(3):
                run(
                    [row(a, dtype, roles=roles, option=k % 2) for k, a in enumerate(many)], settings
                )
            results.append([a[k].tobytes() for a in many for k in ("param", "exp_avg", "ema")])
    assert all(r == results[0] for r in results[1:])


@pytest.mark.parametrize("cuts", [(0, 1000, 5000), (0, 1, 129, 130, 4999, 5000), (0, 640, 5000)])
def test_one_piece_or_many_give_the_same_mask(isa: str, cuts: tuple[int, ...]) -> None:
    whole, parts = arrays(5000, "float32"), arrays(5000, "float32")
    settings = [options("adamw", keep=20_000)]
    run([row(whole, "float32")], settings)
    rows = []
    for begin, end in itertools.pairwise(cuts):
        piece = {k: x[begin:end] for k, x in parts.items()}
        r = row(piece, "float32")
        r[column("offset")] = begin
        rows.append(r)
    run(rows, settings)
    for name in ("param", "exp_avg", "exp_avg_sq"):
        np.testing.assert_array_equal(whole[name], parts[name])


def test_draws_are_bernoulli_and_independent() -> None:
    n, p = 400_000, 0.3
    keep = round(p * 65536)
    first = ops.random_draws(KEY, 1, 0, 0, n) < keep
    sigma = (p * (1 - p) / n) ** 0.5
    assert abs(first.mean() - p) < 5 * sigma
    others = (
        ops.random_draws(KEY, 2, 0, 0, n) < keep,
        ops.random_draws(KEY + 1, 1, 0, 0, n) < keep,
        np.roll(first, 1),
        np.roll(first, 16),
        np.roll(first, 128),
    )
    for other in others:
        both = np.mean(first & other)
        assert abs(both - p * p) < 5 * (p * p * (1 - p * p) / n) ** 0.5


# --- the memory contract --------------------------------------------------------------------------


def refused(message: str, rows: list[list[int]], settings: Any = None) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(rows, settings or [options("adamw")])


def test_overlaps_and_missing_arrays_are_refused_before_anything_moves() -> None:
    a, b = arrays(100, "float32"), arrays(100, "float32", seed=1)
    before = {k: x.copy() for k, x in a.items()}
    good = row(a, "float32")
    refused("of tensor 0. Hint: arrays that are written must not share memory", [good, good])
    refused("'exp_avg_sq' overlaps 'exp_avg'", [[*good[:3], good[2], *good[4:]]])
    refused("overlaps", [[*good[:3], good[2] + 200, *good[4:]]])
    refused("'param' overlaps 'grad'", [[good[1] + 4, *good[1:]]])
    refused("'exp_avg' is needed", [[*good[:2], 0, *good[3:]]])
    refused("'exp_avg_sq' is needed", [[*good[:3], 0, *good[4:]]])
    refused("'param' and 'grad' are needed", [[good[0], 0, *good[2:]]])
    refused("not aligned", [[*good[:2], good[2] + 2, *good[3:]]])
    refused("'options' is out of range", [[*good[:-1], 1]])
    refused("unknown dtype", [[*good[:-2], 4, 0]])
    with pytest.raises(ValueError, match="15 columns"):
        ops.optim_step(ops.optim_table([good])[:, :10].copy(), [options("adamw")])
    refused("'step'", [good], [options("adamw", step=0)])
    refused("'step'", [good], [options("adamw", step=2**32)])
    refused("'keep'", [good], [options("adamw", keep=65537)])
    with_mask = row(a, "float32", roles="param grad exp_avg exp_avg_sq mask")
    refused("both a drawn and a fixed mask", [with_mask], [options("adamw", keep=5)])
    for name, x in before.items():
        np.testing.assert_array_equal(a[name], x)
    shared = row(b, "float32")
    shared[1] = good[1]  # reading one gradient twice is no harm
    run([good, shared], [options("adamw")])


def test_rule_names_are_those_of_the_core() -> None:
    assert tuple(ops.OPTIM_RULES) == RULES
    assert ops.OPTIM_RULES["sgd_momentum"] == (4, ("momentum_buffer",), False)
    assert ops.OPTIM_RULES["adamw"] == (0, ("exp_avg", "exp_avg_sq"), True)
