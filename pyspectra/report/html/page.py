"""The shell of a page: its head, its style, its sections."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyspectra._support.text import printable

__all__ = ["asset", "badge", "clipped", "details", "facts", "page", "section", "text"]

ASSETS = Path(__file__).parent / "assets"
LONGEST_NAME = 160


def asset(name: str) -> str:
    """Return a script or a style that comes with the package."""
    return (ASSETS / name).read_text(encoding="utf-8")


def text(value: object) -> str:
    """Return any text as it may stand in a page, whatever characters it has."""
    return html.escape(printable(str(value)))


def clipped(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name whose middle is left out where it has more characters than `longest`."""
    if len(name) <= longest:
        return name
    kept = longest // 2
    return f"{name[:kept]}…{name[-kept:]}"


def page(
    title: str,
    body: Iterable[str],
    *,
    pictures: bool = False,
    heading: str | None = None,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
        Title of the window and of the page.
    body : iterable of str
        What follows the heading, as HTML.
    pictures : bool
        Whether it holds pictures (`pyspectra.report.html.picture`).
    heading : str, optional
        What stands above the body, as HTML; the title by default.
    styles, scripts : sequence of str
        Names of assets that the page needs besides its own style. Scripts run in this order.

    Returns
    -------
    str
        It allows nothing but these styles and scripts, which are known by their hashes: no script
        that got into it would run, and nothing is loaded.
    """
    style = "\n".join(asset(name) for name in ("page.css", *styles))
    code = [asset(name) for name in scripts]
    policy = f"default-src 'none'; style-src {_source(style)}; base-uri 'none'; form-action 'none'"
    if code:
        policy += f"; script-src {' '.join(map(_source, code))}"
    if pictures:
        policy += "; img-src data:"
    parts = [f"<h1>{text(title)}</h1>" if heading is None else heading, *body]
    inline = "".join(f"<script>{script}</script>\n" for script in code)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(clipped(title))}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n{inline}</body>\n</html>\n"
    )


def _source(code: str) -> str:
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"'sha256-{digest}'"


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
