"""The short version of the suite: an error on a healthy run, or a fault that is missed, fails."""

from __future__ import annotations

import dataclasses

import pytest

from faults.cases import FAULTS, HEALTHY
from faults.loop import run
from faults.suite import findings

EXACT = [fault for fault in FAULTS if fault.exact]
FEW = ("adam", "fused", "lora", "zero-init residual", "accumulation", "frozen body")


@pytest.mark.parametrize("fault", EXACT, ids=lambda fault: fault.name)
def test_exact_faults_come_first(fault):
    architecture = fault.only[len(fault.name) % len(fault.only)]
    found = findings(run(architecture, dataclasses.replace(fault.setup, epochs=2), 0))
    loud = [code for code, severity, _ in found if severity != "info"]
    assert loud, found
    assert loud[0] in fault.codes


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("architecture", ["mlp", "cnn", "transformer"])
def test_healthy_runs_have_no_error(architecture, name):
    found = findings(run(architecture, dataclasses.replace(HEALTHY[name], epochs=2), 7))
    assert [x for x in found if x[1] == "error"] == []
