"""The signs of judgements: colour is not all that tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from pyspectra.report.html.judgement import Judgement
from pyspectra.report.html.page import text

__all__ = ["key_of", "sign", "small_sign"]


def sign(
    x: float, y: float, kind: Judgement, r: float, name: str = "", number: int | None = None
) -> str:
    """Return the sign of a judgement, as a part of a drawing.

    Parameters
    ----------
    x, y, r : float
        Its middle and half its width.
    kind : Judgement
    name : str
        What it tells who points at it.
    number : int, optional
        Of the row of the table that it opens.
    """
    shapes = {
        "up": f"M{x:.1f} {y - r * 1.3:.1f}l{r * 1.2:.1f} {r * 2.1:.1f}h{-r * 2.4:.1f}z",
        "down": f"M{x:.1f} {y + r * 1.3:.1f}l{r * 1.2:.1f} {-r * 2.1:.1f}h{-r * 2.4:.1f}z",
        "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z",
        "cross": f"M{x - r:.1f} {y - r:.1f}l{2 * r:.1f} {2 * r:.1f}m0 {-2 * r:.1f}"
        f"l{-2 * r:.1f} {2 * r:.1f}",
    }
    which = "" if number is None else f' data-i="{number}"'
    title = f"<title>{text(name)}</title>" if name else ""
    if kind.sign in shapes:
        return f'<path class="k {kind.style}"{which} d="{shapes[kind.sign]}">{title}</path>'
    return (
        f'<circle class="k {kind.style}"{which} cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">'
        f"{title}</circle>"
    )


def small_sign(kind: Judgement) -> str:
    """Return the sign of a judgement as it stands in a line of text."""
    drawn = sign(6, 6, kind, 4)
    return f'<svg class="sign" viewBox="0 0 12 12" aria-hidden="true">{drawn}</svg>'


def key_of(shown: Sequence[Judgement]) -> str:
    """Return the legend of judgements."""
    items = "".join(f"<li>{small_sign(kind)}{text(kind.word)}</li>" for kind in shown)
    return f'<ul class="legend">{items}</ul>'
