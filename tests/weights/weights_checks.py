"""What several tests of readers ask of layers and sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pyspectra._arrays import HostArray
from pyspectra.weights import Layer, WeightSource


def by_name(source: WeightSource) -> dict[str, Layer]:
    found = {layer.name: layer for layer in source}
    assert len(found) == len(source)
    return found


def values(layer: Layer) -> np.ndarray:
    return layer.load().to_float64()


def reasons(source: WeightSource) -> dict[str, str]:
    return {s.name: s.reason for s in source.skipped}


def sigma(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False)


@contextmanager
def nothing_is_read() -> Iterator[None]:
    def fail(self: HostArray) -> None:
        raise AssertionError("elements were read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostArray, "__post_init__", fail)  # whatever reads makes one of these
        yield
