"""Settings of the compiled core, and a description of what is running."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields

from pyspectra import ops
from pyspectra._support.arguments import check_count
from pyspectra._support.blas_threads import blas_libraries

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

    Raises
    ------
    ValueError
        If ``PYSPECTRA_ISA`` or ``PYSPECTRA_NUM_THREADS`` of the environment makes no sense.

    Examples
    --------
    >>> import pyspectra as ps
    >>> ps.show_config().isa in ("baseline", "avx2", "avx512")
    True
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
        blas=blas_libraries(),
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
        Number of threads, from 1 to 4096. Results do not depend on it, except for the last bits of
        the eigenvalues of a single matrix of order 1024 or more.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or not one from 1 to 4096.

    Examples
    --------
    >>> import pyspectra as ps
    >>> before = ps.get_num_threads()
    >>> ps.set_num_threads(1)
    >>> ps.get_num_threads()
    1
    >>> ps.set_num_threads(before)
    """
    ops.set_num_threads(check_count("set_num_threads", "n", n, most=MAX_THREADS))


def get_num_threads() -> int:
    """Return how many threads the kernels use.

    Returns
    -------
    int
        What `set_num_threads` set, else ``PYSPECTRA_NUM_THREADS``, else the number of cores.

    Examples
    --------
    >>> import pyspectra as ps
    >>> ps.get_num_threads() >= 1
    True
    """
    return ops.get_num_threads()
