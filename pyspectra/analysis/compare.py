"""Two models, or the checkpoints of one, analysed alike and put side by side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from pyspectra._support.arguments import check_choice, check_path
from pyspectra._support.text import short_names
from pyspectra.analysis.analyze import analyze
from pyspectra.analysis.relation import correlation, intruders_between, median_correlation
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.compared_layers import LayerComparison
from pyspectra.report.comparison import Comparison
from pyspectra.report.comparison_data import RELATED
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import takes_options
from pyspectra.report.problems import has_tail
from pyspectra.report.report import Report
from pyspectra.report.trajectory import Trajectory
from pyspectra.report.trajectory_data import LayerTrajectory
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.formats import suffixes
from pyspectra.weights.pairing import Pairing, pair_layers
from pyspectra.weights.run_folder import find_checkpoints, steps_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from typing_extensions import Unpack

    from pyspectra.report._keywords import AnalyzeKeywords


@overload
def compare(
    a: Any,
    b: Any,
    *,
    names: Sequence[str] | None = None,
    changes: bool | str = "auto",
    device: Any = "auto",
    executor: Executor | None = None,
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Comparison: ...


@overload
def compare(
    a: Any,
    *,
    names: Sequence[str] | None = None,
    changes: bool | str = "auto",
    device: Any = "auto",
    executor: Executor | None = None,
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Trajectory: ...


@takes_options
def compare(
    a: Any,
    b: Any = None,
    *,
    names: Sequence[str] | None = None,
    changes: bool | str = "auto",
    device: Any = "auto",
    executor: Executor | None = None,
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Comparison | Trajectory:
    """Compare the spectra of models: what differs, layer by layer, and how sure that is.

    Parameters
    ----------
    a, b : nn.Module, mapping, WeightSource or path
        As for `pyspectra.analyze`. Differences are those of `b` from `a`. Without `b`, `a` is a
        list of two or more models, oldest first, or the folder of a training run, whose numbered
        checkpoints are taken in their natural order: what comes back is a `Trajectory`.
    {options}
    names : sequence of str, optional
        What the models are called in sentences, one name for each; by default the parts of their
        paths that tell them apart, ``"a"`` and ``"b"`` if nothing does.
    changes : bool or "auto"
        Whether to add what changed from `a` to `b`: the report of the difference, and intruder
        dimensions. ``"auto"``: where the weights correlate by more than 0.5 in the median layer,
        as those of a model and what was trained from it.
    device, executor, progress
        As for `pyspectra.analyze`.

    Returns
    -------
    Comparison or Trajectory
        ``.text``, ``.ranking``, ``.summary()``, ``.layers``, ``.a`` and ``.b`` (the reports); of
        several, ``.text``, ``.summary()``, ``.layers``, ``.reports`` and ``.ends``, the comparison
        of the last with the first.

    Raises
    ------
    ValueError, TypeError, FormatError, FileNotFoundError
        As `pyspectra.analyze`, naming `a` or `b`; or if the two have no layer in common, or a
        folder holds no numbered checkpoints.

    Notes
    -----
    Layers are matched as in `pyspectra.distances`. Alpha of a layer is compared where it says
    something in both models: there is a fit, structure, and enough eigenvalues. The p-value of a
    shift is that of a normal variable with the errors of both fits, multiplied by the number of
    layers (Bonferroni). Those errors hold for independent eigenvalues and a known start of the
    tail: another seed of the same training may well differ by more. The interval of a mean comes
    from its spread over layers (Student's t), and needs three of them.

    Intruder dimensions are those of the 10 leading left singular vectors of a matrix of `b` whose
    cosine with each one of `a` is below 0.5 (Shuttleworth et al. 2024, arXiv 2410.21228). They take
    the eigenvectors of every matrix of one slice, which costs more than its spectrum.

    What a ranking by alpha is worth is told in ``docs/comparison.md``.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W = rng.standard_normal((60, 40)) * rng.pareto(2.0, 40)
    >>> found = ps.compare({"fc.weight": W}, {"fc.weight": 10 * W})
    >>> round(found["fc"].log_spectral_norm_shift, 6), found.equal_architecture
    (1.0, True)
    >>> ps.compare([{"fc.weight": W}, {"fc.weight": 2 * W}, {"fc.weight": 4 * W}])
    <Trajectory of 3 checkpoints: 1 layers>
    """
    check_choice("compare", "changes", str(changes), ("True", "False", "auto"))
    running = {**options, "device": device, "executor": executor, "progress": progress}
    models, arguments = _models(a, b)
    with contextlib.ExitStack() as opened:
        sources = [
            _open(model, name, opened) for model, name in zip(models, arguments, strict=True)
        ]
        called = _names(names, sources)
        pairings = [pair_layers(sources[0], source) for source in sources[1:]]
        for argument, pairing in zip(arguments[1:], pairings, strict=True):
            if not pairing.pairs:
                raise ArgumentValueError("compare", argument, *_nothing_in_common(pairing))
        reports = [
            _analyzed(argument, source, running)
            for argument, source in zip(arguments, sources, strict=True)
        ]
        first_and_last = (reports[0], reports[-1]), (called[0], called[-1])
        ends = _comparison(
            *first_and_last, pairings[-1], (sources[0], sources[-1]), changes, running
        )
    if b is not None:
        return ends
    return Trajectory(
        reports=tuple(reports),
        names=called,
        steps=steps_of(called),
        layers=_trajectories(pairings, reports),
        ends=ends,
        notes=_all_notes(pairings, called),
    )


# --- what is compared ---------------------------------------------------------------------------


def _models(a: Any, b: Any) -> tuple[list[Any], list[str]]:
    """Return the models, and how messages call them."""
    if isinstance(a, list | tuple):
        if b is not None:
            got = f"a list of {len(a)} models and 'b'"
            raise ArgumentValueError("compare", "a", "be one model where there is a 'b'", got)
        if len(a) < 2:
            requirement = "hold two or more models where it is a list"
            raise ArgumentValueError("compare", "a", requirement, f"{len(a)}")
        return list(a), [f"a[{i}]" for i in range(len(a))]
    if b is not None:
        return [a, b], ["a", "b"]
    if not isinstance(a, str | os.PathLike):
        raise ArgumentTypeError(
            "compare", "b", "be a model where 'a' is one", "None",
            "several models are a list: compare([first, second, third])",
        )  # fmt: skip
    folder = check_path("compare", "a", a)
    if not folder.is_dir():
        requirement = "be a list of models or the folder of a run where there is no 'b'"
        raise ArgumentValueError("compare", "a", requirement, repr(str(a)))
    found = find_checkpoints(folder, suffixes())
    if len(found) < 2:
        got = f"{folder}, which holds one: {found[0].name}"
        raise ArgumentValueError("compare", "a", "hold two or more numbered checkpoints", got)
    return list(found), [f"a[{i}]" for i in range(len(found))]


def _open(model: Any, argument: str, opened: contextlib.ExitStack) -> WeightSource:
    with called_as("compare", model_or_path=argument):
        source = open_weights(model)
    if source is not model:
        opened.callback(source.close)
    return source


def _analyzed(argument: str, source: WeightSource, running: Any) -> Report:
    with called_as("compare", model_or_path=argument):
        return analyze(source, **running)


def _names(names: Any, sources: Sequence[WeightSource]) -> tuple[str, ...]:
    count = len(sources)
    if names is None:
        found = short_names([source.name for source in sources])
        if len(set(found)) == count:
            return found
        return ("a", "b") if count == 2 else tuple(f"model {i}" for i in range(1, count + 1))
    requirement = f"be {'two' if count == 2 else count} strings"
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ArgumentTypeError("compare", "names", requirement, repr(names))
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise ArgumentValueError("compare", "names", requirement, repr(names))
    return tuple(names)


def _nothing_in_common(pairing: Pairing) -> tuple[str, str, str | None]:
    """Return what the error says: the requirement, what came, and a hint."""
    listed = [
        ", ".join(x.name for x in side[:2]) for side in (pairing.only_in_b, pairing.only_in_a)
    ]
    hint = "layers are matched by name, without the prefixes of wrappers or one common prefix"
    return (
        "have a layer that the first model has too",
        f"{listed[0] or 'none'}, not {listed[1] or 'none'}",
        hint,
    )


def _is_equal(pairing: Pairing) -> bool:
    alike = all(x.kind == y.kind and x.shape == y.shape for x, y in pairing.pairs)
    return alike and not pairing.only_in_a and not pairing.only_in_b


# --- two models ---------------------------------------------------------------------------------


def _comparison(
    reports: tuple[Report, Report],
    names: tuple[str, str],
    pairing: Pairing,
    sources: tuple[WeightSource, WeightSource],
    changes: bool | str,
    running: Any,
) -> Comparison:
    correlations = {one.name: correlation(one, other) for one, other in pairing.pairs}
    median = median_correlation(list(correlations.values()))
    difference = None
    asked = median > RELATED if changes == "auto" else changes in (True, "True")
    if asked:
        with called_as("compare", model_or_path="b", base_model="a"):
            difference = analyze(sources[1], base_model=sources[0], **running)
    return Comparison(
        *reports,
        names=names,
        layers=_layers(pairing.pairs, *reports, correlations, asked),
        only_in_a=tuple(layer.name for layer in pairing.only_in_a),
        only_in_b=tuple(layer.name for layer in pairing.only_in_b),
        equal_architecture=_is_equal(pairing),
        notes=tuple(note.words("a", "b") for note in pairing.notes),
        correlation=median,
        difference=difference,
    )


def _layers(
    pairs: Sequence[tuple[Layer, Layer]],
    a: Report,
    b: Report,
    correlations: Mapping[str, float],
    changed: bool,
) -> tuple[LayerComparison, ...]:
    """Return the rows of layers that are in both reports: slice by slice with ``pool=False``."""
    rows = [{(row.name, row.slice_id): row for row in report} for report in (a, b)]
    found = [
        (row, rows[1][other.name, which], one, other)
        for one, other in pairs
        for (name, which), row in rows[0].items()
        if name == one.name and (other.name, which) in rows[1]
    ]
    count = max(1, sum(has_tail(x) and has_tail(y) for x, y, *_ in found))
    wholes = {id(row) for row in a.wholes}
    return tuple(
        LayerComparison(
            x, y, count, correlations[one.name],
            intruders_between(one, other) if changed and id(x) in wholes else None,
        )
        for x, y, one, other in found
    )  # fmt: skip


# --- several checkpoints ------------------------------------------------------------------------


def _trajectories(
    pairings: Sequence[Pairing], reports: Sequence[Report]
) -> tuple[LayerTrajectory, ...]:
    """Follow each row by the name that its layer has in the first model, else by its own."""
    first: dict[str, str] = {}
    known = [first, *({other.name: one.name for one, other in p.pairs} for p in pairings)]
    found: dict[tuple[bool, str, int | None], list[LayerReport | None]] = {}
    for place, (report, names) in enumerate(zip(reports, known, strict=True)):
        for row in report:
            # A layer that came later is no layer of the first, though it may have its name.
            is_later = place > 0 and row.name not in names
            key = is_later, names.get(row.name, row.name), row.slice_id
            found.setdefault(key, [None] * len(reports))[place] = row
    return tuple(
        LayerTrajectory(next(row.label for row in rows if row is not None), tuple(rows))
        for rows in found.values()
    )


def _all_notes(pairings: Sequence[Pairing], names: Sequence[str]) -> tuple[str, ...]:
    notes = (
        note.words(names[0], other)
        for other, pairing in zip(names[1:], pairings, strict=True)
        for note in pairing.notes
    )
    return tuple(dict.fromkeys(notes))
