"""The page of a run: what is in it, of runs of every kind."""

from __future__ import annotations

import math

import pytest
from report.test_html_parts import EVIL, checked

from pyspectra.cli.main import main
from pyspectra.training import History, diagnose


def overfitting(path=None, **header):
    history = History(path, **header)
    step = 0
    curve = [(1.0, 1.1), (0.6, 0.8), (0.4, 0.7), (0.3, 0.9), (0.2, 1.0), (0.1, 1.2)]
    for epoch, (train, val) in enumerate(curve, 1):
        for part in range(4):
            step += 1
            history.log(step=step, epoch=epoch - 1 + (part + 1) / 4, n=8, loss=train,
                        lr=1e-3 / epoch)  # fmt: skip
        history.log(step=step, epoch=epoch, val_loss=val, val_accuracy=0.5)
        history.log_spectra(
            step,
            [{"name": "fc<1>", "kind": "linear", "N": 64, "M": 64, "alpha": 4.0 - epoch / 5,
              "alpha_low": 3.0 - epoch / 5, "alpha_high": 5.0 - epoch / 5, "n_tail": 30,
              "n_evals": 64, "stable_rank": 9.0, "spectral_norm": 2.0, "random_p_value": 0.0}],
        )  # fmt: skip
    return history


def test_a_page_has_findings_reading_curves_spectra_and_settings():
    made = diagnose(overfitting(config={"lr": 1e-3, "note": EVIL}, seed=3)).to_html()
    parser = checked(made)
    for words in ("Training run", "overfitting", "What the curves say", "Curves", "Spectra",
                  "train loss", "val loss", "learning rate", "alpha, the exponent", "stable rank",
                  "spectral norm", "fc<1>", "configuration", "seed 3"):  # fmt: skip
        assert words in parser.text, words
    assert parser.tags.count("svg") > 6


def test_a_run_without_findings_says_so():
    history = History()
    history.log(step=1, loss=1.0)
    history.log(step=2, loss=math.nan)
    history.log(step=3, loss=0.5)
    parser = checked(diagnose(history, ignore=["nonfinite"]).to_html())
    assert "loss of the batches" in parser.text
    assert "Nothing was found." in checked(diagnose(History()).to_html()).text


def test_a_watch_writes_its_page(tmp_path):
    torch = pytest.importorskip("torch")
    from pyspectra.training import Watch

    model = torch.nn.Linear(16, 12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", history=tmp_path / "run.jsonl", spectra_every=2)
    for _ in range(4):
        loss = model(torch.randn(8, 16)).square().mean()
        loss.backward()
        optimizer.step()
        watch.step(loss)
    watch.close()
    file = tmp_path / "run.html"
    text = watch.report().to_html(file)
    assert file.read_text(encoding="utf-8") == text
    assert "Training run: run.jsonl" in checked(text).text
    assert "stale_gradient" in text


def test_the_command_writes_it(tmp_path, capsys):
    overfitting(tmp_path / "run.jsonl").close()
    file = tmp_path / "run.html"
    assert main(["diagnose", str(tmp_path / "run.jsonl"), "--html", str(file)]) == 0
    assert "overfitting" in checked(file.read_text(encoding="utf-8")).text
    assert f"wrote {file}" in capsys.readouterr().err
    run = str(tmp_path / "run.jsonl")
    assert main(["diagnose", run, "--html", run]) == 2
    assert History.load(run).epochs


def test_a_failing_write_leaves_the_old_page(tmp_path):
    with pytest.raises(OSError, match="no"):
        diagnose(History()).to_html(tmp_path / "no" / "run.html")
