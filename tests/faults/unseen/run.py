"""How a program is run and watched, and what it comes to."""

import warnings
import zlib
from dataclasses import dataclass

import torch

from . import faulty_data, kinds, trainers  # noqa: F401  they enter their programs
from .faulty import FAULTY
from .healthy import HEALTHY
from .later import LATER_FAULTY, LATER_HEALTHY
from .loops import ThreeLines, Whole


class Eye:
    """What a program calls to be watched."""

    def __init__(self, kind):
        self.kind = kind
        self.watch = None

    def __call__(self, model, optimizer):
        self.watch = self.kind(model, optimizer)
        return self.watch

    def adopt(self, callback):
        """Take the callback of a trainer for the watch."""
        self.watch = callback

    def report(self):
        """Return the findings, causes first."""
        return list(getattr(self.watch, "watch", self.watch).report())


@dataclass(frozen=True)
class Program:
    """A program, and the codes of findings that lead to its mistake: none of a healthy one.

    Attributes
    ----------
    part : {"seen", "held out", "later"}
        Whether it was looked at while the rules were mended, only afterwards, or written then.
    """

    name: str
    function: object
    causes: tuple
    part: str

    def run(self, *, whole=True):
        """Return the alarms and notes of one run, causes first; `whole`: more than three lines."""
        torch.manual_seed(0)
        torch.set_num_threads(1)
        eye = Eye(Whole if whole else ThreeLines)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.function(eye)
        return eye.report()

    def is_named(self, findings):
        """Tell whether an alarm names the mistake."""
        return any(x.code in self.causes for x in findings if x.severity != "info")

    def is_first(self, findings):
        """Tell whether the first finding does."""
        return bool(findings) and findings[0].code in self.causes


def _part(name):
    return "held out" if zlib.crc32(name.encode()) % 2 else "seen"


def programs():
    """Return all programs, healthy ones first."""
    rows = [Program(name, f, (), _part(name)) for name, f in HEALTHY.items()]
    rows += [Program(name, f, causes, _part(name)) for name, (f, causes) in FAULTY.items()]
    rows += [Program(name, f, (), "later") for name, f in LATER_HEALTHY.items()]
    rows += [Program(name, f, causes, "later") for name, (f, causes) in LATER_FAULTY.items()]
    return rows
