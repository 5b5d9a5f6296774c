"""Where layers stand along an axis: by the number of their block, a line for each role."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspectra._support.text import pictured, shorten
from pyspectra.report.plot.axes import GREY, LINES, MARKERS, PALETTE, WIDE, colour, inches, sizes
from pyspectra.weights.roles import Place

MOST_ROLES = 10  # with a colour of their own
OTHER = "other"
LABEL_LENGTH = 30  # letters; in a column fewer


@dataclass(frozen=True)
class Spot:
    """Where a layer stands: its place along the axis, its role, and whether it is in a block."""

    x: float
    role: str
    in_block: bool


@dataclass(frozen=True)
class Layout:
    """Where the layers of a model stand along an axis.

    Attributes
    ----------
    spots : tuple of Spot
        One for each layer.
    roles : tuple of str
        The roles that have a line of their own, as the model has them; `OTHER` last, if there is.
    stacks : tuple of (str, float, tuple of int)
        Each stack of blocks: its name, where its block 0 would stand, and its blocks.
    """

    spots: tuple[Spot, ...]
    roles: tuple[str, ...]
    stacks: tuple[tuple[str, float, tuple[int, ...]], ...]

    @property
    def by_block(self) -> bool:
        """Whether most layers stand in blocks, so that the axis counts these."""
        return bool(self.stacks)


def layout(places: Sequence[Place], kinds: Sequence[str]) -> Layout:
    """Lay layers out by their places; by their order where most are in no block.

    Parameters
    ----------
    places : sequence of Place
        Of each layer, in the order of the model.
    kinds : sequence of str
        The kind of each, which stands for a role that is not known.
    """
    roles = [place.role or kind for place, kind in zip(places, kinds, strict=True)]
    common = [role for role, _ in Counter(roles).most_common()]
    kept = set(common if len(common) <= MOST_ROLES else common[: MOST_ROLES - 1])
    shown = [role if role in kept else OTHER for role in roles]
    order = tuple(dict.fromkeys(role for role in shown if role != OTHER))
    order += (OTHER,) if OTHER in shown else ()
    if 2 * sum(place.block is not None for place in places) < len(places):
        spots = tuple(Spot(float(i), role, False) for i, role in enumerate(shown))
        return Layout(spots, order, ())
    spots, stacks = _by_block(places, shown)
    return Layout(spots, order, stacks)


def _by_block(
    places: Sequence[Place], roles: Sequence[str]
) -> tuple[tuple[Spot, ...], tuple[tuple[str, float, tuple[int, ...]], ...]]:
    """Put each stack behind the one before, and layers outside of blocks between, in order."""
    blocks: dict[str, set[int]] = {}
    for place in places:
        if place.block is not None:
            blocks.setdefault(place.stack, set()).add(place.block)
    starts: dict[str, float] = {}
    end, spots = 0.0, []
    for place, role in zip(places, roles, strict=True):
        if place.block is None:
            spots.append(Spot(end, role, False))
            end += 1.0
            continue
        if place.stack not in starts:
            own = blocks[place.stack]
            starts[place.stack] = end - min(own)
            end += max(own) - min(own) + 1.0
        spots.append(Spot(starts[place.stack] + place.block, role, True))
    return tuple(spots), tuple(
        (stack, start, tuple(sorted(blocks[stack]))) for stack, start in starts.items()
    )


def label_axis(ax: Any, found: Layout, names: Sequence[str]) -> str:
    """Write block numbers or names along the axis; return what the axis is called."""
    first, last = min(s.x for s in found.spots), max(s.x for s in found.spots)
    margin = 0.02 * (last - first) + 0.6
    ax.set_xlim(first - margin, last + margin)
    room = inches(ax)[0] * 72.0
    if not found.by_block:
        every = max(1, math.ceil(len(names) * 1.5 * sizes(ax).tick / room))
        ticks = range(0, len(names), every)
        longest = LABEL_LENGTH if room > 72.0 * WIDE else LABEL_LENGTH // 2
        labels = [pictured(shorten(names[i], longest)) for i in ticks]
        if len(set(labels)) < len(labels):  # shortened to one another
            labels = [str(i) for i in ticks]
        ax.set_xticks(list(ticks), labels, rotation=90)
        return "layers in the order of the model"
    n_ticks = max(2, int(room / (4.5 * sizes(ax).tick)))
    total = sum(len(blocks) for _, _, blocks in found.stacks)
    every = _round_step(total / n_ticks)
    ticks_at, texts = [], []
    for number, (_, start, blocks) in enumerate(found.stacks):
        chosen = [block for block in blocks if block % every == 0]
        ticks_at += [start + block for block in chosen]
        texts += [str(block) for block in chosen]
        if number:
            ax.axvline(start + blocks[0] - 0.5, color=GREY, linewidth=0.5, linestyle=":", zorder=0)
    ax.set_xticks(ticks_at, texts)
    if len(found.stacks) == 1:
        return "block"
    stacks = " | ".join(stack for stack, _, _ in found.stacks)
    return f"block: {pictured(shorten(stacks, int(room / (0.6 * sizes(ax).label)) - 8))}"


def _round_step(least: float) -> int:
    """Return the first of 1, 2, 5, 10, 20, ... that is not less."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10


def style(found: Layout, role: str) -> tuple[str, str, str]:
    """Return the colour, the marker and the line of a role."""
    if role == OTHER:
        return GREY, ".", ":"
    number = found.roles.index(role)
    return colour(number), MARKERS[number % len(MARKERS)], LINES[number // len(PALETTE)]
