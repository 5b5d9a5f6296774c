"""The command line: what goes to which stream, with which status, and never a traceback."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.cli import output
from pyspectra.cli.commands import all_commands
from pyspectra.cli.main import main
from pyspectra.errors import missing_dependency
from pyspectra.report.options import records

save_file = pytest.importorskip("safetensors.numpy").save_file

Captured = pytest.CaptureFixture[str]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights() -> dict[str, np.ndarray]:
    return {
        "block.0.fc.weight": random(24, 20),
        "block.1.fc.weight": random(30, 20, seed=1),
        "block.1.fc.bias": random(30),
        "conv.weight": random(12, 10, 3, 3),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(weights(), path)
    return path


@pytest.fixture
def partly_failed(tmp_path: Path) -> Path:
    tensors = weights()
    tensors["block.0.fc.weight"][0, 0] = np.nan
    path = tmp_path / "nan.safetensors"
    save_file(tensors, path)
    return path


def pyspectra(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyspectra", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, **options
    )


def error_line(err: str) -> str:
    """Return the error, after checking that it is one line."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("pyspectra: error: ")
    return lines[0]


# --- what it writes -----------------------------------------------------------------------------


def test_table_on_stdout_and_nothing_else(model: Path) -> None:
    done = pyspectra("analyze", model)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model} · safetensors · 3 layers")
    assert sum("linear" in line or "conv2d" in line for line in lines) == 3
    assert "\x1b" not in done.stdout
    assert "verdict  " in done.stdout


def test_the_table_in_a_pipe_is_not_narrowed(tmp_path: Path) -> None:
    name = ".".join(["a_rather_long_component"] * 12)
    save_file({f"{name}.weight": random(20, 20)}, tmp_path / "m.safetensors")
    done = pyspectra("analyze", tmp_path / "m.safetensors", env={**os.environ, "COLUMNS": "40"})
    assert name in done.stdout


def test_csv_and_json_files(model: Path, tmp_path: Path, capsys: Captured) -> None:
    table, data = tmp_path / "a.csv", tmp_path / "a.json"
    assert main(["analyze", str(model), "--csv", str(table), "--json", str(data)]) == 0
    report = ps.analyze(model)
    assert table.read_text() == report.to_csv()
    assert json.loads(data.read_text()) == json.loads(report.to_json())
    out, err = capsys.readouterr()
    assert "verdict  " in out
    assert err.splitlines() == [f"pyspectra: wrote {table}", f"pyspectra: wrote {data}"]


def test_quiet(model: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["analyze", str(model), "-q", "--csv", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "a.csv").read_text() == ps.analyze(model).to_csv()
    assert main(["analyze", str(model), "-q", "--csv", "-"]) == 0
    assert capsys.readouterr() == (ps.analyze(model).to_csv(), "")


def test_json_to_stdout_alone(model: Path, capsys: Captured) -> None:
    assert main(["analyze", str(model), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["schema"] == "pyspectra.report/1"
    assert err == ""


def test_csv_to_stdout_alone(model: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["--csv", "-", "--json", str(tmp_path / "a.json"), "--dialect", "weightwatcher"]
    assert main(["analyze", str(model), *arguments]) == 0
    out, _ = capsys.readouterr()
    assert out == ps.analyze(model).to_csv(dialect="weightwatcher")
    assert len(json.loads((tmp_path / "a.json").read_text())["layers"]) == 3


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--estimator", "hill(9)"], {"estimator": "hill(9)"}),
        (["--bootstrap", "20", "--seed", "4"], {"bootstrap": 20, "seed": 4}),
        (["--layers", "1", "--layers", "block.1*"], {"layers": [1, "block.1*"]}),
        (["--layers", "1,block.1*"], {"layers": [1, "block.1*"]}),
        (["--xmax", "2"], {"xmax": 2.0}),
        (["--drop-largest", "2"], {"drop_largest": 2}),
        (["--layers", "*.fc"], {"layers": ["*.fc"]}),
        (["--detx"], {"detx": True}),
        (["--vectors"], {"vectors": True}),
        (["--randomize", "--mp-fit"], {"randomize": True, "mp_fit": True}),
        (["--fix-fingers", "clip_xmax"], {"fix_fingers": "clip_xmax"}),
        (["--no-pool"], {"pool": False}),
        (["--min-evals", "21"], {"min_evals": 21}),
        (["--max-evals", "50"], {"max_evals": 50}),
        (["--method", "svd"], {"method": "svd"}),
        (["-j", "1"], {}),
    ],
)
def test_options_reach_the_analysis(
    model: Path, capsys: Captured, arguments: list[str], options: dict[str, Any]
) -> None:
    assert main(["analyze", str(model), "--csv", "-", *arguments]) == 0
    out, _ = capsys.readouterr()
    assert out == ps.analyze(model, **options).to_csv()
    assert list(csv.DictReader(io.StringIO(out)))


def test_a_pattern_leaves_the_model_alone(model: Path, capsys: Captured) -> None:
    assert main(["analyze", "--layers", "block.0*", str(model), "--csv", "-"]) == 0
    assert [row["name"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == [
        "block.0.fc"
    ]


def test_every_option_of_an_analysis_has_its_flag(capsys: Captured) -> None:
    assert main(["analyze", "--help"]) == 0
    text = capsys.readouterr().out
    assert [o.name for o in records() if o.flag is not None and f" {o.flag}" not in text] == []


@pytest.mark.parametrize("name", all_commands())
def test_help_has_examples_that_parse(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    command = all_commands()[name]
    assert command.examples
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    for line in command.examples:
        assert line in text
        words = shlex.split(line.split("|")[0])
        assert words[:2] == ["pyspectra", name]
        parser.parse_args(words[2:])
    assert "exit status: 0 done" in text


def test_threads_are_put_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = ps.get_num_threads(), []
    analyze = ps.analyze

    def spy(*args: Any, **options: Any) -> ps.Report:
        seen.append(ps.get_num_threads())
        return analyze(*args, **options)

    monkeypatch.setattr(ps, "analyze", spy)
    assert main(["analyze", str(model), "-j", "1", "-q"]) == 0
    assert seen == [1]
    assert ps.get_num_threads() == before


def test_info_and_version(capsys: Captured) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == f"{ps.show_config()}\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyspectra {ps.__version__}\n"


def test_help_is_quick_and_needs_no_heavy_thing() -> None:
    code = (
        "import sys; from pyspectra.cli.main import main; assert main(['analyze', '--help']) == 0\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'rich.console'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: pyspectra analyze" in done.stdout


# --- strict -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--strict",), 1)])
def test_failed_layers(
    partly_failed: Path, capsys: Captured, arguments: tuple[str, ...], status: int
) -> None:
    assert main(["analyze", str(partly_failed), *arguments]) == status
    out, err = capsys.readouterr()
    assert "not finite" in out
    assert ("1 of 3 fits failed, 0 layers unreadable" in err) == bool(status)


def test_strict_is_content_with_a_sound_model(model: Path, capsys: Captured) -> None:
    assert main(["analyze", str(model), "--strict"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--strict",), 1)])
def test_unreadable_layers(
    model: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
) -> None:
    load = ps.weights.Layer.load

    def broken(layer: ps.weights.Layer, allocate: Any = None) -> Any:
        if layer.name == "conv":
            raise ps.FormatError("the disk\nhas a hole")
        return load(layer, allocate)

    monkeypatch.setattr(ps.weights.Layer, "load", broken)
    assert main(["analyze", str(model), *arguments]) == status
    out, err = capsys.readouterr()
    assert r"could not be read: the disk\nhas a hole  (conv)" in out
    assert ("1 layer unreadable" in err) == bool(status)


# --- what cannot be done ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["analyse", "m"], "there is no command 'analyse'. Hint: did you mean analyze?"),
        (["plot"], "there is no command 'plot'. Hint: there are analyze, "),
        (["analyze", "{model}", "--bootstap", "9"],
         "has no option --bootstap. Hint: did you mean --bootstrap?"),
        (["analyze", "--bootstap=9", "{model}"], "did you mean --bootstrap?"),
        (["analyze", "{model}", "--layer", "1"], "did you mean --layers?"),
        (["analyze", "{model}", "extra"], "one argument too many, 'extra'"),
        (["analyze", "{model}", "--method", "grams"], "Hint: did you mean 'gram'"),
        (["analyze", "{model}", "--layers", ","], "--layers must not be empty"),
        (["analyze", "{model}", "--device", "gpu"], "--device must be"),
        (["analyze", "{model}", "--xmax", "two"], "--xmax must be positive and finite, got 'two'"),
        (["analyze"], "required: MODEL"),
        (["analyze", "{model}", "--nonsense"], "--nonsense"),
        (["analyze", "{model}", "--min-evals", "0"], "--min-evals must be a positive integer"),
        (["analyze", "{model}", "-j", "two"], "-j must be an integer from 1 to 4096, got 'two'"),
        (["analyze", "{model}", "--estimator", "magic"], "--estimator must be one of"),
        (["analyze", "{model}", "--estimator", "tpl", "--bootstrap", "9"],
         "--bootstrap must be 0 with estimator 'tpl'"),
        (["analyze", "{model}", "--seed", "-1"], "--seed must be an integer"),
        (["analyze", "{model}", "--estimator", "hill", "--fix-fingers", "clip_xmax"],
         "--fix-fingers must come with estimator 'ww'"),
        (["analyze", "{model}", "--layers", "nope"], "--layers must hold what the model has"),
        (["analyze", "{model}", "--layers", "99"], "[99]"),
        (["analyze", "{model}", "--dialect", "weightwatcher"], "--dialect goes with --csv"),
        (["analyze", "{model}", "--csv", "-", "--json", "-"], "cannot both"),
        (["analyze", "{model}", "--min-evals", "1000"], "no layer of"),
        (["analyze", "no/such/model"], "MODEL: no such file or folder: 'no/such/model'"),
        (["analyze", ""], "MODEL must not be empty"),
        (["analyze", "a\0b"], "a"),
    ],
)  # fmt: skip
def test_unusable_arguments(
    model: Path, capsys: Captured, arguments: list[str], words: str
) -> None:
    assert main([a.format(model=model) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in error_line(err)


def truncated(path: Path) -> Path:
    save_file(weights(), path / "m.safetensors")
    content = (path / "m.safetensors").read_bytes()
    (path / "m.safetensors").write_bytes(content[: len(content) // 2])
    return path / "m.safetensors"


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return write


def without_matrices(path: Path) -> Path:
    save_file({"a.bias": random(3)}, path / "m.safetensors")
    return path / "m.safetensors"


@pytest.mark.parametrize(
    "make",
    [
        truncated,
        without_matrices,
        written("m.safetensors", b""),
        written("m.safetensors", b"\xff" * 100),
        written("m.npz", b"PK not really"),
        written("m.onnx", b""),
        written("notes.txt", b"hello"),
        written("line\nbreak.txt", b"hello"),
        lambda path: path,  # an empty folder
    ],
)
def test_unusable_models(make: Callable[[Path], Path], tmp_path: Path, capsys: Captured) -> None:
    assert main(["analyze", str(make(tmp_path))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(error_line(err)) > 40


def test_missing_dependency(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_torch(*_: Any, **__: Any) -> None:
        raise missing_dependency("torch", "reading a torch checkpoint", extra="torch")

    monkeypatch.setattr(ps, "analyze", needs_torch)
    assert main(["analyze", str(tmp_path / "m.pt")]) == 2
    line = error_line(capsys.readouterr().err)
    assert "needs torch" in line
    assert "pip install" in line


def test_a_fault_of_the_package_is_one_line_too(
    model: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ps, "analyze", lambda *_, **__: 1 / 0)
    assert main(["analyze", str(model)]) == 2
    line = error_line(capsys.readouterr().err)
    assert "ZeroDivisionError" in line
    assert "test_cli.py" in line


# --- output paths -------------------------------------------------------------------------------


@pytest.fixture
def no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def analyze(*_: Any, **__: Any) -> None:
        pytest.fail("the analysis ran before the output paths were checked")

    monkeypatch.setattr(ps, "analyze", analyze)


@pytest.mark.usefixtures("no_analysis")
@pytest.mark.parametrize("option", ["--csv", "--json"])
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{folder}/missing/a", "there is no folder"),
        ("{folder}", "is a folder"),
        ("", "an empty path"),
        ("{model}", "would overwrite the model"),
        ("{folder}/link", "would overwrite the model"),
        ("{model}/a", "there is no folder"),
        ("a\0b", "NUL"),
    ],
)
def test_bad_output_paths(
    model: Path, capsys: Captured, option: str, target: str, words: str
) -> None:
    (model.parent / "link").symlink_to(model)
    target = target.format(folder=model.parent, model=model)
    assert main(["analyze", str(model), option, target]) == 2
    assert words in error_line(capsys.readouterr().err)


@pytest.mark.usefixtures("no_analysis")
def test_one_path_for_both(model: Path, tmp_path: Path, capsys: Captured) -> None:
    path = str(tmp_path / "a")
    assert main(["analyze", str(model), "--csv", path, "--json", path]) == 2
    assert "same file" in error_line(capsys.readouterr().err)


@pytest.mark.usefixtures("no_analysis")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(model: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert main(["analyze", str(model), "--csv", str(folder / "a.csv")]) == 2
    assert "not writable" in error_line(capsys.readouterr().err)


def test_a_write_that_fails_late(
    model: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyspectra._support.files.write_text", full)
    assert main(["analyze", str(model), "--csv", str(tmp_path / "a.csv")]) == 2
    assert "a.csv': No space left on device" in error_line(capsys.readouterr().err)


def test_a_link_is_written_through(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    assert main(["analyze", str(model), "-q", "--csv", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == ps.analyze(model).to_csv()


def test_a_pipe_is_written_to_and_not_replaced(model: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert main(["analyze", str(model), "-q", "--csv", str(pipe)]) == 0
        assert reader.communicate()[0] == ps.analyze(model).to_csv()
    assert pipe.is_fifo()


# --- ends that come early -----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--csv", "-"), ("--json", "-")])
def test_a_reader_who_leaves(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "m.safetensors"
    save_file({f"block.{i}.fc.weight": random(9, 9, seed=i) for i in range(600)}, path)
    command = [sys.executable, "-m", "pyspectra", "analyze", str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_interrupted(model: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ps, "analyze", interrupt)
    assert main(["analyze", str(model)]) == 130
    assert capsys.readouterr() == ("", "pyspectra: interrupted\n")


def test_interrupted_for_real(model: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "import pyspectra\n"
        "from pyspectra.cli.main import main\n"
        # A shell without job control has its background jobs ignore it, and so do theirs.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "pyspectra.analyze = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(main(['analyze', sys.argv[1]]))\n"
    )
    command = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pyspectra: interrupted\n")


def test_messages_stay_one_line(capsys: Captured) -> None:
    output.message("a\nb\x1b[31m")
    assert capsys.readouterr().err == "pyspectra: a b\\x1b[31m\n"


def test_terminals_that_know_no_unicode(model: Path) -> None:
    done = pyspectra("analyze", model, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "#" in done.stdout
    missing = pyspectra("analyze", "né", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert missing.returncode == 2
    assert r"n\xe9" in missing.stderr


@pytest.mark.skipif(os.name != "posix", reason="shell redirections")
@pytest.mark.parametrize(
    ("redirection", "words"), [(">&-", "output is closed"), (">/dev/full", "output: No space left")]
)
def test_standard_output_that_cannot_be_written(model: Path, redirection: str, words: str) -> None:
    if redirection.endswith("full") and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    command = f"{sys.executable} -m pyspectra analyze '{model}' {redirection}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"pyspectra: error: standard {words}" + done.stderr.split(words, 1)[1]
    assert done.stderr.count("\n") == 1


def test_the_table_says_how_many_eigenvalues_the_fit_left_out(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    low = random(40, 30) @ np.diag(np.r_[np.ones(20), np.full(10, 1e-7)]).astype(np.float32)
    save_file({"a.weight": low, "b.weight": random(40, 30) * np.float32(1e-3)}, path)
    done = pyspectra("analyze", path)
    assert "in 1 layer more than a tenth of the eigenvalues lie at or below 1e-10" in done.stdout


@pytest.mark.parametrize("count", ["100000", "99999999999999999999"])
def test_too_many_threads_are_one_line(model: Path, count: str) -> None:
    done = pyspectra("analyze", model, "-j", count)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pyspectra: error: -j must be an integer from 1 to 4096, got ")


def test_a_part_of_a_checkpoint(tmp_path: Path, capsys: Captured) -> None:
    torch = pytest.importorskip("torch")
    parts = {"model": {"a.weight": torch.ones(20, 20)}, "ema": {"b.weight": torch.eye(20)}}
    torch.save(parts, tmp_path / "m.pt")
    assert main(["analyze", str(tmp_path / "m.pt"), "--key", "ema", "--csv", "-"]) == 0
    assert [r["name"] for r in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["b"]
    assert ps.analyze(parts, key="ema").options.key == "ema"
    assert ps.analyze(parts).options.key is None
    assert main(["analyze", str(tmp_path / "m.pt"), "--key", "emma"]) == 2
    assert "--key " in error_line(capsys.readouterr().err)


def test_base_model(model: Path, tmp_path: Path) -> None:
    tuned = {name: x + 0.01 * random(*x.shape, seed=9) for name, x in weights().items()}
    save_file(tuned, tmp_path / "tuned.safetensors")
    done = pyspectra("analyze", tmp_path / "tuned.safetensors", "--base-model", model, "--csv", "-")
    assert done.returncode == 0
    expected = ps.analyze(tmp_path / "tuned.safetensors", base_model=model).to_csv()
    assert done.stdout == expected
    done = pyspectra("analyze", model, "--base-model", tmp_path / "missing.safetensors")
    assert done.returncode == 2
    assert done.stderr.startswith("pyspectra: error: --base-model: no such file or folder: ")
