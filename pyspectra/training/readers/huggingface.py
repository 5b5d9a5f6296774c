"""The state that the Trainer of Hugging Face transformers keeps: ``trainer_state.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import as_integer, as_number
from pyspectra.errors import FormatError
from pyspectra.training.history_file import Lines
from pyspectra.training.readers.reader import Reader, foreign, read_json, records_of

__all__ = ["READER"]

FILE = "trainer_state.json"

# These say how fast the run went, and are no metrics.
_SPEED = re.compile(r"(_runtime|_per_second|_flos|^total_flos|_jit_compilation_time)$")

_SETTINGS = (
    "max_steps", "num_train_epochs", "logging_steps", "eval_steps", "save_steps",
    "train_batch_size", "best_metric", "best_model_checkpoint",
)  # fmt: skip


def _find(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.name == FILE or _has_log(path) else None
    if (path / FILE).exists():
        return path / FILE
    steps = {
        int(found[1]): folder / FILE
        for folder in path.glob("checkpoint-*")
        if (found := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and (folder / FILE).exists()
    }
    return steps[max(steps)] if steps else None


def _has_log(path: Path) -> bool:
    return path.suffix == ".json" and b'"log_history"' in path.read_bytes()


def _read(path: Path) -> Lines:
    state = read_json(path)
    log = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(log, list):
        raise FormatError(f"{str(path)!r} has no list 'log_history'.")
    config = {name: state[name] for name in _SETTINGS if name in state}
    return foreign("transformers", config, _records(log))


def _records(log: list[Any]) -> Iterator[dict[str, Any]]:
    for entry in log:
        # The last entry sums up the whole run: its train_loss is the mean over all steps.
        if not isinstance(entry, dict) or "train_runtime" in entry:
            continue
        values = {name: value for name, value in entry.items() if not _SPEED.search(name)}
        step = as_integer(values.pop("step", None))
        epoch = as_number(values.pop("epoch", None))
        if "learning_rate" in values:
            values["lr"] = values.pop("learning_rate")
        yield from records_of(values, step=step, epoch=epoch)


READER = Reader("transformers", FILE, _find, _read)
