"""The options of an analysis: each is one record, from which everything else derives.

A record is a field of `AnalyzeOptions` with its default, check and help. From it derive the keyword
of `pyspectra.analyze` (checked by `AnalyzeOptions.from_keywords`, typed by the generated
``_keywords.py``), its paragraph in that function's documentation (`takes_options`), the JSON of a
report (`AnalyzeOptions.to_dict`), the names of groups of metrics, and the flag of the command line
(`records`).
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from pyspectra._support.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_seed,
)
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentValueError, hint_words
from pyspectra.spectra import bootstrap as replicates
from pyspectra.spectra.esd import METHODS
from pyspectra.spectra.estimators import CALIBRATED, parse_estimator
from pyspectra.weights.selection import checked as checked_selection

FUNCTION = "analyze"
FIX_FINGERS = (None, "clip_xmax")
PRECISIONS = ("float64", "fast")

Check = Callable[[str, str, Any], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """One option of an analysis.

    Attributes
    ----------
    name : str
        The keyword of `pyspectra.analyze`, and the field of `AnalyzeOptions`.
    default : object
    help : str
        Sentences for the documentation.
    kind : str
        Its type, as the documentation writes it.
    annotation : str
        Its type, as Python writes it.
    check : callable
        ``check(function, option, value)``, with two names for messages, returns the value to keep.
    brief : str
        A phrase for the command line, in lower case.
    flag : str or None
        How the command line spells it; None if it has no such option.
    metavar : str or None
        What stands for the value in the help of the command line.
    choices : sequence of str
        Where only a few values are allowed.
    parse : callable
        Makes the value of the text on the command line.
    of_metrics : bool
        Whether it asks for the group of metrics of the same name.
    several : bool
        Whether the value is a sequence, whose items `parse` takes one by one.
    """

    name: str
    default: Any
    help: str
    kind: str
    annotation: str
    check: Check
    brief: str
    flag: str | None
    metavar: str | None
    choices: Sequence[str]
    parse: Callable[[str], Any]
    of_metrics: bool
    several: bool

    @property
    def switches(self) -> bool:
        """Whether the flag takes no value."""
        return isinstance(self.default, bool)


def _option(
    default: Any,
    check: Check,
    help: str,
    *,
    kind: str = "bool",
    brief: str = "",
    flag: str | None = "",
    metavar: str | None = None,
    choices: Sequence[str] = (),
    parse: Callable[[str], Any] = str,
    of_metrics: bool = False,
    several: bool = False,
) -> Any:
    """Return a field of `AnalyzeOptions`; `flag` follows from the name unless it is given."""
    known = {
        "check": check, "help": help, "kind": kind, "brief": brief, "flag": flag,
        "metavar": metavar, "choices": choices, "parse": parse, "of_metrics": of_metrics,
        "several": several,
    }  # fmt: skip
    return field(default=default, metadata=known)


# --- checks that are more than one of the policy's ----------------------------------------------


def _optional(check: Check) -> Check:
    return lambda function, name, value: None if value is None else check(function, name, value)


def _count(least: int, most: int | None = None) -> Check:
    return lambda function, name, value: check_count(function, name, value, least=least, most=most)


def _choice(choices: Sequence[Any]) -> Check:
    return lambda function, name, value: check_choice(function, name, value, choices)


def _positive(function: str, name: str, value: Any) -> float:
    return check_number(function, name, value, above=0.0)


def _layers(function: str, _name: str, value: Any) -> tuple[int | str, ...] | None:
    return checked_selection(value, function)


def _estimator(function: str, _name: str, value: Any) -> str:
    return str(parse_estimator(value, function))


def _wildcards(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


@dataclass(frozen=True)
class AnalyzeOptions:
    """The options of `pyspectra.analyze`, checked; each field is a record (see the module)."""

    layers: Sequence[int | str] | int | str | None = _option(
        None, _layers,
        "Which layers: ids, or names, where ``*`` and ``?`` stand for any text, and where a name "
        "stands for all that is below it. All by default. A trailing ``.weight`` may be given.",
        kind="int, str or sequence of them, optional",
        brief="only these: ids (digits) or names, in which * and ? stand for any text; quote those",
        metavar="L", parse=_wildcards, several=True,
    )  # fmt: skip
    estimator: str = _option(
        "ww", _estimator,
        'How the tail is fitted, with arguments or without: ``"ww"``, ``"csn"``, ``"hill(50)"`` '
        "and all others of `pyspectra.fit_powerlaw_batch`, or ``\"farms(window, ops, Q)\"``, the "
        'fit of `pyspectra.farms` (estimator ``"ww"``) on the pooled sub-matrices of each layer.',
        kind="str",
        brief="of the tail exponent, with arguments or without, as in 'hill(50)'", metavar="E",
    )  # fmt: skip
    randomize: bool = _option(
        False, check_flag,
        "Also permute the entries of each matrix at random: what of the spectrum is left, and "
        "which directions survive (correlation traps; `pyspectra.find_traps` tells the entries).",
        brief="also permute the entries of each matrix: what is left, what are traps",
        of_metrics=True,
    )  # fmt: skip
    mp_fit: bool = _option(
        False, check_flag,
        "Also fit the Marchenko-Pastur law to the bulk and count spikes "
        "(`pyspectra.marchenko_pastur`). Whether a layer is a random matrix is always tested: "
        "``random_p_value``.",
        brief="also fit the Marchenko-Pastur law and count spikes",
        of_metrics=True,
    )  # fmt: skip
    detx: bool = _option(
        False, check_flag,
        "Also evaluate the trace-log (ERG) condition.",
        brief="also evaluate the trace-log (ERG) condition",
        of_metrics=True,
    )  # fmt: skip
    fix_fingers: str | None = _option(
        None, _choice(FIX_FINGERS),
        "Clip the largest eigenvalues while that lowers alpha by more than 1, as WeightWatcher "
        'does. Goes with estimator ``"ww"``.',
        kind='{None, "clip_xmax"}',
        brief="clip the largest eigenvalues while that lowers alpha by more than 1",
        choices=tuple(f for f in FIX_FINGERS if f),
    )  # fmt: skip
    xmax: float | None = _option(
        None, _optional(_positive),
        "Leave eigenvalues above it out of the fit.",
        kind="float, optional",
        brief="leave eigenvalues above X out of the fits", metavar="X", parse=float,
    )  # fmt: skip
    drop_largest: int = _option(
        0, _count(0),
        "Leave this many of the largest eigenvalues out of the fit.",
        kind="int",
        brief="leave the K largest eigenvalues out of the fits", metavar="K", parse=int,
    )  # fmt: skip
    vectors: bool = _option(
        False, check_flag,
        "Also measure how localised the eigenvectors are, in the bulk and in the tail.",
        brief="also measure how localised the eigenvectors of bulk and tail are: columns of --csv "
        "and --json",
        of_metrics=True,
    )  # fmt: skip
    pool: bool = _option(
        True, check_flag,
        "Pool the eigenvalues of the slices of a convolution, or report one row a slice.",
        brief="one row a slice of a convolution", flag="--no-pool",
    )  # fmt: skip
    min_evals: int = _option(
        8, _count(1),
        "Layers with fewer eigenvalues are skipped, and listed as such.",
        kind="int",
        brief="skip layers with fewer eigenvalues", metavar="N", parse=int,
    )  # fmt: skip
    max_evals: int | None = _option(
        None, _optional(_count(1)),
        "Layers with more eigenvalues are skipped, and listed as such; None sets no limit.",
        kind="int, optional",
        brief="skip layers with more eigenvalues", metavar="N", parse=int,
    )  # fmt: skip
    method: str = _option(
        "auto", _choice(METHODS),
        "How eigenvalues are computed; see `pyspectra.esd`.",
        kind='{"auto", "gram", "svd"}', brief="for the eigenvalues", metavar="M", choices=METHODS,
    )  # fmt: skip
    precision: str = _option(
        "float64", _choice(PRECISIONS),
        '``"fast"`` solves large matrices by float32 where a measured bound of every eigenvalue '
        "keeps alpha within 2.5e-3; the column ``precision`` says where. Float64 serves the rest, "
        'other estimators than ``"ww"``, other values of `method`, and CUDA devices.',
        kind='{"float64", "fast"}', brief="fast: float32 where a bound keeps alpha within 2.5e-3",
        metavar="P", choices=PRECISIONS,
    )  # fmt: skip
    bootstrap: int = _option(
        0, _count(0, replicates.MAX_REPLICATES),
        "Replicates of each fit, for its ``ci`` and ``p_value``; 0 for no interval (`goodness` has "
        'a p-value nevertheless). Does not go with estimators ``"tpl"`` and ``"farms"``.',
        kind="int",
        brief="refit B replicates for a confidence interval of alpha and a p-value",
        metavar="B", parse=int,
    )  # fmt: skip
    goodness: bool = _option(
        True, check_flag,
        "Test how well a power law fits (``p_value``), with as few replicates as tell the p-value "
        'from 0.1, 64 at most. Of estimators ``"ww"`` and ``"csn"``; `bootstrap` makes more.',
        brief="leave out the test whether a power law fits", flag="--no-goodness",
    )  # fmt: skip
    seed: int = _option(
        0, check_seed,
        "Seed of every random draw, in [0, 2^64). What is drawn for a layer depends on the "
        "seed and the layer's name only.",
        kind="int",
        brief="seed of every random draw", metavar="S", parse=int,
    )  # fmt: skip
    key: str | None = None  # which of the models that a checkpoint holds
    base_model: str | None = None  # name of the model whose weights were subtracted

    def __post_init__(self) -> None:
        for option in records():
            value = option.check(FUNCTION, option.name, getattr(self, option.name))
            object.__setattr__(self, option.name, value)
        self._check_together()

    def _check_together(self) -> None:
        estimator = parse_estimator(self.estimator, FUNCTION)
        replicates.check_bootstrap_goes_with(estimator, self.bootstrap, FUNCTION)
        if self.fix_fingers is not None and estimator.name != "ww":
            raise ArgumentValueError(
                FUNCTION, "fix_fingers", "come with estimator 'ww'", repr(self.estimator)
            )
        cuts = {"xmax": self.xmax, "drop_largest": self.drop_largest or None}
        for name, value in cuts.items():
            if value is None:
                continue
            if self.fix_fingers is not None:
                raise ArgumentValueError(FUNCTION, name, "not come with 'fix_fingers'", repr(value))
            if estimator.name == "farms":
                raise ArgumentValueError(
                    FUNCTION, name, "not come with estimator 'farms'", repr(value)
                )
        if self.max_evals is not None and self.max_evals < self.min_evals:
            raise ArgumentValueError(
                FUNCTION, "max_evals", f"be at least 'min_evals' = {self.min_evals}",
                repr(self.max_evals),
            )  # fmt: skip

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> AnalyzeOptions:
        """Check the keywords of a call of `pyspectra.analyze`.

        Raises
        ------
        TypeError
            If there is no such option, with the one that was probably meant.
        ArgumentValueError, ArgumentTypeError
            If a value is out of range or of the wrong kind.
        """
        known = {option.name for option in records()}
        for name in keywords:
            if name not in known:
                hint = hint_words(did_you_mean(name, sorted(known)))
                raise TypeError(f"{FUNCTION}: there is no option {name!r}.{hint}")
        return cls(**keywords)

    @property
    def may_be_fast(self) -> bool:
        """Whether spectra may come from float32: alpha's change is bounded for this fit alone."""
        plain = self.estimator == "ww" and self.fix_fingers is None and not self.cuts_above
        unmoved = not (self.randomize or self.vectors)
        return self.precision == "fast" and self.method == "auto" and plain and unmoved

    @property
    def tests_goodness(self) -> bool:
        """Whether fits get a p-value."""
        name = parse_estimator(self.estimator, FUNCTION).name
        return self.bootstrap > 0 or (self.goodness and name in CALIBRATED)

    @property
    def cuts_above(self) -> bool:
        """Whether the fit leaves out large eigenvalues that were given, not found."""
        return self.xmax is not None or self.drop_largest > 0

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of metrics that were asked for."""
        return "default", *(o.name for o in records() if o.of_metrics and getattr(self, o.name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnalyzeOptions:
        """Return the options that `to_dict` gave; unknown names, of later versions, are refused."""
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise TypeError(f"{FUNCTION}: there is no option {unknown[0]!r}.")
        return cls(**values)


def records() -> tuple[Option, ...]:
    """Every option of an analysis, in the order of its signature."""
    return _RECORDS


def _record(f: Field[Any]) -> Option:
    known = dict(f.metadata)
    if known["flag"] == "":
        known["flag"] = f"--{f.name.replace('_', '-')}"
    return Option(name=f.name, default=f.default, annotation=str(f.type), **known)


# Fields without metadata say what was analysed, not how.
_RECORDS = tuple(_record(f) for f in fields(AnalyzeOptions) if f.metadata)


def takes_options(function: _Function) -> _Function:
    """Complete the signature and the documentation of a function that takes ``**options``.

    The keywords of the options come after its positional arguments; ``{options}`` in its docstring
    becomes their paragraphs.
    """
    plain = inspect.signature(function)
    given = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
    first = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    own = given[len(first) :]
    kind = inspect.Parameter.KEYWORD_ONLY
    keywords = [
        inspect.Parameter(o.name, kind, default=o.default, annotation=o.annotation)
        for o in records()
    ]
    whole = plain.replace(parameters=[*first, *keywords, *own])
    function.__signature__ = whole  # type: ignore[attr-defined]
    if function.__doc__:  # python -OO strips it
        function.__doc__ = function.__doc__.replace("{options}", _paragraphs("    "))
    return function


def _paragraphs(indent: str) -> str:
    """Return the options as the paragraphs of a NumPy docstring."""
    lines = []
    for option in records():
        lines.append(f"{option.name} : {option.kind}")
        default = "" if option.default is None else f" Default {option.default!r}."
        wrapped = textwrap.wrap(option.help + default, 100 - 2 * len(indent))
        lines += [f"    {line}" for line in wrapped]
    return textwrap.indent("\n".join(lines), indent).lstrip()
