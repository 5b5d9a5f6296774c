"""The options of an analysis: everything about them derives from their records."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from typing import get_type_hints

import pytest

import pyspectra as ps
from pyspectra.report import _keywords
from pyspectra.report.options import AnalyzeOptions, records


def test_every_option_is_a_keyword_with_its_default_and_documented() -> None:
    signature = inspect.signature(ps.analyze)
    assert ps.analyze.__doc__ is not None
    for option in records():
        parameter = signature.parameters[option.name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default == option.default or parameter.default is option.default
        assert f"    {option.name} : {option.kind}\n" in ps.analyze.__doc__
    assert "{options}" not in ps.analyze.__doc__


def test_type_checkers_know_every_option() -> None:
    """The file is generated: `make stubs`."""
    assert list(get_type_hints(_keywords.AnalyzeKeywords)) == [o.name for o in records()]


def test_options_survive_json() -> None:
    options = AnalyzeOptions(layers=[3, "a.*"], xmax=2, detx=True, base_model="base", key="ema")
    plain = json.loads(json.dumps(options.to_dict()))
    assert set(plain) == {f.name for f in fields(AnalyzeOptions)}
    assert AnalyzeOptions.from_dict(plain) == options


def test_options_of_a_later_version_are_refused() -> None:
    with pytest.raises(TypeError, match="no option 'clairvoyance'"):
        AnalyzeOptions.from_dict({"clairvoyance": True})


def test_a_misspelt_option_is_answered_with_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"analyze: there is no option 'boostrap'.*'bootstrap'"):
        ps.analyze({}, boostrap=3)  # type: ignore[call-arg]


def test_groups_are_the_options_that_ask_for_metrics() -> None:
    assert AnalyzeOptions(detx=True, vectors=True).groups == ("default", "detx", "vectors")
