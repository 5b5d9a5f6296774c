"""The page of a comparison: what differs, how sure that is, and both spectra of each layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from pyspectra._support.text import counted, printable
from pyspectra.report.columns import fitted
from pyspectra.report.compared_layers import COLUMNS, LayerComparison
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.comparison_words import LIMIT, ranking_sentences, sentences
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.curves import curve
from pyspectra.report.html.frame import Frame
from pyspectra.report.html.judgement import Judgement
from pyspectra.report.html.layer_table import LONGEST
from pyspectra.report.html.live_table import (
    TableHead,
    TableRow,
    data_block,
    live_table,
    name_cell,
    plain_value,
    tools,
)
from pyspectra.report.html.overview import (
    BIN,
    HEIGHT,
    HIGHEST,
    LEFT,
    RIGHT,
    WIDTH,
    alpha_band,
    bin_of,
    figure,
    of_alpha,
    of_counts,
)
from pyspectra.report.html.page import clipped, details, page, section, text
from pyspectra.report.html.parts import (
    SCRIPTS,
    STYLES,
    figures,
    foot,
    heading,
    label_of,
    sheet,
    short_name,
    split,
    without_label,
)
from pyspectra.report.html.signs import key_of, sign, small_sign
from pyspectra.report.html.ticks import axis
from pyspectra.report.html.words import told

__all__ = ["comparison_page"]

LOWER = Judgement("lower", "lower", "down")
HIGHER = Judgement("higher", "higher", "up")
WITHIN = Judgement("within its error", "quiet", "ring")
_CHANGES = {kind.word: kind for kind in (LOWER, HIGHER, WITHIN)}
NO_RANKING = "No ranking: "
NAMES_SHOWN = 40
LONGEST_SENTENCE = 1200
MOST_ERRORS = 200


def comparison_page(found: ComparisonData) -> str:
    """Return the page of a comparison as HTML."""
    names = (clipped(found.names[0]), clipped(found.names[1]))
    kinds = [change_of(x) for x in found.layers]
    body = [
        _verdict(found),
        _models(found, names),
        _figures(found, names),
        section("Overview", f'<div class="pair">{_histogram(found, names)}{_shifts(found)}</div>'),
        _words(found),
        section("Layers", _table(found, kinds)),
        *_unmatched(found, names),
        sheet(),
        foot(found.a.options),
        data_block(found.columns, [_data(x, names) for x in found.layers], names),
    ]
    title = " against ".join(short_name(name) for name in found.names)
    facts = [counted(len(found.layers), "layer") + " in both", *map(str, found.notes)]
    return page(
        f"{title} – pyspectra",
        body,
        heading=heading("Comparison", title, [clipped(fact) for fact in facts]),
        styles=STYLES,
        scripts=SCRIPTS,
    )


def change_of(row: LayerComparison) -> Judgement:
    """Return how the change of a layer is shown."""
    return _CHANGES.get(row.change, Judgement(row.change, "small", "ring"))


# --- words --------------------------------------------------------------------------------------


def _verdict(found: ComparisonData) -> str:
    ranking = " ".join(ranking_sentences(found))
    none = ranking.startswith(NO_RANKING)
    if none:
        reason = ranking.removeprefix(NO_RANKING)
        ranking = reason[:1].upper() + reason[1:]
    lede, *more = split(ranking)
    known = f"<p>{text(' '.join(more))}</p>" if more else ""
    return (
        '<section class="verdict" aria-label="What differs">'
        f'<p class="label {"quiet" if none else "plain"}">'
        f"{'No ranking' if none else 'A difference in alpha'}</p>"
        f'<p class="lede">{text(clipped(lede, LONGEST_SENTENCE))}</p>{known}'
        f'<p class="soft">{text(LIMIT)}</p></section>'
    )


def _words(found: ComparisonData) -> str:
    said = [*ranking_sentences(found), LIMIT]
    told_ = [sentence for sentence in sentences(found) if sentence not in said]
    parts = "".join(f"<p>{text(clipped(sentence, LONGEST_SENTENCE))}</p>" for sentence in told_)
    return section("In words", f'<div class="words">{parts}</div>')


def _models(found: ComparisonData, names: tuple[str, str]) -> str:
    cards = "".join(
        _model(report, name, i)
        for i, (report, name) in enumerate(zip((found.a, found.b), names, strict=True))
    )
    return f'<div class="pair models">{cards}</div>'


def _model(report: ReportData, name: str, number: int) -> str:
    verdict = report.verdict
    counts = (
        f"{verdict.n_typical} typical, {verdict.n_heavy_tail} heavy, {verdict.n_light_tail} light; "
        f"{len(report.wholes) - verdict.n_typical - verdict.n_heavy_tail - verdict.n_light_tail} "
        "not judged"
    )
    return (
        f'<div class="model"><h2>{square(number)}{text(name)}</h2>'
        f"{label_of(verdict)}<p>{text(without_label(verdict, split(verdict.text)[0]))}</p>"
        f'<p class="soft">{text(counts)}. '
        f"{text(clipped(report.source))}</p></div>"
    )


def _figures(found: ComparisonData, names: tuple[str, str]) -> str:
    means, shift = found.summary(), found.alpha_shift
    interval = (
        f"95 % interval {_signed(shift.low)} to {_signed(shift.high)}"
        if math.isfinite(shift.low)
        else "of too few layers for an interval"
    )
    return figures(
        [
            (_number(means["alpha_a"]), "mean α", f"of {names[0]}"),
            (_number(means["alpha_b"]), "mean α", f"of {names[1]}"),
            (_signed(shift.mean), "difference", interval),
            (means["n_compared"], "layers compared", "with structure and a tail in both"),
            (means["n_lower"], "lower", "beyond the error of the fits"),
            (means["n_higher"], "higher", "beyond the error of the fits"),
        ]
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _unmatched(found: ComparisonData, names: tuple[str, str]) -> list[str]:
    parts = []
    for name, only in zip(names, (found.only_in_a, found.only_in_b), strict=True):
        if only:
            more = f", and {len(only) - NAMES_SHOWN} more" if len(only) > NAMES_SHOWN else ""
            listed = ", ".join(text(clipped(x)) for x in only[:NAMES_SHOWN]) + more
            parts.append(details(f"{len(only)} only in {name}", f'<p class="names">{listed}</p>'))
    return [section("Layers that only one has", *parts)] if parts else []


# --- pictures -----------------------------------------------------------------------------------


def _histogram(found: ComparisonData, names: tuple[str, str]) -> str:
    counts = [Counter(map(bin_of, alphas)) for alphas in found.fitted_alphas]
    bins = {*counts[0], *counts[1]}
    if not bins:
        return '<p class="soft">No layer has an alpha to draw.</p>'
    first = min(round(THRESHOLDS.alpha_low / BIN) - 1, *bins)
    last = max(round(THRESHOLDS.alpha_high / BIN), *bins)
    most = max(max(count.values(), default=0) for count in counts)
    x = of_alpha(first * BIN, (last + 1) * BIN)
    frame = Frame(x, of_counts(1.06 * most), WIDTH, HEIGHT, LEFT, RIGHT)
    parts = [alpha_band(frame, upright=True), frame.drawn("tail exponent α")]
    for colour, (name, count) in enumerate(zip(names, counts, strict=True)):
        bars = "".join(_bar(frame, number, count[number]) for number in sorted(count))
        parts.append(f'<path class="over o{colour}" d="{bars}"><title>{text(name)}</title></path>')
    many = [f"{sum(count.values())} of {name}" for name, count in zip(names, counts, strict=True)]
    label = f"Histograms of alpha, over {many[0]} and {many[1]} layers"
    return figure("How often which alpha occurs", label, parts, _key(names))


def _bar(frame: Frame, number: int, count: int) -> str:
    left, right = frame.across(number * BIN) + 0.7, frame.across((number + 1) * BIN) - 0.7
    top = frame.down(count)
    return f"M{left:.1f} {frame.bottom}V{top:.1f}H{right:.1f}V{frame.bottom}Z"


def _key(names: tuple[str, str]) -> str:
    items = "".join(f"<li>{square(i)}{text(name)}</li>" for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def square(number: int) -> str:
    """Return what stands for the first model, 0, or the second, 1."""
    return (
        '<svg class="sign" viewBox="0 0 12 12" aria-hidden="true">'
        f'<path class="over o{number}" d="M1 1H11V11H1Z"/></svg>'
    )


def _shifts(found: ComparisonData) -> str:
    """Draw the shift of each layer with its standard error, in the order of the model."""
    drawn = [(i, row) for i, row in enumerate(found.layers) if fitted(row.a) and fitted(row.b)]
    if not drawn:
        return ""
    shown = [row for _, row in drawn if row.is_compared] or [row for _, row in drawn]
    reach = [abs(row.alpha_shift) + row.alpha_shift_stderr for row in shown]
    limit = max([1.0, *(min(x, HIGHEST) for x in reach if math.isfinite(x))])
    x = of_counts(len(found.layers) + 1.0)
    frame = Frame(x, axis(-limit, limit), WIDTH, HEIGHT, LEFT + 6, RIGHT)
    zero = frame.down(0.0)
    parts = [frame.drawn("layers in the order of the model")]
    parts.append(f'<path class="axis" d="M{frame.left} {zero:.1f}H{frame.end}"/>')
    for i, row in drawn:
        kind, across = change_of(row), frame.across(i + 1)
        shift = max(-limit, min(limit, row.alpha_shift))
        error = row.alpha_shift_stderr
        if len(found.layers) <= MOST_ERRORS and math.isfinite(error):
            ends = frame.down(shift + error), frame.down(shift - error)
            parts.append(f'<path class="error-bar" d="M{across:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>')
        said = f"{clipped(row.a.label, 60)}: {_signed(row.alpha_shift)}, {row.change}"
        parts.append(sign(across, frame.down(shift), kind, 3.4, said, i))
    kinds = list(dict.fromkeys(change_of(row) for _, row in drawn))
    label = f"Shift of alpha of {counted(len(drawn), 'layer')} with its standard error"
    return figure("Shift of alpha, with its standard error", label, parts, key_of(kinds))


# --- layers -------------------------------------------------------------------------------------


def _table(found: ComparisonData, kinds: list[Judgement]) -> str:
    help_ = {column.name: column.help for column in COLUMNS}
    heads = [
        TableHead("name", "layer", help_["name"], "left name"),
        TableHead("kind", "kind", help_["kind"], "spare2 left"),
        TableHead("alpha_a", "α of A", help_["alpha_a"], "spare1"),
        TableHead("alpha_b", "α of B", help_["alpha_b"], "spare1"),
        TableHead("alpha_shift", "shift of α", help_["alpha_shift"]),
        TableHead("p_value", "p", help_["p_value"], "spare2"),
        TableHead("log_norm_shift", "shift of log10 norm", help_["log_norm_shift"], "spare3"),
        TableHead("ks", "KS", help_["ks"], "spare4"),
        TableHead("change", "what", help_["change"], "left"),
    ]
    rows = [
        TableRow(kind, x.a.label, list(_cells(x, kind)))
        for x, kind in zip(found.layers, kinds, strict=True)
    ]
    order = [*_CHANGES.values(), *dict.fromkeys(k for k in kinds if k.word not in _CHANGES)]
    return tools(rows, order) + live_table(heads, rows, "Layers")


def _cells(row: LayerComparison, kind: Judgement) -> Iterator[str]:
    yield name_cell(printable(row.a.label))
    yield text(row.a.kind)
    yield _number(row.a.alpha)
    yield _number(row.b.alpha)
    error = f" ± {row.alpha_shift_stderr:.2f}" if math.isfinite(row.alpha_shift_stderr) else ""
    yield small_sign(kind) + _signed(row.alpha_shift) + error
    yield f"{row.p_value:.2g}" if math.isfinite(row.p_value) else "–"
    yield _signed(row.log_norm_shift)
    yield _number(row.distances["ks"])
    yield text(row.change)


def _data(row: LayerComparison, names: tuple[str, str]) -> dict[str, object]:
    words = []
    if math.isfinite(row.alpha_shift):
        words.append(
            f"Alpha differs by {_signed(row.alpha_shift)} ± {row.alpha_shift_stderr:.2f}: "
            f"{row.change}."
        )
    if math.isfinite(row.log_norm_shift):
        words.append(
            f"The squared norm is {10**row.log_norm_shift:.3g} times, the stable rank "
            f"{row.stable_rank_ratio:.3g} times as large in {names[1]}."
        )
    if row.n_intruders:
        words.append(f"{counted(row.n_intruders, 'intruder dimension')} in {names[1]}.")
    for name, layer in zip(names, (row.a, row.b), strict=True):
        words.append(f"In {name}: {' '.join(told(layer))}")
    return {
        "t": clipped(printable(row.a.label), LONGEST),
        "k": row.change,
        "w": [printable(sentence) for sentence in words],
        "v": [plain_value(column.value(row)) for column in COLUMNS],
        "s": [curve(row.a), curve(row.b)],
    }
