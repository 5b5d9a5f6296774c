"""Masks from scores: the very mask of np.percentile, on ties, zeros, subnormals and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import finetune as ref

from pyspectra import ops

torch = pytest.importorskip("torch")

from pyspectra.finetune import child_mask, select  # noqa: E402

TINY = float(np.float32(1e-45))  # the smallest subnormal
FEW = [0.0, -0.0, TINY, -TINY, 3 * TINY, 1e-38, 1.0, 1.0000001, 2.5, 3e38, -1.0]
INF = [math.inf, -math.inf]
P = st.one_of(st.sampled_from([0.3, 0.1, 0.42, 0.5, 1 / 3, 1.0, 1e-9]), st.floats(1e-6, 1.0))


def arrays(special: list[float]) -> st.SearchStrategy[Any]:
    elements = st.one_of(
        st.sampled_from(special), st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
    return hnp.arrays(np.float32, st.integers(1, 200), elements=elements, fill=st.nothing())


def split(flat: Any, cuts: list[int]) -> dict[str, Any]:
    """One array as several tensors, some of them empty."""
    parts = np.split(flat, sorted(min(c, len(flat)) for c in cuts))
    return {f"w{i}": torch.from_numpy(part.copy()) for i, part in enumerate(parts)}


def joined(masks: dict[str, Any]) -> Any:
    return np.concatenate([m.numpy() for m in masks.values()])


# --- against np.percentile ------------------------------------------------------------------------


@given(arrays(FEW), P, st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=300, deadline=None)
def test_the_global_mask_is_that_of_np_percentile(F: Any, p: float, cuts: list[int]) -> None:
    assume(F.any())
    # In float64 the interpolated threshold lies strictly between two neighbouring float32 scores,
    # unless the position is a whole number up to rounding: there the percentile is noise.
    position = (1.0 - p) * (len(F) - 1)
    as_numpy = (1.0 - p) * 100.0 / 100.0 * (len(F) - 1)
    assume(abs(position - round(position)) > 1e-4 or position == as_numpy == round(position))
    wide = F.astype(np.float64)
    expected = wide >= np.percentile(wide, (1.0 - p) * 100.0)
    assert np.array_equal(joined(child_mask(split(F, cuts), p)), expected)


@given(arrays(FEW + INF), P, st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=300, deadline=None)
def test_infinities_count_by_value(F: Any, p: float, cuts: list[int]) -> None:
    assume(F.any())
    assert np.array_equal(joined(child_mask(split(F, cuts), p)), ref.top(F, p))


@given(arrays(FEW + INF), P)
@settings(max_examples=100, deadline=None)
def test_bottom_mirrors_top(F: Any, p: float) -> None:
    assume(F.any())
    found = select({"w": torch.from_numpy(F)}, p, how="bottom")["w"].numpy()
    assert np.array_equal(found, ref.top(-F, p))


def test_positions_that_are_whole_up_to_rounding() -> None:
    """1 - 0.42 is 0.5800000000000001: 0.58 * 50 must still be 29, not just above it."""
    F = torch.arange(51, dtype=torch.float32)
    assert child_mask({"w": F}, 0.42)["w"].sum() == 51 - 29
    assert child_mask({"w": F[:4]}, 1 / 3)["w"].sum() == 2
    for size in (11, 101, 1001):
        for percent in range(1, 101):
            exact = -(-(100 - percent) * (size - 1) // 100)
            mask = child_mask({"w": torch.arange(size, dtype=torch.float32)}, percent / 100)["w"]
            assert mask.sum() == size - exact, (size, percent)


# --- the kernel -----------------------------------------------------------------------------------


SIZES = [(0, 1, 0), (65536, 65537, 3), (200_000, 1, 50_000)]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", SIZES)
def test_every_thread_count_finds_the_same_element(threads: int, sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    parts = [np.exp(9 * rng.standard_normal(n)).astype(np.float32) for n in sizes]
    for part in parts[::2]:
        part[::3] *= -1
        part[::5] = 0
    everything = np.sort(np.concatenate(parts))
    ops.set_num_threads(threads)
    for index in {0, len(everything) // 3, len(everything) - 1}:
        assert ops.order_statistic(parts, index) == (everything[index], -1)


def test_the_kernel_only_reads_and_refuses_a_position_out_of_range() -> None:
    a = np.array([3.0, 1.0, 2.0], np.float32)
    a.flags.writeable = False
    assert [ops.order_statistic([a], i)[0] for i in range(3)] == [1.0, 2.0, 3.0]
    for index in (-1, 3):
        with pytest.raises(ValueError, match="'index' is out of range"):
            ops.order_statistic([a], index)


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF])
def test_every_nan_is_seen(bits: int) -> None:
    nan = np.array([bits], np.uint32).view(np.float32)
    parts = [np.full(70_000, math.inf, np.float32), np.zeros(5, np.float32), nan]
    assert ops.order_statistic(parts, 0)[1] == 2
    assert ops.order_statistic([*parts, nan, nan], 0)[1] == 2
    assert ops.order_statistic(parts[:2], 0)[1] == -1


# --- scopes, draws, forms -------------------------------------------------------------------------


def scores(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (6, 40), "b": (5, 3, 9), "c": (31,), "d": ()}
    return {n: torch.randn(s, generator=generator) for n, s in shapes.items()}


@pytest.mark.parametrize("how", ["top", "bottom"])
def test_scopes(how: str) -> None:
    sign = 1 if how == "top" else -1
    given_scores = scores()
    whole = select(given_scores, 0.23, how=how)
    flat = np.concatenate([s.numpy().ravel() for s in given_scores.values()])
    assert np.array_equal(
        np.concatenate([m.numpy().ravel() for m in whole.values()]), ref.top(sign * flat, 0.23)
    )
    for name, mask in select(given_scores, 0.23, scope="tensor", how=how).items():
        F = given_scores[name].numpy()
        assert mask.dtype == torch.bool
        assert np.array_equal(mask.numpy(), ref.top(sign * F, 0.23))
    for name, mask in select(given_scores, 0.23, scope="row", how=how).items():
        F = given_scores[name].numpy()
        rows = F if F.ndim >= 2 else F[None]
        expected = np.stack([ref.top(sign * row, 0.23) for row in rows]).reshape(F.shape)
        assert np.array_equal(mask.numpy(), expected)


def test_child_mask_is_the_top_and_leaves_the_scores_alone() -> None:
    given_scores = scores()
    before = {n: s.clone() for n, s in given_scores.items()}
    for scope in ("global", "tensor", "row"):
        for name, mask in child_mask(given_scores, 0.4, scope).items():
            assert torch.equal(mask, select(given_scores, 0.4, scope=scope)[name])
    assert all(torch.equal(before[n], s) for n, s in given_scores.items())


def test_everything_is_selected_with_all_of_it() -> None:
    for how in ("top", "bottom", "random"):
        for scope in ("global", "tensor", "row"):
            assert all(m.all() for m in select(scores(), 1.0, scope=scope, how=how).values())


@pytest.mark.parametrize("scope", ["global", "tensor", "row"])
def test_random_selects_the_share_whatever_the_scores(scope: str) -> None:
    F = {"x": torch.zeros(300, 200), "y": torch.arange(40_000.0).reshape(200, 200)}
    masks = select(F, 0.3, scope=scope, how="random", seed=5)
    competitors = {"global": 100_000, "tensor": 40_000, "row": 200}[scope]
    k = competitors - ref.ascending_index(competitors, 0.3)
    if scope == "global":
        assert abs(sum(int(m.sum()) for m in masks.values()) - k) <= 2  # ties of 24-bit draws
    elif scope == "tensor":
        assert abs(int(masks["y"].sum()) - k) <= 2
    else:
        assert abs(masks["x"].sum(1) - k).max() <= 1
    # Neither half is favoured: 6 standard deviations of a hypergeometric count.
    halves = [int(masks["y"][:100].sum()), int(masks["y"][100:].sum())]
    assert abs(halves[0] - halves[1]) < 6 * math.sqrt(40_000 * 0.21)


def test_random_depends_on_seed_and_name_alone() -> None:
    F = {"x": torch.zeros(50, 50), "y": torch.ones(50, 50)}

    def draw(**kwargs: Any) -> Any:
        return select(F, 0.3, scope="tensor", how="random", **kwargs)

    first, again, other = draw(seed=5), draw(seed=5), draw(seed=6)
    assert torch.equal(first["x"], again["x"])
    assert not torch.equal(first["x"], other["x"])
    assert not torch.equal(first["x"], first["y"])
    alone = select({"y": torch.randn(50, 50)}, 0.3, scope="tensor", how="random", seed=5)
    assert torch.equal(alone["y"], first["y"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_and_strided_scores(dtype: Any) -> None:
    F = torch.randn(30, 20, generator=torch.Generator().manual_seed(3)).to(dtype).t()
    mask = child_mask({"w": F}, 0.3)["w"]
    assert mask.shape == F.shape
    assert np.array_equal(mask.numpy(), ref.top(F.float().numpy(), 0.3))


def test_draws_go_by_the_names_of_the_plain_model() -> None:
    F = {"a.weight": torch.ones(30, 20), "b.weight": torch.ones(50)}
    plain = select(F, 0.3, how="random", seed=2)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        wrapped = select({prefix + k: x for k, x in F.items()}, 0.3, how="random", seed=2)
        assert all(torch.equal(wrapped[prefix + k], mask) for k, mask in plain.items())


def test_scores_that_carry_a_gradient() -> None:
    F = torch.nn.Parameter(torch.arange(10.0))
    assert child_mask({"w": F}, 0.3)["w"].sum() == 3


def test_empty_tensors_get_empty_masks() -> None:
    F = {"w": torch.zeros(0, 4), "v": torch.zeros(0)}
    for scope in ("global", "tensor", "row"):
        masks = select(F, 0.3, scope=scope)
        assert [tuple(m.shape) for m in masks.values()] == [(0, 4), (0,)]


def test_numbers_of_any_library_are_taken() -> None:
    F = {"w": torch.randn(50, 50)}
    mask = select(F, np.float32(0.5), how="random", seed=np.int64(3))["w"]
    assert torch.equal(mask, select(F, 0.5, how="random", seed=3)["w"])
    assert select(F, 0.5, how="random", seed=2**64 - 1)["w"].any()


def test_random_parts_are_uniform_draws_of_24_bits() -> None:
    """No two of a million draws out of 2^24 tie more often than they should."""
    F = {"w": torch.zeros(1000, 1000)}
    mask = select(F, 0.3, how="random")["w"]
    assert 0 <= int(mask.sum()) - 300_000 <= 3


# --- refusals -------------------------------------------------------------------------------------

GOOD = {"w": torch.ones(3)}
ZERO = {"w": torch.zeros(3, 4), "v": torch.zeros(2)}
NAN = {"ok": torch.ones(2, 3), "bad": torch.tensor([[1.0, math.nan]])}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: select({}, 0.3), ValueError, "select: 'scores' must hold at least one tensor"),
        (lambda: child_mask(GOOD, 0.0), ValueError, r"child_mask: 'reserve_p' must be in \(0, 1\]"),
        (lambda: child_mask(GOOD, math.nan), ValueError, "'reserve_p'"),
        (lambda: child_mask(GOOD, 0.3, "layer"), ValueError, "child_mask: 'scope' must be one of"),
        (lambda: select(GOOD, 0.3, how="best"), ValueError, "select: 'how' must be one of"),
        (lambda: select(GOOD, 0.3, seed=-1), ValueError, "select: 'seed' must be an integer"),
        (lambda: select(GOOD, 0.3, seed=2**64), ValueError, "select: 'seed' must be an integer"),
        (lambda: select(GOOD, 0.3, seed=True), TypeError, "select: 'seed' must be an integer"),
        (
            lambda: child_mask({"w": torch.ones(3).double()}),
            TypeError,
            "'scores' must hold .* 'w'",
        ),
        (lambda: child_mask({"w": np.ones(3)}), TypeError, "got ndarray"),
        (lambda: child_mask(ZERO), ValueError, "child_mask: 'scores' must tell .* zeros alone"),
        (lambda: select(ZERO, 0.5, scope="row"), ValueError, "select: 'scores' must tell"),
        (lambda: select(ZERO, 0.5, how="bottom"), ValueError, "select: 'scores' must tell"),
        (lambda: child_mask(NAN), ValueError, "'scores' must not hold NaN, got some for 'bad'"),
        (lambda: child_mask(NAN, 0.3, "tensor"), ValueError, "not hold NaN, got some for 'bad'"),
        (lambda: child_mask(NAN, 0.3, "row"), ValueError, "not hold NaN, got some for 'bad'"),
    ],
)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bad", [torch.ones(3), [torch.ones(3)]], ids=["tensor", "list"])
def test_what_is_no_mapping_of_scores_is_named(bad: Any) -> None:
    with pytest.raises(TypeError, match="child_mask: 'scores' must be a mapping"):
        child_mask(bad)


@pytest.mark.parametrize("bad", ["a", None, True])
def test_a_part_that_is_no_number_is_named(bad: Any) -> None:
    with pytest.raises(TypeError, match="child_mask: 'reserve_p' must be in"):
        child_mask({"w": torch.ones(3)}, bad)
