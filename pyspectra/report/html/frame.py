"""The frame of a drawing: axes, grid and ticks, and where data stands between them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspectra.report.html.page import text
from pyspectra.report.html.ticks import Axis

__all__ = ["Frame"]

TOP = 12
BELOW = 40  # room for the ticks and the name of the horizontal axis


@dataclass(frozen=True)
class Frame:
    """Where data stands in a drawing.

    Attributes
    ----------
    x, y : Axis
    width, height : int
        Of the drawing.
    left, right : int
        Room beside the data.
    """

    x: Axis
    y: Axis
    width: int
    height: int
    left: int = 62
    right: int = 14

    @property
    def top(self) -> int:
        """The upper end of the data."""
        return TOP

    @property
    def bottom(self) -> int:
        """The lower end of the data."""
        return self.height - BELOW

    @property
    def end(self) -> int:
        """The right end of the data."""
        return self.width - self.right

    def across(self, value: float) -> float:
        """Return where a value stands from the left."""
        return self.left + (self.end - self.left) * self.x.place(value)

    def down(self, value: float) -> float:
        """Return where a value stands from the top; what lies beyond the axis, just outside."""
        share = min(max(self.y.place(value), -0.02), 1.02)
        return TOP + (self.bottom - TOP) * (1 - share)

    def drawn(self, x_name: str) -> str:
        """Return grid, ticks and the name of the horizontal axis."""
        left, end, bottom, parts = self.left, self.end, self.bottom, []
        for share, label in self.y.ticks:
            at = TOP + (bottom - TOP) * (1 - share)
            parts.append(f'<line class="grid" x1="{left}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{left - 6}" y="{at + 4:.1f}" '
                         f'text-anchor="end">{label}</text>')  # fmt: skip
        for share, label in self.x.ticks:
            at = left + (end - left) * share
            parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" '
                         f'text-anchor="middle">{label}</text>')  # fmt: skip
        parts.append(f'<line class="axis" x1="{left}" x2="{end}" y1="{bottom}" y2="{bottom}"/>')
        middle = (left + end) / 2
        parts.append(f'<text x="{middle:.0f}" y="{self.height - 4}" '
                     f'text-anchor="middle">{text(x_name)}</text>')  # fmt: skip
        return "".join(parts)
