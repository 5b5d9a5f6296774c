"""The ways out of a table of rows: pandas, CSV, JSON and a page, the same for every value."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import check_output
from pyspectra._support.files import write_text
from pyspectra.errors import missing_dependency

if TYPE_CHECKING:
    import pandas


class RowOutputs:
    """Base of values that are a table: `columns`, `rows`, `to_dict` and `files` are theirs."""

    @property
    def columns(self) -> dict[str, str]:
        """The columns in their order, each with what it is in one sentence."""
        raise NotImplementedError

    @property
    def files(self) -> tuple[str, ...]:
        """What was read, which no output may be written over."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each row."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the eigenvalues as plain values; NaN and infinity become None."""
        raise NotImplementedError

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            name = f"{type(self).__name__}.to_pandas"
            raise missing_dependency("pandas", name, extra="pandas") from error
        return pandas.DataFrame(self.rows(), columns=list(self.columns))

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return the rows as CSV, and write them to `path` if one is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write, whole or not at all; none of those that were read.
        """
        out = io.StringIO()
        writer = csv.DictWriter(out, list(self.columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return self._written("to_csv", path, out.getvalue())

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path` if one is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write, whole or not at all; none of those that were read.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        return self._written("to_json", path, text)

    def _written(self, method: str, path: str | PathLike[str] | None, text: str) -> str:
        if path is not None:
            function = f"{type(self).__name__}.{method}"
            write_text(check_output(function, "path", path, self.files), text)
        return text


class TableOutputs(RowOutputs):
    """Base of tables that have a page, too: `to_html` is theirs."""

    def to_html(self) -> str:
        """Return it as a page: one HTML file that needs nothing but itself, and loads nothing."""
        raise NotImplementedError

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write the page of `to_html` to a file.

        Parameters
        ----------
        path : str or path
            The file to write, whole or not at all; none of those that were read.
        """
        self._written("save_html", path, self.to_html())


def plain(value: Any) -> Any:
    """Return a value of lists and dicts, as JSON has them; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
