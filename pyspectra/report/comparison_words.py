"""A comparison in sentences: what differs, how sure that is, and a ranking or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pyspectra._support.text import counted, printable
from pyspectra.report.changes import change_sentences, count_changes
from pyspectra.report.compared_layers import DIFFERS, FEWEST, LEVEL, LayerComparison
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import certainty, is_judged

NAMES_SHOWN = 5
LIMIT = "Spectra are no measurement of accuracy: only a test set is."

KNOWN = (
    "Among runs of small networks that differed in learning rate, number of epochs or share of "
    "wrong labels, the one with the lower mean alpha mostly had the better test score; where they "
    "differed in weight decay, mostly the worse one. The larger norm of the weights kept its sign."
)


def sentences(found: ComparisonData) -> list[str]:
    """Say what differs, how sure that is, which layers are outliers, and a ranking or none."""
    return [sentence for paragraph in paragraphs(found) for sentence in paragraph]


def paragraphs(found: ComparisonData) -> list[list[str]]:
    """Return the same sentences by what they are about; none of the paragraphs is empty."""
    told = (
        [*coverage_sentences(found), *difference_sentences(found)],
        [*_fitted(found), *_outliers(found)],
        related_sentences(found),
        [*ranking_sentences(found), LIMIT],
    )
    return [paragraph for paragraph in map(list, told) if paragraph]


def coverage_sentences(found: ComparisonData) -> Iterator[str]:
    """Say how much of both models was analysed."""
    first, second = map(printable, found.names)
    of_a, of_b = (report.coverage.words for report in (found.a, found.b))
    if of_a == of_b:
        yield f"{of_a[0].upper()}{of_a[1:]} were analysed in both."
    else:
        yield f"In {first} {of_a} were analysed, in {second} {of_b}."


def difference_sentences(found: ComparisonData) -> Iterator[str]:
    """Say by how much alpha and norms differ, in which layers, and how sure that is."""
    first, second = map(printable, found.names)
    n, alpha = len(found.compared), found.alpha_shift
    yield (
        f"{n} of {len(found.layers)} layers that {first} and {second} share show structure and a "
        "tail in both."
    )
    lawless = sum("no power law" in (x.a.warning, x.b.warning) for x in found.compared)
    if lawless:
        yield (
            f"In {lawless} of them the tail follows no power law in one or both (p <= 0.1): alpha "
            "then says no more than how steep it is."
        )
    if n:
        means = found.summary()
        sentence = (
            f"Their mean alpha is {means['alpha_a']:.2f} in {first} and {means['alpha_b']:.2f} in "
            f"{second}, a difference of {alpha.mean:+.2f}"
        )
        if math.isfinite(alpha.low):
            sentence += f" ({LEVEL:.0%} interval over layers {alpha.low:+.2f} to {alpha.high:+.2f})"
        lower = counted(alpha.n_lower, "layer")
        yield f"{sentence}; it is lower in {lower} and higher in {alpha.n_higher}."
        yield from _beyond_error(found)
    for quantity, norm in (
        ("the spectral norm", found.log_spectral_norm_shift),
        ("the squared Frobenius norm", found.log_norm_shift),
    ):
        if norm.n:
            interval = (
                f" (interval {norm.low:+.2f} to {norm.high:+.2f})" if norm.n >= FEWEST else ""
            )
            yield f"log10 of {quantity} differs by {norm.mean:+.2f} on average{interval}."
    rank = found.log_stable_rank_shift
    if rank.n:
        interval = (
            f" (interval {10.0**rank.low:.2f} to {10.0**rank.high:.2f})" if rank.n >= FEWEST else ""
        )
        yield f"The stable rank is {10.0**rank.mean:.2f} times as large on average{interval}."
    for name, side in ((first, "a"), (second, "b")):
        only = [x.a.label for x in found.layers if x.change == f"structure in {side} only"]
        if only:
            yield f"Only {name} shows structure in {_listed(only)}."


def _beyond_error(found: ComparisonData) -> Iterator[str]:
    sure = sorted((x for x in found.compared if x.p_value <= DIFFERS), key=_least_likely)
    if not sure:
        yield f"In no layer does alpha differ by more than the error of its fits (p > {DIFFERS:g})."
        return
    listed = _listed([f"{x.a.label} ({_with_error(x)})" for x in sure])
    noun = "layer" if len(sure) == 1 else "layers"
    yield (
        f"By more than the error of the fits (p <= {DIFFERS:g} after Bonferroni) alpha differs in "
        f"{len(sure)} {noun}: {listed}."
    )


def _least_likely(row: LayerComparison) -> float:
    return -abs(row.alpha_shift) / row.alpha_shift_stderr


def _with_error(row: LayerComparison) -> str:
    return f"{row.alpha_shift:+.2f}, error {row.alpha_shift_stderr:.2f}"


def _fitted(found: ComparisonData) -> Iterator[str]:
    """Say what all layers with a fit have together, those included whose alpha says nothing."""
    high = THRESHOLDS.alpha_high
    told = [
        f"{sum(alphas) / len(alphas):.2f} in {printable(name)}, above {high:g} in "
        f"{len(out.above) or 'none'} of {len(alphas)}"
        for name, alphas, out in zip(found.names, found.fitted_alphas, found.outliers, strict=True)
        if alphas
    ]
    if told:
        yield f"Over all layers that have a fit, the mean alpha is {'; '.join(told)}."


def _outliers(found: ComparisonData) -> Iterator[str]:
    """Name the layers outside 2 to 6, those that are not judged included."""
    bounds = f"above {THRESHOLDS.alpha_high:g}", f"below {THRESHOLDS.alpha_low:g}"
    models = zip(found.names, (found.a, found.b), found.outliers, strict=True)
    for name, report, outliers in models:
        rows = {row.label: row for row in report.wholes}
        for labels, bound in zip((outliers.above, outliers.below), bounds, strict=True):
            out = [rows[label] for label in labels]
            if out:
                listed = _listed([f"{x.label} ({x.alpha:.2f}, {_said_of(x)})" for x in out])
                yield f"Outliers of {printable(name)}, alpha {bound}: {listed}."


def related_sentences(found: ComparisonData) -> Iterator[str]:
    """Say what became of a model that was trained from the other."""
    if not found.is_related:
        return
    first, second = map(printable, found.names)
    yield (
        f"The weights of {first} and {second} correlate ({found.correlation:.2g} in the median "
        "layer): one was trained from the other, or both from a third."
    )
    if found.difference is not None:
        rows, skipped = found.difference.wholes, found.difference.skipped
        told = " ".join(
            change_sentences(rows, count_changes(rows, skipped, found.difference.coverage))
        )
        yield f"Of the change since {first}: {told}"
    looked = [x for x in found.layers if x.intruders is not None]
    if looked:
        yield _intruder_sentence(found, looked)


def _intruder_sentence(found: ComparisonData, looked: Sequence[LayerComparison]) -> str:
    first, second = map(printable, found.names)
    intruders = [x.intruders for x in looked if x.intruders is not None]
    total, all_k, epsilon = (
        sum(x.n for x in intruders), sum(x.k for x in intruders), intruders[0].epsilon,
    )  # fmt: skip
    if not total:
        return (
            f"No intruder dimension: each of the {all_k} leading directions of {second} in "
            f"{counted(len(looked), 'layer')} resembles one of {first} "
            f"(largest cosine at least {epsilon:g})."
        )
    most = sorted(found.intruders, key=lambda x: -x.n_intruders)
    listed = _listed([f"{x.a.label} ({x.n_intruders})" for x in most])
    meaning = f"With so many, little of {first} is left."
    if 2 * total <= all_k:
        meaning = "LoRA makes more of them than full fine-tuning does (arXiv 2410.21228)."
    return (
        f"Intruder dimensions: {total} of the {all_k} leading directions of {second}, in "
        f"{len(most)} of {counted(len(looked), 'layer')}, resemble none of "
        f"{first} (largest cosine below {epsilon:g}): {listed}. {meaning}"
    )


def _said_of(row: LayerReport) -> str:
    return certainty(row) if is_judged(row) else row.warning


def ranking_sentences(found: ComparisonData) -> Iterator[str]:
    """Say which model alpha would rank first, with what is known of that; or why there is none."""
    unread = [
        printable(name)
        for name, report in zip(found.names, (found.a, found.b), strict=True)
        if not report.coverage.enough
    ]
    if unread:
        yield (
            "No ranking: less than half of the parameters in matrices could be analysed in "
            f"{' and in '.join(unread)}."
        )
    elif not found.equal_architecture:
        yield "No ranking: the architectures differ, and so does what alpha says."
    elif len(found.compared) < FEWEST:
        yield f"No ranking: fewer than {FEWEST} layers can be compared."
    elif not found.alpha_shift.is_clear:
        yield "No ranking: the mean difference of alpha lies within its error."
    else:
        lower = printable(found.names[0 if found.alpha_shift.mean > 0.0 else 1])
        yield f"{lower} has the lower mean alpha. {KNOWN}"


def _listed(words: Sequence[str]) -> str:
    shown = [printable(word) for word in words[:NAMES_SHOWN]]
    more = len(words) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
