"""Which values are tried: all of a grid, random ones, or finer and finer ones around the best."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from pyspectra._support.arguments import (
    as_number,
    check_choice,
    check_count,
    check_number,
    check_probability,
    check_seed,
    shown,
)
from pyspectra._support.random import Purpose, generator
from pyspectra.errors import ArgumentTypeError, called_as
from pyspectra.training.search.space import Choice, Range, Searched, Space, as_space, label_of
from pyspectra.training.search.trials import Trial, Trials
from pyspectra.types import FloatArray

__all__ = ["grid", "narrowed", "random", "refine"]

Values = dict[str, Any]

LEAST = 3
"""Trials that count as the best, at least: one or two of ten say too little of a choice."""


def grid(space: Searched, points: int = 5) -> Iterator[Values]:
    """Yield every combination of the points of ranges and of the values of choices.

    Parameters
    ----------
    space : Space or mapping of str to Range or Choice
    points : int
        Points of each range: its ends, and others at equal distances or equal ratios.

    Yields
    ------
    dict
        Value of each key; the last key changes fastest.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from pyspectra.training import search
    >>> space = {"lr": search.Range(1e-3, 1e-1, log=True), "act": search.Choice(["relu", "gelu"])}
    >>> for values in search.grid(space, points=2):
    ...     print(values)
    {'lr': 0.001, 'act': 'relu'}
    {'lr': 0.001, 'act': 'gelu'}
    {'lr': 0.1, 'act': 'relu'}
    {'lr': 0.1, 'act': 'gelu'}
    """
    searched, count = as_space("grid", space), check_count("grid", "points", points)
    axes = [one.grid(count) for one in searched.values()]
    return (dict(zip(searched, point, strict=True)) for point in itertools.product(*axes))


def random(
    space: Searched, n: int, *, seed: int = 0, method: str = "independent"
) -> Iterator[Values]:
    """Yield random values: the i-th trial of a seed is always the same.

    Parameters
    ----------
    space : Space or mapping of str to Range or Choice
    n : int
        Number of trials. A larger one goes on where a smaller one ends.
    seed : int
        Seed of every draw.
    method : {"independent", "sobol"}
        Whether trials know nothing of one another, or fill the space more evenly: points of Sobol',
        shifted at random, which leave smaller gaps, of each key alone above all.

    Yields
    ------
    dict
        Value of each key. With independent draws they do not change when the space gets further
        keys.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind or out of range.

    Notes
    -----
    Random trials find good values sooner than a grid where few of the keys matter, for each trial
    has another value of those: Bergstra, Bengio, "Random search for hyper-parameter optimization",
    JMLR 13 (2012).

    Examples
    --------
    >>> from pyspectra.training import search
    >>> space = {"lr": search.Range(1e-4, 1e-1, log=True)}
    >>> [round(values["lr"], 4) for values in search.random(space, 3, seed=1)]
    [0.0005, 0.0013, 0.0167]
    """
    return _drawn("random", space, n, seed, method, 0)


def _drawn(
    function: str, space: Searched, n: int, seed: int, method: str, stage: int
) -> Iterator[Values]:
    searched = as_space(function, space)
    count, key = check_count(function, "n", n), check_seed(function, "seed", seed)
    positions = _METHODS[check_choice(function, "method", method, tuple(_METHODS))]
    return (
        {
            name: one.at(position)
            for (name, one), position in zip(searched.items(), row, strict=True)
        }
        for row in positions(tuple(searched), count, key, stage)
    )


def _independent(names: tuple[str, ...], n: int, seed: int, stage: int) -> Iterator[list[float]]:
    for i in range(n):
        yield [generator(Purpose.SEARCH, seed, name, stage, i).random() for name in names]


def _sobol(names: tuple[str, ...], n: int, seed: int, stage: int) -> Iterator[FloatArray]:
    shifts = [generator(Purpose.SEARCH, seed, name, stage, 0).random() for name in names]
    for i in range(n):
        yield (_sobol_points(len(names), max(i, 1).bit_length())[i] + shifts) % 1.0


_METHODS: Final[dict[str, Callable[..., Iterator[Any]]]] = {
    "independent": _independent,
    "sobol": _sobol,
}
"""Ways of drawing: each yields a row of positions in [0, 1) for each trial, one for each name."""


@functools.lru_cache(maxsize=2)
def _sobol_points(dimensions: int, log2: int) -> FloatArray:
    """Return the first points of Sobol' as they are: the random shift is ours, and stays so."""
    from scipy.stats import qmc

    points: FloatArray = qmc.Sobol(dimensions, scramble=False).random_base2(log2)
    return points


def refine(
    space: Searched,
    trials: Trials,
    n: int,
    *,
    rounds: int = 3,
    seed: int = 0,
    best: float = 0.1,
    factor: float = 1 / 3,
    method: str = "independent",
) -> Iterator[Values]:
    """Yield random values, each round of them from a smaller space around the best so far.

    Parameters
    ----------
    space : Space or mapping of str to Range or Choice
    trials : Trials
        Where the caller puts the result of each trial before asking for the next round. Trials that
        it has already are not yielded again, so that a search which was stopped goes on.
    n : int
        Trials in each round.
    rounds : int
        Number of rounds.
    seed : int
        Seed of every draw.
    best, factor : float
        As for `narrowed`.
    method : {"independent", "sobol"}
        As for `random`.

    Yields
    ------
    dict
        Value of each key.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from pyspectra.training import search
    >>> space = {"lr": search.Range(1e-6, 1.0, log=True)}
    >>> trials = search.Trials()
    >>> for values in search.refine(space, trials, 20):
    ...     trials.add(values, abs(values["lr"] - 3e-3))
    >>> len(trials), f"{trials.best.values['lr']:.1g}"
    (60, '0.003')
    """
    searched = as_space("refine", space)
    if not isinstance(trials, Trials):
        raise ArgumentTypeError("refine", "trials", "be Trials", shown(trials))
    last = check_count("refine", "rounds", rounds) - 1
    _drawn("refine", searched, n, seed, method, last)  # checks these now, not in the first trial
    with called_as("refine"):
        _checked_shrinking(best, factor)
    stages = [
        functools.partial(_drawn, "refine", n=n, seed=seed, method=method, stage=stage)
        for stage in range(rounds)
    ]
    return _rounds(searched, trials, stages, best, factor)


def _rounds(
    space: Space, trials: Trials, stages: list[Any], best: float, factor: float
) -> Iterator[Values]:
    current, seen = space, dict[str, Trial]()  # of equal values, which small spaces repeat, one
    for stage in stages:
        drawn = list(stage(current))
        yield from trials.missing(drawn)
        for values in drawn:
            if (found := trials.get(values)) is not None:
                seen[label_of("refine", "trials", values)] = found
        current = narrowed(
            current, seen.values(), best=best, factor=factor, better=trials.better, within=space
        )


def narrowed(
    space: Searched,
    trials: Iterable[Trial],
    *,
    best: float = 0.1,
    factor: float = 1 / 3,
    better: str = "lower",
    within: Searched | None = None,
) -> Space:
    """Return a smaller space around the best trials.

    Parameters
    ----------
    space : Space or mapping of str to Range or Choice
        The space that the last trials came from.
    trials : iterable of Trial
        With values of all keys of the space. Those that failed (their result is not finite) are
        passed over.
    best : float
        Share of the trials that are the best ones: three at least (of fewer than six, the better
        half), and all that equal the last of them.
    factor : float
        A range becomes so much of what it was, in logarithms if it is logarithmic, with the median
        of the best in its middle, and the very best trial in it.
    better : {"lower", "higher"}
        Which results are better.
    within : Space or mapping, optional
        Bounds that no range leaves; `space` by default. With the space of the first round the
        smaller space may reach over the edge of the last one, where the best stand at it.

    Returns
    -------
    Space
        Choices keep the values that are among the best. It is `space` if all trials failed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from pyspectra.training import search
    >>> space = {"lr": search.Range(1e-6, 1.0, log=True)}
    >>> trials = [search.Trial({"lr": 10.0**-k}, abs(k - 3)) for k in range(7)]
    >>> search.narrowed(space, trials)["lr"]
    Range(low=0.0001, high=0.01, log=True, integer=False)
    """
    searched = as_space("narrowed", space)
    outer = searched if within is None else as_space("narrowed", within)
    share, part = _checked_shrinking(best, factor)
    check_choice("narrowed", "better", better, ("lower", "higher"))
    sign = 1.0 if better == "lower" else -1.0
    ranked = sorted((t for t in trials if not t.failed), key=lambda t: sign * t.result)
    if not ranked:
        return searched
    count = max(math.ceil(share * len(ranked)), min(LEAST, math.ceil(len(ranked) / 2)))
    worst = ranked[count - 1].result
    chosen = [t.values for t in ranked if sign * t.result <= sign * worst]
    return searched.replaced({
        name: _around([values[name] for values in chosen], one, outer[name], part)
        for name, one in searched.items()
    })  # fmt: skip


def _checked_shrinking(best: Any, factor: Any) -> tuple[float, float]:
    return (
        check_probability("narrowed", "best", best),
        check_number("narrowed", "factor", factor, above=0.0, below=1.0),
    )


def _around(values: list[Any], one: Range | Choice, outer: Range | Choice, part: float) -> Any:
    if isinstance(one, Choice):
        labels = {label_of("narrowed", "trials", value) for value in values}
        kept = [c for c in one.choices if label_of("narrowed", "trials", c) in labels]
        return Choice(kept or one.choices)
    assert isinstance(outer, Range)
    width = part * (outer.position(one.high) - outer.position(one.low))
    positions = [outer.position(_number(value)) for value in values]
    first = positions[0]
    middle = min(max(statistics.median(positions), first - width / 2), first + width / 2)
    low = min(max(middle - width / 2, 0.0), 1.0 - width)
    ends = outer.at(low), outer.at(low + width)
    # Rounding must not put the best trial outside.
    return Range(min(*ends, values[0]), max(*ends, values[0]), log=one.log, integer=one.integer)


def _number(value: Any) -> float:
    number = as_number(value)
    if number is None:
        raise ArgumentTypeError("narrowed", "trials", "have numbers in ranges", shown(value))
    return number
