"""From measured spectra to the history and to the rules."""

from __future__ import annotations

from pyspectra.training.collect.spectra import SpectraCollector
from pyspectra.training.history import History
from pyspectra.training.rules.facts import LayerSpectrum, Trajectories
from pyspectra.training.trajectories import as_records, outer_layers, spectra_of, trajectories


class SpectraRecorder:
    """Record spectra, and keep the trajectories of all layers.

    Parameters
    ----------
    collector : SpectraCollector
    history : History
        Its spectra of earlier, of a run that is resumed, go before.
    warmup : int
        Steps in which no statistical rule speaks.
    """

    def __init__(self, collector: SpectraCollector, history: History, warmup: int) -> None:
        self._collector, self._history, self._warmup = collector, history, warmup
        known = trajectories(spectra_of(history.spectra)).layers
        self._layers = {name: list(rows) for name, rows in known.items()}

    @property
    def seconds(self) -> float:
        """Seconds that measuring took."""
        return self._collector.seconds

    def first(self, step: int) -> None:
        """Measure before training, where time is not shared."""
        self._add(self._collector.first(step), step)

    def facts(self, step: int) -> list[object]:
        """Measure what is due after a step, and return what rules read if there was anything."""
        rows = self._collector.after(step)
        if not rows:
            return []
        self._add(rows, step)
        return [Trajectories(self._layers, outer_layers(self._layers), self._warmup)]

    def _add(self, rows: list[LayerSpectrum], step: int) -> None:
        for row in rows:
            self._layers.setdefault(row.name, []).append(row)
        if rows:
            self._history.log_spectra(step, as_records(rows))
