"""
Sums over entries and their random permutation.
"""

from __future__ import annotations
import collections.abc
import numpy
import typing

__all__: list[str] = [
    "Margins",
    "centred_margins",
    "entry_sample",
    "margins",
    "permute",
    "profile_edge",
    "rows_are_orthogonal",
]

class Margins:
    @property
    def col_squares(self) -> float: ...
    @property
    def col_totals(self) -> float: ...
    @property
    def cycles(self) -> float: ...
    @property
    def diagonal(self) -> float: ...
    @property
    def diagonal_square(self) -> float: ...
    @property
    def quartic(self) -> float: ...
    @property
    def row_squares(self) -> float: ...
    @property
    def row_totals(self) -> float: ...
    @property
    def square(self) -> float: ...
    @property
    def total(self) -> float: ...
    @property
    def zero_cols(self) -> float: ...
    @property
    def zero_rows(self) -> float: ...

def centred_margins(
    X: collections.abc.Sequence[numpy.ndarray],
    dtype: typing.SupportsInt | typing.SupportsIndex,
    plain: collections.abc.Sequence[Margins],
) -> list[tuple[Margins, float]]: ...
def entry_sample(
    X: collections.abc.Sequence[numpy.ndarray],
    dtype: typing.SupportsInt | typing.SupportsIndex,
    step: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[float, float]:
    """
    Excess kurtosis and share of zeros.
    """

def margins(
    X: collections.abc.Sequence[numpy.ndarray], dtype: typing.SupportsInt | typing.SupportsIndex
) -> list[Margins]: ...
def permute(
    X: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    key: typing.SupportsInt | typing.SupportsIndex,
    out: numpy.ndarray,
) -> None: ...
def profile_edge(margins: Margins) -> tuple[float, float, float]:
    """
    Of variances r_k c_i: edge, scale and response.
    """

def rows_are_orthogonal(
    X: collections.abc.Sequence[numpy.ndarray],
    dtype: typing.SupportsInt | typing.SupportsIndex,
    probed: typing.SupportsInt | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
) -> bool: ...
