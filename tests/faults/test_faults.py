"""The short version of the suite: an error on a healthy run, or a fault that is missed, fails."""

from __future__ import annotations

import dataclasses
import sys
import warnings

import pytest

from faults.cases import FAULTS, HEALTHY
from faults.loop import run
from faults.programs import PROGRAMS
from faults.recording import judged, load, record, record_all
from faults.suite import OTHERS, Row, fault_table, healthy_table, others_in
from pyspectra.training import Thresholds

EXACT = [fault for fault in FAULTS if fault.exact]
FEW = ("adam", "fused", "lora", "zero-init residual", "accumulation", "frozen body")


def short(setup):
    return dataclasses.replace(setup, epochs=2)


def concluded(architecture, setup, seed):
    return [(x.code, x.severity, x.step) for x in run(architecture, setup, seed).report()]


def errors(found):
    return [x for x in found if x[1] == "error"]


@pytest.mark.parametrize("fault", EXACT, ids=lambda fault: fault.name)
def test_exact_faults_come_first(fault):
    architecture = fault.only[len(fault.name) % len(fault.only)]
    found = concluded(architecture, fault.setup, 0)
    loud = [code for code, severity, _ in found if severity != "info"]
    assert loud, found
    assert loud[0] in fault.codes


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("architecture", ["mlp", "cnn", "transformer"])
def test_healthy_runs_have_no_error(architecture, name):
    assert errors(concluded(architecture, short(HEALTHY[name]), 7)) == []


def test_the_gate_can_fail():
    """A threshold that no run can keep makes an error of a healthy one."""
    found = record("mlp", short(HEALTHY["adam"]), 7)
    assert errors(judged(found)) == []
    assert errors(judged(found, Thresholds(repeat_difference=-1.0))) != []


def test_a_recording_says_what_the_watch_said(tmp_path):
    fault = next(fault for fault in FAULTS if fault.name == "forgotten zero_grad")
    kept = record("mlp", fault.setup, 1)
    assert judged(kept) == concluded("mlp", fault.setup, 1)
    record_all(tmp_path, ["mlp"], [1], "metric keeps")
    [path] = tmp_path.rglob("*.gz")
    assert judged(load(path))[0][0] == "tensor_retained"


def test_the_tables(capsys, tmp_path):
    warning = (("update_ratio", "warning", 60),)
    rows = [
        Row("fault", "a", "mlp", 0, tmp_path, ("update_ratio",), False, warning),
        Row("fault", "a", "mlp", 1, tmp_path, ("update_ratio",), False),
        Row("healthy", "b", "mlp", 0, tmp_path, found=warning),
        Row("healthy", "b", "mlp", 1, tmp_path),
    ]
    fault_table(rows, sys.stdout)
    healthy_table(rows, sys.stdout)
    out = capsys.readouterr().out
    assert "| a | statistical | 2 | 0.50 | 0.50 | 60 |  |" in out
    assert "| mlp | 2 | 0 | 1 (50.0 %) | 0.500 | update_ratio 1 |" in out


def test_a_page_that_is_written_anew_keeps_other_programs(tmp_path):
    page = tmp_path / "page.md"
    assert others_in(None) == others_in(page) == ""
    page.write_text(f"# Old{OTHERS}\nkept\n")
    assert others_in(page) == f"{OTHERS}\nkept\n"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_healthy_programs_of_other_kinds_are_left_alone(program):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(program().report())
    assert [(x.code, x.message) for x in found if x.severity != "info"] == []
