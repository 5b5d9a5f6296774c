"""README and guide: their links lead somewhere, their Python runs, their commands parse."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pyspectra.cli.commands import all_commands

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DATASET = re.compile(r'"(/usr/share/datasets/[^"]+)"')
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [code for written, code in BLOCK.findall(page.read_text()) if written == language]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [t for t in LINK.findall(page.read_text()) if "://" not in t]
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("safetensors", "pandas", "matplotlib", "torch"):
        pytest.importorskip(package)
    if any("import peft" in code for code in blocks(page, "python")):
        pytest.importorskip("peft", reason="the page adapts a model with PEFT")
    from safetensors.numpy import save_file

    wanted = {Path(folder) for code in blocks(page, "python") for folder in DATASET.findall(code)}
    if missing := [folder.name for folder in wanted if not folder.is_dir()]:
        pytest.skip(f"Debian's package dataset-{missing[0]} is not installed")
    rng = np.random.default_rng(0)
    before = {f"block.{i}.fc.weight": rng.standard_normal((60, 40)) for i in range(3)}
    after = {key: W + 0.1 * rng.standard_normal(W.shape) for key, W in before.items()}
    (tmp_path / "run").mkdir()
    files = {"before": before, "tuned": after, "model": after, "run/step_1": before,
             "run/step_2": after, "run/step_3": after}  # fmt: skip
    for file, tensors in files.items():
        save_file(tensors, tmp_path / f"{file}.safetensors")
    monkeypatch.chdir(tmp_path)
    import torch

    namespace: dict[str, object] = {}
    threads = torch.get_num_threads()
    try:
        for code in blocks(page, "python"):
            if "Trainer(" in code:  # needs a trainer of others: tests/training/test_three_lines.py
                continue
            exec(compile(code, name(page), "exec", dont_inherit=True), namespace)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse(page: Path) -> None:
    text = "\n".join(blocks(page, ""))
    lines = [line for line in text.splitlines() if line.removeprefix("$ ").startswith("pyspectra ")]
    for line in lines:
        words = shlex.split(line.removeprefix("$ ").split("|")[0], comments=True)[1:]
        if words[0] == "COMMAND":
            continue
        parser = argparse.ArgumentParser(exit_on_error=False)
        all_commands()[words[0]].arguments(parser)
        parser.parse_args(words[1:])
