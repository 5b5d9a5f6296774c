"""Two models, analysed alike and put side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from pyspectra.analysis.analyze import analyze
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.compared_layers import LayerComparison
from pyspectra.report.comparison import Comparison
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import takes_options
from pyspectra.report.problems import has_tail
from pyspectra.report.report import Report
from pyspectra.weights import WeightSource, open_weights
from pyspectra.weights.pairing import Pairing, pair_layers

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pyspectra.report._keywords import AnalyzeKeywords


@takes_options
def compare(
    a: Any,
    b: Any,
    *,
    names: Sequence[str] | None = None,
    device: Any = "auto",
    executor: Executor | None = None,
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Comparison:
    """Compare the spectra of two models: what differs, layer by layer, and how sure that is.

    Parameters
    ----------
    a, b : nn.Module, mapping, WeightSource or path
        As for `pyspectra.analyze`. Differences are those of `b` from `a`.
    {options}
    names : sequence of two str, optional
        What the models are called in sentences; their files by default, ``"a"`` and ``"b"`` if
        these have one name.
    device, executor, progress
        As for `pyspectra.analyze`.

    Returns
    -------
    Comparison
        ``.text``, ``.ranking``, ``.summary()``, ``.layers``, ``.a`` and ``.b`` (the reports).

    Raises
    ------
    ValueError, TypeError, FormatError, FileNotFoundError
        As `pyspectra.analyze`, naming `a` or `b`; or if the two have no layer in common.

    Notes
    -----
    Layers are matched as in `pyspectra.distances`. Alpha of a layer is compared where it says
    something in both models: there is a fit, structure, and enough eigenvalues. The p-value of a
    shift is that of a normal variable with the errors of both fits, multiplied by the number of
    layers (Bonferroni). Those errors hold for independent eigenvalues and a known start of the
    tail: another seed of the same training may well differ by more. The interval of a mean comes
    from its spread over layers (Student's t), and needs three of them.

    What a ranking by alpha is worth is told in ``docs/comparison.md``.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W = rng.standard_normal((60, 40)) * rng.pareto(2.0, 40)
    >>> found = ps.compare({"fc.weight": W}, {"fc.weight": 10 * W})
    >>> round(found["fc"].log_spectral_norm_shift, 6), found.equal_architecture
    (1.0, True)
    """
    with contextlib.ExitStack() as opened:
        sources = [_open(model, name, opened) for name, model in (("a", a), ("b", b))]
        called = _names(names, sources)
        pairing = pair_layers(*sources)
        if not pairing.pairs:
            raise ArgumentValueError("compare", "b", *_nothing_in_common(pairing))
        first, second = (
            _analyzed(argument, source, device, executor, progress, options)
            for argument, source in zip("ab", sources, strict=True)
        )
    return Comparison(
        first,
        second,
        names=called,
        layers=_layers(pairing, first, second),
        only_in_a=tuple(layer.name for layer in pairing.only_in_a),
        only_in_b=tuple(layer.name for layer in pairing.only_in_b),
        equal_architecture=_is_equal(pairing),
        notes=tuple(note.words("a", "b") for note in pairing.notes),
    )


def _open(model: Any, argument: str, opened: contextlib.ExitStack) -> WeightSource:
    with called_as("compare", model_or_path=argument):
        source = open_weights(model)
    if source is not model:
        opened.callback(source.close)
    return source


def _analyzed(
    argument: str, source: WeightSource, device: Any, executor: Any, progress: Any, options: Any
) -> Report:
    with called_as("compare", model_or_path=argument):
        return analyze(source, device=device, executor=executor, progress=progress, **options)


def _names(names: Any, sources: Sequence[WeightSource]) -> tuple[str, str]:
    if names is None:
        first, second = (source.name for source in sources)
        return (first, second) if first != second else ("a", "b")
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ArgumentTypeError("compare", "names", "be two strings", repr(names))
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ArgumentValueError("compare", "names", "be two strings", repr(names))
    return names[0], names[1]


def _nothing_in_common(pairing: Pairing) -> tuple[str, str, str | None]:
    """Return what the error says: the requirement, what came, and a hint."""
    listed = [
        ", ".join(x.name for x in side[:2]) for side in (pairing.only_in_b, pairing.only_in_a)
    ]
    hint = "layers are matched by name, without the prefixes of wrappers or one common prefix"
    return (
        "have a layer that 'a' has too",
        f"{listed[0] or 'none'}, not {listed[1] or 'none'}",
        hint,
    )


def _is_equal(pairing: Pairing) -> bool:
    alike = all(x.kind == y.kind and x.shape == y.shape for x, y in pairing.pairs)
    return alike and not pairing.only_in_a and not pairing.only_in_b


def _layers(pairing: Pairing, a: Report, b: Report) -> tuple[LayerComparison, ...]:
    """Return the rows of layers that are in both reports: slice by slice with ``pool=False``."""
    rows = [{(row.layer_id, row.slice_id): row for row in report} for report in (a, b)]
    found: list[tuple[LayerReport, LayerReport]] = []
    for one, other in pairing.pairs:
        slices = [which for layer_id, which in rows[0] if layer_id == one.layer_id]
        found += [
            (rows[0][one.layer_id, which], rows[1][other.layer_id, which])
            for which in slices
            if (other.layer_id, which) in rows[1]
        ]
    count = max(1, sum(has_tail(x) and has_tail(y) for x, y in found))
    return tuple(LayerComparison(x, y, count) for x, y in found)
