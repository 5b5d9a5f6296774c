"""Settings of the compiled core, and a description of what is running."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields

from pyspectra import ops
from pyspectra._support.arguments import as_integer

MAX_THREADS = 4096


@dataclass(frozen=True)
class Config:
    """What this installation consists of; ``str()`` of it is a small table."""

    version: str
    compiler: str
    isa: str
    available_isas: tuple[str, ...]
    threads: int
    blas: tuple[str, ...]
    cuda_built: bool
    cuda_devices: tuple[str, ...]
    python: str
    numpy: str
    scipy: str

    def __str__(self) -> str:
        def show(value: object) -> str:
            if isinstance(value, tuple):
                return ", ".join(map(str, value)) or "none"
            return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

        return "\n".join(f"{f.name:<15} {show(getattr(self, f.name))}" for f in fields(self))


def show_config() -> Config:
    """Describe compiler, instruction sets, threads, BLAS and CUDA of this installation.

    Returns
    -------
    Config
        A frozen dataclass; print it for a table.
    """
    import numpy as np
    import scipy

    build = ops.build_info()
    return Config(
        version=build["version"],
        compiler=build["compiler"],
        isa=ops.get_isa(),
        available_isas=ops.available_isas(),
        threads=ops.get_num_threads(),
        blas=ops.blas_libraries(),
        cuda_built=build["cuda_built"],
        cuda_devices=tuple(build["cuda_devices"]),
        python=platform.python_version(),
        numpy=np.__version__,
        scipy=scipy.__version__,
    )


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels use (also: environment ``PYSPECTRA_NUM_THREADS``).

    Parameters
    ----------
    n : int
        From 1 to 4096. Results do not depend on it, except for the last bits of the eigenvalues of
        a single matrix of order 1024 or more.

    Raises
    ------
    ValueError
        If `n` is not an integer from 1 to 4096.
    """
    count = as_integer(n)
    if count is None or not 1 <= count <= MAX_THREADS:
        raise ValueError(
            f"set_num_threads: 'n' must be a positive integer of at most {MAX_THREADS}, got {n!r}."
        )
    ops.set_num_threads(count)


def get_num_threads() -> int:
    """Return how many threads the kernels use."""
    return ops.get_num_threads()
