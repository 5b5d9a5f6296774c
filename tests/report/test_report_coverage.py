"""Coverage: the share of the parameters in matrices, and no verdict of left-overs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import pyspectra as ps
from pyspectra.cli.main import main
from pyspectra.report.coverage import Coverage, percent

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


WHOLE = normal(50, 40)
BIASED = {"a.weight": normal(64, 48), "a.bias": normal(64), "norm.weight": normal(4000)}


def test_vectors_do_not_count() -> None:
    report = ps.analyze(BIASED)
    assert report.coverage == Coverage(analysed=64 * 48)
    assert (report.coverage.share, report.coverage.readable) == (1.0, 1.0)
    assert report.coverage.words == "all of the parameters in matrices"
    assert "All of the parameters in matrices were analysed." in report.verdict.text


def test_tied_weights_count_once_and_parts_not_at_all() -> None:
    import torch

    model = torch.nn.ModuleDict({
        "wte": torch.nn.Embedding(50, 20), "c_attn": torch.nn.Linear(20, 60, bias=False),
        "head": torch.nn.Linear(20, 50, bias=False),
    })  # fmt: skip
    model["head"].weight = model["wte"].weight
    report = ps.analyze(model)
    assert "c_attn[q]" in report
    assert report.coverage == Coverage(analysed=50 * 20 + 60 * 20)
    # Of a fused layer only a part: the rest was left out.
    part = ps.analyze(model, layers="c_attn[q]").coverage
    assert part == Coverage(analysed=20 * 20, left_out=40 * 20 + 50 * 20)


def test_slices_count_as_one_layer() -> None:
    report = ps.analyze({"conv.weight": normal(20, 16, 2, 2)}, pool=False)
    assert len(report) == 4
    assert report.coverage == Coverage(analysed=20 * 16 * 4)


@pytest.mark.parametrize("options", [{"layers": "a"}, {"min_evals": 44}, {"max_evals": 44}])
def test_what_the_options_leave_out_is_not_called_unreadable(options: dict[str, Any]) -> None:
    report = ps.analyze({"a.weight": normal(64, 48), "b.weight": WHOLE}, **options)
    assert report.coverage.left_out in (64 * 48, 50 * 40)
    assert (report.coverage.unread, report.coverage.readable) == (0, 1.0)
    assert report.verdict.label == "no structure"
    assert "The options left out" in report.verdict.text


def test_left_overs_of_a_model_get_no_verdict() -> None:
    packed = {f"{i}.weight": np.ones((200, 64), np.int32) for i in range(3)}
    report = ps.analyze({"fc.weight": WHOLE, **packed})
    assert report.verdict.label == "cannot be judged"
    assert report.verdict.text.startswith(
        "Cannot be judged: only 4.9 % of the parameters in matrices could be analysed"
    )
    assert "integer dtype int32" in report.coverage.why
    assert (report.coverage.n_unread, report.coverage.enough) == (3, False)


def test_half_is_enough_and_a_little_less_is_not() -> None:
    half = ps.analyze({"a.weight": WHOLE, "b.weight": WHOLE.astype(np.int8)})
    less = ps.analyze({"a.weight": WHOLE, "b.weight": np.ones((51, 40), np.int8)})
    assert (half.coverage.enough, half.verdict.label) == (True, "no structure")
    assert (less.coverage.enough, less.verdict.label) == (False, "cannot be judged")


def test_a_layer_without_a_spectrum_was_not_analysed() -> None:
    report = ps.analyze({"a.weight": normal(64, 48), "b.weight": np.full((30, 20), np.nan)})
    assert report.coverage == Coverage(64 * 48, unread=600, n_unread=1, why="not finite")
    assert "16.3 % could not be (1 tensor; not finite)." in report.verdict.text


def test_of_a_change_what_did_not_change_was_compared() -> None:
    base = {"a.weight": normal(64, 48), "b.weight": WHOLE}
    tuned = {**base, "a.weight": base["a.weight"] + normal(64, 48)}
    assert ps.analyze(tuned, base_model=base).coverage == Coverage(64 * 48 + 2000)
    grown = {**base, "head.weight": normal(900, 64)}
    report = ps.analyze({**grown, "b.weight": WHOLE + 1}, base_model=base)
    assert report.verdict.label == "cannot be judged"
    assert report.verdict.text.startswith("Cannot be judged: only 8.0 %")


@pytest.mark.parametrize(
    ("part", "total", "words"),
    [(7, 7, "all"), (0, 7, "none"), (9999, 10_000, "99.9 %"), (1, 10_000, "less than 0.1 %"),
     (0, 0, "all"), (10**12 - 1, 10**12, "99.9 %")],
)  # fmt: skip
def test_a_share_never_says_more_than_it_is(part: int, total: int, words: str) -> None:
    assert percent(part, total) == words


def test_every_view_says_it(capsys: Any) -> None:
    report = ps.analyze({"a.weight": normal(64, 48), "b.weight": WHOLE.astype(np.int8)})
    report.print()
    words = "60.5 % of the parameters in matrices"
    assert words in " ".join(capsys.readouterr().out.split())
    coverage = report.to_dict()["coverage"]
    assert coverage["share"] == pytest.approx(3072 / 5072)
    assert (coverage["analysed"], coverage["unread"]) == (3072, 2000)


def test_nothing_to_analyse_is_not_called_all_of_it() -> None:
    plan = ps.describe({"fc.bias": np.ones(8)})
    assert plan.coverage.words == "no parameters in matrices"
    assert "0 parameters" in str(plan).replace("\n", " ")


def test_of_nothing_no_sentence_says_only(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": np.full_like(WHOLE, np.nan)}, path)
    assert main(["analyze", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "All could not be (1 tensor; not finite)." in " ".join(out.split())
    assert "only" not in err
    assert "none of the parameters in matrices could be analysed: no verdict" in err


def test_one_layer_is_not_any_of_one() -> None:
    text = ps.analyze({"a.weight": WHOLE}).verdict.text
    assert text.startswith("No structure detected in the only layer with a fit, whatever its alpha")


def test_it_is_saved_with_the_report(tmp_path: Path) -> None:
    report = ps.analyze({"a.weight": WHOLE, "b.weight": np.ones((51, 40), np.int8)})
    report.save(tmp_path / "r.npz")
    assert ps.Report.load(tmp_path / "r.npz").coverage == report.coverage


@pytest.mark.parametrize("flags", [[], ["-q"], ["--strict"]])
def test_the_command_says_so_by_its_status(flags: list[str], tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": WHOLE, "b.weight": np.ones((51, 40), np.int8)}, path)
    assert main(["analyze", str(path), *flags]) == 1
    assert "only 49.5 % of the parameters in matrices" in capsys.readouterr().err
    assert main(["analyze", str(path), *flags, "--layers", "a"]) == 1
    save_file({"a.weight": WHOLE, "c.weight": normal(200, 64)}, path)
    assert main(["analyze", str(path), *flags, "--layers", "a"]) == 0
