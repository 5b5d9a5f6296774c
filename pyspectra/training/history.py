"""The record of a training run, in memory and in a file that is only appended to."""

from __future__ import annotations

import sys
import time
import uuid
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import (
    check_choice,
    check_count,
    check_number,
    check_path,
    shown,
)
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.ops import build_info
from pyspectra.training.history_file import (
    FIELDS,
    SCHEMA,
    cut,
    decode_line,
    encode_line,
    jsonable,
    read_lines,
)
from pyspectra.training.history_store import Store
from pyspectra.training.metric_kinds import split_and_metric
from pyspectra.training.recorded_run import RecordedRun

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["History"]

RESERVED = frozenset(
    (*FIELDS, "t", "segment", "nonfinite", "finding", "spectra", "schema", "resumed_at")
)
KINDS = ("running", "post")


class History(RecordedRun):
    """What a training run reported, step by step and epoch by epoch.

    In memory it is a list of records. With a path it is also a file that is only appended to, with
    one JSON object in each line. The file is at most a second or a hundred records behind, so that
    a run that is killed loses no more than that. Values are plain numbers: a scalar that is on a
    device is fetched together with others when the file is written, and keeps no graph.

    Parameters
    ----------
    path : str or path, optional
        The file, created by the first record. A file that is there already is another run's: it is
        moved to ``path.1``. Use `History.open` to go on with a run, `History.load` to read one.
    config : mapping or object, optional
        Settings of the run, kept in the first line of the file.
    seed : int, optional
        Seed of the run, kept there too.
    steps_per_epoch : int, optional
        Gives records without an epoch theirs: step / steps_per_epoch.
    flush_seconds : float
        The file is written to when the last time is so long ago, ...
    flush_records : int
        ... or when so many records are waiting.
    write : bool
        Whether this process writes the file; False on all ranks of a distributed run but one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from pyspectra.training import History
    >>> history = History()
    >>> for step, loss in enumerate([4.0, 2.0, 1.0, 1.0], 1):
    ...     history.log(step=step, epoch=step / 2, n=32, loss=loss)
    >>> history.log(epoch=1, split="val", loss=3.5)
    >>> history.log(epoch=2, split="val", loss=1.5)
    >>> [row["train_loss"] for row in history.epochs]
    [3.0, 1.0]
    >>> history.best("val_loss")
    Best(value=1.5, epoch=2, step=4)
    """

    def __init__(
        self,
        path: str | Path | None = None,
        config: Any = None,
        *,
        seed: int | None = None,
        steps_per_epoch: int | None = None,
        flush_seconds: float = 1.0,
        flush_records: int = 100,
        write: bool = True,
    ) -> None:
        name = "History"
        self.path = None if path is None else check_path(name, "path", path)
        if steps_per_epoch is not None:
            steps_per_epoch = check_count(name, "steps_per_epoch", steps_per_epoch)
        self.steps_per_epoch = steps_per_epoch
        seconds = check_number(name, "flush_seconds", flush_seconds, least=0.0)
        records = check_count(name, "flush_records", flush_records)
        header = {
            "schema": SCHEMA,
            "run": str(uuid.uuid4()),
            "config": jsonable(config),
            "versions": _versions(),
            "seed": jsonable(seed),
            "started": _now(),
        }
        store_path = self.path if write else None
        super().__init__(Store(store_path, header, seconds, records))
        # At the end of the process, and when nobody holds the history any more.
        self._finalizer = weakref.finalize(self, self._store.close)
        self._step: int | None = None
        self._epoch: float | None = None
        self._start = time.monotonic()

    # --- writing --------------------------------------------------------------------------------

    def log(
        self,
        *,
        step: int | None = None,
        epoch: float | None = None,
        split: str | None = None,
        n: int | None = None,
        kind: str | None = None,
        **values: Any,
    ) -> None:
        """Record the metrics of a batch, or of an epoch.

        Parameters
        ----------
        step : int, optional
            Optimizer steps done so far: 1 after the first. The last one given, by default.
        epoch : float, optional
            Epochs done so far: 2.4 within the third, 3 at its end. By default, what
            ``steps_per_epoch`` says, or the last one given.
        split : str, optional
            ``"train"``, ``"val"`` or another. By default that which a name begins with:
            ``val_loss=0.3`` is the ``loss`` of ``"val"``; a bare name is of ``"train"``.
        n : int, optional
            Samples that the values are means over; epochs are means weighted by it.
        kind : {"running", "post"}, optional
            Says that the values are those of a whole epoch: the mean over its batches while the
            model changed, or an evaluation after it. None is one batch, or one evaluation.
        **values
            Metrics: numbers, or scalar tensors, which are detached and fetched later.

        Raises
        ------
        TypeError, ValueError
            If a value is no real number, or a name is one of the fields of a record.
        """
        shared = self._fields(step, epoch, n, kind)
        if split is None:
            parts = _by_split(values)
        elif isinstance(split, str) and split:
            parts = {split: values}
        else:
            raise ArgumentTypeError("History.log", "split", "be a name", shown(split))
        for own_split, own in parts.items():
            record = {**shared, "split": own_split}
            for name, value in own.items():
                if name in RESERVED:
                    raise ArgumentValueError(
                        "History.log", name, "be no field of a record", repr(name)
                    )
                self._store.put(record, name, value)
            record["t"] = round(time.monotonic() - self._start, 6)
            self._store.append(record)

    def _fields(
        self, step: int | None, epoch: float | None, n: int | None, kind: str | None
    ) -> dict[str, Any]:
        name = "History.log"
        if step is not None:
            self._step = check_count(name, "step", step, least=0)
        if epoch is not None:
            self._epoch = check_number(name, "epoch", epoch, least=0.0)
        elif step is not None and self.steps_per_epoch is not None:
            self._epoch = step / self.steps_per_epoch
        shared: dict[str, Any] = {}
        if self._step is not None:
            shared["step"] = self._step
        if self._epoch is not None:
            shared["epoch"] = self._epoch
        if n is not None:
            shared["n"] = check_count(name, "n", n)
        if kind is not None:
            shared["kind"] = check_choice(name, "kind", kind, KINDS)
        return shared

    def log_finding(self, finding: Any) -> None:
        """Record a finding: a `Finding`, or a mapping with its fields."""
        self._store.append({"finding": _finding_fields(finding)})

    def log_spectra(self, step: int, layers: Sequence[Mapping[str, Any]]) -> None:
        """Record spectra of layers at a step: a mapping for each layer, with its ``name``."""
        count = check_count("History.log_spectra", "step", step, least=0)
        rows = [jsonable(row) for row in layers]
        self._store.append({"spectra": {"step": count, "layers": rows}})

    def flush(self) -> None:
        """Fetch what is still on devices, and write what is not in the file yet."""
        self._store.flush()

    def close(self) -> None:
        """Write what is waiting and close the file; later records stay in memory only."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- going on with a run --------------------------------------------------------------------

    @property
    def position(self) -> tuple[int, float]:
        """Step and epoch of the last record, or those that the run goes on from; 0 at first."""
        return self._step or 0, self._epoch or 0.0

    @classmethod
    def open(
        cls, path: str | Path, resume_step: int | None = None, config: Any = None, **options: Any
    ) -> Self:
        """Go on with the run in a file, or begin one if there is none.

        Parameters
        ----------
        path : str or path
            The file.
        resume_step : int, optional
            The step that the run goes on from. Lines of later steps, which are about to be done
            again, move to ``path.1``; none is deleted. None keeps all.
        config : mapping or object, optional
            Settings, for the case that there is no file yet; noted beside the resumption otherwise.
        **options
            As for `History`.

        Returns
        -------
        History
            A history with the earlier records, so that all segments are one curve.

        Raises
        ------
        FormatError
            If the file is no history.
        """
        if resume_step is not None:
            resume_step = check_count("History.open", "resume_step", resume_step, least=0)
        history = cls(path, config, **options)
        assert history.path is not None
        if history.path.exists() and history.path.stat().st_size:
            history._resume(resume_step, config)
        else:
            history._step = resume_step
        return history

    def _resume(self, step: int | None, config: Any = None) -> None:
        if self._store.has_file:
            self._store.resume(step)
        else:  # another rank writes it
            assert self.path is not None
            found = read_lines(self.path)
            self._store.header = found.header
            self._store.replace(cut(found.lines, step)[0])
        self._continue(step, config)

    def _continue(self, step: int | None, config: Any = None) -> None:
        records = self.steps
        last = records[-1] if records else {}
        self._step = last.get("step") if step is None else step
        self._epoch = last.get("epoch")
        latest = max((r["t"] for r in records if "t" in r), default=0.0)
        self._start = time.monotonic() - latest
        resumed = {"resumed_at": self._step, "started": _now(), "versions": _versions()}
        if config is not None:
            resumed["config"] = jsonable(config)
        self._store.append(resumed)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint carries, so that a resumed run finds its history.

        Returns
        -------
        dict
            The run and its step; the records too if there is no file.
        """
        self.flush()
        state = {"schema": SCHEMA, "run": self.header["run"], "step": self._step}
        if self.path is None:
            state["lines"] = [encode_line(line) for line in [self.header, *self._store.lines]]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the step at which `state_dict` was called.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned. If the file of this history holds that run, later lines move
            to ``path.1``.

        Raises
        ------
        ValueError
            If it is no such state, or this history has records of its own.
        """
        name = "History.load_state_dict"
        if not isinstance(state, Mapping) or state.get("schema") != SCHEMA:
            raise ArgumentValueError(name, "state", f"hold the schema {SCHEMA!r}", shown(state))
        if self._store.begun:
            raise ArgumentValueError(
                name, "state", "be loaded before anything is logged", f"{len(self)} records"
            )
        step = state["step"]
        if "lines" in state:
            header, *lines = [decode_line(text) for text in state["lines"]]
            self._store.header = header
            self._store.replace(lines)
            self._continue(step)
        elif self.path is not None and _run_in(self.path) == state["run"]:
            self._resume(step)
        else:
            warnings.warn(
                f"{name}: the file of run {state['run']} is not at {str(self.path)!r}; the history "
                f"goes on from step {step} without what came before.",
                stacklevel=2,
            )
            self._continue(step)


# --- helpers ------------------------------------------------------------------------------------


def _by_split(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        split, metric = split_and_metric(name)
        parts.setdefault(split or "train", {})[metric] = value
    return parts


def _finding_fields(finding: Any) -> Any:
    if isinstance(finding, Mapping):
        return jsonable(finding)
    return {field.name: jsonable(getattr(finding, field.name)) for field in fields(finding)}


def _run_in(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        run = read_lines(path).header.get("run")
    except FormatError:
        return None
    return run if isinstance(run, str) else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that are loaded: the run depends on no others."""
    import platform

    versions = {"pyspectra": build_info()["version"], "python": platform.python_version()}
    for name in ("numpy", "torch", "transformers", "lightning"):
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = str(getattr(module, "__version__", "unknown"))
    return versions
