"""The arguments of the command ``pyspectra``."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["UsageError", "parser"]


class UsageError(Exception):
    """Something the person at the terminal can mend; the message is for them."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. Hint: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    import pyspectra
    from pyspectra.cli.average import add_average
    from pyspectra.report.data import DIALECTS
    from pyspectra.report.options import FIX_FINGERS
    from pyspectra.spectra.esd import METHODS
    from pyspectra.spectra.estimators import ESTIMATORS

    whole = _Parser(
        prog="pyspectra",
        description="Spectral analysis of neural networks: eigenvalue spectra of weight matrices, "
        "power-law fits, and what they say.",
    )
    whole.add_argument("--version", action="version", version=f"pyspectra {pyspectra.__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser(
        "info",
        help="describe this installation",
        description="Compiler, instruction sets, threads, BLAS and CUDA of this installation.",
    )
    analyze = commands.add_parser(
        "analyze",
        help="analyse every weight matrix of a model",
        description="Analyse every weight matrix of a model: spectrum, power-law tail, verdict.",
        epilog="Exit status: 0 done; 1 analysed, but layers failed and --strict was given; "
        "2 unusable arguments or input.",
    )
    add = analyze.add_argument
    add("model", metavar="MODEL",
        help="a .safetensors, .pt, .pth, .bin, .ckpt or .npz file, or a model folder")  # fmt: skip
    add("--csv", metavar="F", help="write the layers to F as CSV; - for standard output alone")
    add("--json", metavar="F", help="write everything to F as JSON; - for standard output alone")
    add("--dialect", choices=DIALECTS, help="columns of --csv (default: pyspectra)")
    add("--estimator", metavar="E", default="ww",
        help=f"of the tail exponent: {', '.join(ESTIMATORS)}, with arguments or without, as in "
        "'hill(50)' (default: ww)")  # fmt: skip
    add("--bootstrap", metavar="B", type=_positive, default=0,
        help="refit B replicates for a confidence interval of alpha and a p-value")  # fmt: skip
    add("--seed", metavar="S", type=int, default=0, help="of the replicates (default: 0)")
    add("--layers", metavar="L", nargs="+", type=_layer,
        help="only these: ids (digits) or names, in which * and ? stand for any text; quote those. "
        "A name of digits alone is written [0]")  # fmt: skip
    add("--randomize", action="store_true",
        help="also permute the entries of each matrix: what is left, what are traps")  # fmt: skip
    add("--mp-fit", action="store_true",
        help="also fit the Marchenko-Pastur law, count spikes and test for randomness")  # fmt: skip
    add("--detx", action="store_true", help="also evaluate the trace-log (ERG) condition")
    add("--vectors", action="store_true",
        help="also measure how localised the eigenvectors of bulk and tail are: columns of --csv "
        "and --json")  # fmt: skip
    add("--fix-fingers", choices=[f for f in FIX_FINGERS if f],
        help="clip the largest eigenvalues while that lowers alpha by more than 1")  # fmt: skip
    add("--xmax", metavar="X", type=float, help="leave eigenvalues above X out of the fits")
    add("--drop-largest", metavar="K", type=int, default=0,
        help="leave the K largest eigenvalues out of the fits")  # fmt: skip
    add("--no-pool", dest="pool", action="store_false", help="one row a slice of a convolution")
    add("--min-evals", metavar="N", type=_positive, default=8,
        help="skip layers with fewer eigenvalues (default: 8)")  # fmt: skip
    add("--max-evals", metavar="N", type=_positive, help="skip layers with more eigenvalues")
    add("--method", metavar="M", choices=METHODS, default="auto",
        help=f"for the eigenvalues: {', '.join(METHODS)} (default: auto)")  # fmt: skip
    add("--base-model", metavar="BASE",
        help="analyse what changed since BASE: the spectra of the differences")  # fmt: skip
    add("--device", metavar="D", default="auto",
        help="for the eigenvalues: auto, cpu, cuda or cuda:N (default: auto, the CPU)")  # fmt: skip
    add("-j", dest="threads", metavar="N", type=_positive,
        help="threads (default: all cores)")  # fmt: skip
    add("--strict", action="store_true", help="exit with 1 if a layer failed or was unreadable")
    add("-q", "--quiet", action="store_true", help="no progress and no messages but errors")
    add_average(commands, _positive)
    return whole


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return value


def _layer(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text
