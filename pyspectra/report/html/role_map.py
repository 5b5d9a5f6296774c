"""A map of a model: alpha by what a layer does, and by its block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspectra.report.columns import fitted
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.judgement import Judgement, judgement
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.signs import key_of
from pyspectra.report.layer import LayerReport

__all__ = ["role_maps"]

NARROW, WIDE = 470, 1000
LEFT, TOP = 96, 22
ROW, CELL = 24, 40.0
READABLE = 25.0  # a cell this wide has room for a number
FEWEST = 2  # blocks and roles that make a map
MOST_BLOCKS, MOST_ROLES = 400, 60


@dataclass(frozen=True)
class _Cell:
    """The layers of one role in one block."""

    numbers: tuple[int, ...]
    layers: tuple[LayerReport, ...]

    @property
    def alpha(self) -> float | None:
        found = [layer.alpha for layer in self.layers if fitted(layer)]
        return sum(found) / len(found) if found else None

    @property
    def kind(self) -> Judgement:
        """What is said of most of them."""
        kinds = [judgement(layer) for layer in self.layers]
        return max(kinds, key=kinds.count)


def role_maps(layers: Sequence[LayerReport], numbers: Sequence[int]) -> list[str]:
    """Return a figure for each stack of blocks: what a layer does downwards, its block across.

    Parameters
    ----------
    layers : sequence of LayerReport
    numbers : sequence of int
        What each is called by the script of the page.
    """
    stacks: dict[str, dict[tuple[str, int], list[tuple[int, LayerReport]]]] = {}
    for layer, number in zip(layers, numbers, strict=True):
        if layer.role is not None and layer.block is not None:
            cells = stacks.setdefault(layer.stack, {})
            cells.setdefault((layer.role, layer.block), []).append((number, layer))
    return [
        _figure(stack, {place: _cell(found) for place, found in cells.items()})
        for stack, cells in stacks.items()
        if FEWEST <= len({block for _, block in cells}) <= MOST_BLOCKS
        and FEWEST <= len({role for role, _ in cells}) <= MOST_ROLES
    ]


def _cell(found: Sequence[tuple[int, LayerReport]]) -> _Cell:
    numbers, layers = zip(*found, strict=True)
    return _Cell(numbers, layers)


def _figure(stack: str, cells: dict[tuple[str, int], _Cell]) -> str:
    roles = list(dict.fromkeys(role for role, _ in cells))
    blocks = sorted({block for _, block in cells})
    wide = LEFT + len(blocks) * CELL > NARROW
    width = WIDE if wide else NARROW
    size = min(CELL, (width - LEFT) / len(blocks))
    height = TOP + ROW * len(roles) + 4
    every = max(1, round(READABLE / size))
    parts = [
        f'<text class="tick" x="{LEFT + (i + 0.5) * size:.1f}" y="14" text-anchor="middle">'
        f"{block}</text>"
        for i, block in enumerate(blocks)
        if i % every == 0
    ]
    for row, role in enumerate(roles):
        top = TOP + row * ROW
        parts.append(f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{text(role)}</text>')
        for i, block in enumerate(blocks):
            if (role, block) in cells:
                parts.append(_drawn(cells[role, block], LEFT + i * size, top, size))
    name = clipped(stack, 60)
    kinds = list(dict.fromkeys(cell.kind for cell in cells.values()))
    label = text(f"Alpha by role and block of {name}, from block {blocks[0]} to {blocks[-1]}")
    return (
        f'<figure class="{"wide" if wide else "narrow"}"><figcaption>Alpha by role and block, '
        f'{text(name)}</figcaption><div class="scroll" tabindex="0" role="group" '
        f'aria-label="{label}"><svg class="map" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></div>{key_of(kinds)}</figure>'
    )


def _drawn(cell: _Cell, x: float, y: float, size: float) -> str:
    alpha, kind = cell.alpha, cell.kind
    said = "no fit" if alpha is None else f"α = {alpha:.2f}"
    many = f"mean of {len(cell.layers)} layers, " if len(cell.layers) > 1 else ""
    title = text(f"{clipped(cell.layers[0].label, 60)}: {many}{said}, {kind.word}")
    gap = 1.0 if size > 6 else 0.3
    rect = (
        f'<rect class="m {kind.style}" data-i="{cell.numbers[0]}" x="{x:.1f}" y="{y}" '
        f'width="{size - gap:.1f}" height="{ROW - 2}" fill-opacity="{_strength(alpha):.2f}">'
        f"<title>{title}</title></rect>"
    )
    if alpha is None or size < READABLE:
        return rect
    middle = x + (size - gap) / 2
    return rect + f'<text class="in" x="{middle:.1f}" y="{y + 15}">{alpha:.1f}</text>'


def _strength(alpha: float | None) -> float:
    """Return how strongly a cell is coloured: the more, the heavier the tail."""
    if alpha is None:
        return 0.0
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    share = (high - min(max(alpha, low), high)) / (high - low)
    return 0.14 + 0.5 * share if alpha <= high else 0.5
