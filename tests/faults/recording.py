"""What a run showed, kept: thresholds are tried out on it again and again without training."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

from faults.cases import FAULTS, HEALTHY
from faults.loop import run
from pyspectra.training import Thresholds
from pyspectra.training.memory import Memory
from pyspectra.training.run_report import RunReport


class Recorder(Memory):
    """The memory of a `Watch` that keeps every fact and judges none."""

    def __init__(self):
        super().__init__(Thresholds(), (), patience=3)
        self.during, self.at_end = [], []

    def judge(self, facts, epoch=None):
        self.during.append((epoch, list(facts)))
        return []

    def afterwards(self, facts, epoch=None):
        self.at_end.append((epoch, list(facts)))
        return []


def record(architecture, setup, seed):
    """Train once; return the facts in the order in which they came."""
    recorder = Recorder()
    watch = run(architecture, setup, seed, memory=recorder)
    watch.report()
    return recorder.during, recorder.at_end


def judged(recording, thresholds=None):
    """Return the conclusions that `Watch` comes to: (code, severity, step)."""
    during, at_end = recording
    memory = Memory(thresholds or Thresholds(), (), patience=3)
    for epoch, facts in during:
        memory.judge(facts, epoch)
    last = [x for epoch, facts in at_end for x in memory.afterwards(facts, epoch)]
    report = RunReport((*memory.found, *last))
    return [(x.code, x.severity, x.step) for x in report]


def cases():
    """Yield (kind, name, setup, fault or None) of every case."""
    for fault in FAULTS:
        yield "fault", fault.name, fault.setup, fault
    for name, setup in HEALTHY.items():
        yield "healthy", name, setup, None


def path_of(folder: Path, architecture, kind, name, seed) -> Path:
    """Return where a recording lies."""
    plain = "".join(c if c.isalnum() else "_" for c in name)
    return folder / architecture.replace("/", "_") / f"{kind}-{plain}-{seed}.pkl.gz"


def record_all(folder: Path, architectures, seeds, only=None, kinds=("fault", "healthy")):
    """Record every case that the folder does not hold yet, seed after seed."""
    for seed in seeds:
        for architecture in architectures:
            for kind, name, setup, fault in cases():
                if fault is not None and architecture.split("/")[0] not in fault.only:
                    continue
                path = path_of(folder, architecture, kind, name, seed)
                if kind not in kinds or path.exists() or (only is not None and only not in name):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                found = record(architecture, setup, seed)
                whole = path.with_suffix(".part")
                with gzip.open(whole, "wb", compresslevel=4) as file:
                    pickle.dump(found, file, protocol=5)
                whole.rename(path)


def load(path: Path):
    """Return a recording."""
    with gzip.open(path, "rb") as file:
        return pickle.load(file)
