"""Completion by shells: derived from the parsers, and run where there is such a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyspectra.cli.commands import all_commands
from pyspectra.cli.completion import SHELLS
from pyspectra.cli.main import main


def script(shell: str, capsys: Any) -> str:
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return str(out)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_every_option_is_there(shell: str, capsys: Any) -> None:
    text = script(shell, capsys)
    assert all(name in text for name in all_commands())
    flags = ("base-model", "mp-fit", "no-pool", "sort", "fail-on", "last")
    assert all((f"-l {flag}" if shell == "fish" else f"--{flag}") in text for flag in flags)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_sound(shell: str, capsys: Any, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell}")
    path = tmp_path / "script"
    path.write_text(script(shell, capsys), encoding="utf-8")
    done = subprocess.run([program, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["an"], ["analyze"]),
        (["analyze", "--bas"], ["--base-model"]),
        (["analyze", "m.pt", "--by", "ro"], ["role"]),
        (["analyze", "m.pt", "--sort", "alpha_s"], ["alpha_stderr"]),
        (["analyze", "m.pt", "--method", ""], ["auto", "gram", "svd"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["analyze", "m"], []),  # files
        (["diagnose", "--by"], []),
    ],
)
def test_bash_completes(typed: list[str], completed: list[str], capsys: Any) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    words = " ".join(f"'{word}'" for word in ["pyspectra", *typed])
    asked = (
        f"{script('bash', capsys)}\n"
        f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _pyspectra\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([bash, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed
    assert done.stderr == ""


def test_no_such_shell(capsys: Any) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err
