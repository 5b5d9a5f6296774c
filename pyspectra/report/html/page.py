"""The shell of a page: its head, its style, its sections."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable

from pyspectra._support.text import printable

__all__ = ["badge", "details", "facts", "page", "section", "text"]

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2430; --soft: #5b6675; --line: #d7dce3;
  --panel: #f6f7f9; --error: #b3261e; --warning: #9a5b00; --info: #3c5a86; --good: #2e7d32;
  --c0: #1f6fb4; --c1: #c8600a; --c2: #2a8a3e; --c3: #b3261e; --c4: #7a52b3; --c5: #80564b;
  --c6: #c2529b; --c7: #5f6b7a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181f; --ink: #e4e8ee; --soft: #9aa5b4;
  --line: #343c48; --panel: #1c222b; --error: #ff8a80; --warning: #ffb74d; --info: #9dbdf0;
  --good: #81c784; --c0: #6db3f2; --c1: #ffa45c; --c2: #7fd491; --c3: #ff8a80; --c4: #bfa0f0;
  --c5: #c9a79c; --c6: #f09fd2; --c7: #a9b4c2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.finding { border-left: 4px solid var(--info); background: var(--panel); padding: .5rem .9rem;
  margin: .6rem 0; break-inside: avoid; overflow-wrap: anywhere; }
.finding.error { border-color: var(--error); } .finding.warning { border-color: var(--warning); }
.finding ol { margin: .2rem 0 .2rem 1.2rem; padding: 0; }
.badge { font-size: .78rem; font-weight: 600; margin-right: .5rem; color: var(--info); }
.badge.error { color: var(--error); } .badge.warning { color: var(--warning); }
.badge.good { color: var(--good); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .2rem; }
th, td { padding: .15rem .7rem .15rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } th.left, td.left { text-align: left; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--panel); padding: .6rem .8rem; overflow-x: auto; font-size: .82rem; }
figure { margin: .8rem 0; break-inside: avoid; } figcaption { color: var(--soft); }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); } svg .line { fill: none; stroke-width: 1.8; }
svg .dashed { stroke-dasharray: 6 4; } svg .band { stroke: none; opacity: .13; }
svg .typical { fill: var(--good); opacity: .09; } svg .mark { stroke-width: 1; }
svg .faint { opacity: .35; stroke-width: 1; }
svg .error { stroke: var(--error); } svg .warning { stroke: var(--warning); }
svg .info { stroke: var(--info); } svg .ring { fill: none; stroke-width: 2; }
svg .cell { fill: var(--c0); }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; }
.card { width: 9.5rem; font-size: .82rem; overflow-wrap: anywhere; break-inside: avoid; }
.card.wide { width: 100%; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.picture { width: 100%; image-rendering: pixelated; background: var(--panel); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0; padding: 0; list-style: none;
  font-size: .84rem; } .legend svg { width: 26px; height: 10px; display: inline; }
@media print { body { max-width: none; padding: 0; } details > * { display: block; }
  .finding { background: none; } }
"""

_SERIES = "".join(
    f"svg .s{k} {{ stroke: var(--c{k}); }} svg .f{k} {{ fill: var(--c{k}); }}\n" for k in range(8)
)


def text(value: object) -> str:
    """Return any text as it may stand in a page, whatever characters it has."""
    return html.escape(printable(str(value)))


def page(title: str, body: Iterable[str], *, pictures: bool = False) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
        Title of the window and of the page.
    body : iterable of str
        What follows the title, as HTML.
    pictures : bool
        Whether it holds pictures (`pyspectra.report.html.picture`).

    Returns
    -------
    str
        It allows nothing but its own style, which is known by its hash: no script that got into it
        would run, and nothing is loaded.
    """
    style = STYLE + _SERIES
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    if pictures:
        policy += "; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section with a heading."""
    return f"<section>\n<h2>{text(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def details(title: str, *parts: str) -> str:
    """Return what is folded away until its title is clicked."""
    return f"<details><summary>{text(title)}</summary>\n" + "\n".join(parts) + "\n</details>"


def badge(word: str, kind: str) -> str:
    """Return a word that stands out, as ``"error"``, ``"warning"``, ``"info"`` or ``"good"``."""
    return f'<span class="badge {kind}">{text(word)}</span>'


def facts(*given: tuple[str, object]) -> str:
    """Return a line of facts: name and value, those that are None left out."""
    known = [f"{text(name)} {text(value)}" for name, value in given if value is not None]
    return f'<p class="soft">{" · ".join(known)}</p>'
