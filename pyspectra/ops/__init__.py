"""The one gateway to the compiled core: arrays in, arrays and result codes out.

The functions of this module trust what their callers promise, and check only what would be unsafe;
the public functions in `pyspectra.spectra` own the argument checks and their messages.

A module for each domain of ``csrc``; callers write ``ops.gram``, whichever has it.
"""

# ruff: noqa: F403 - each module says in __all__ what it has, so that a new door is written once
from pyspectra.ops.core import *
from pyspectra.ops.linalg import *
from pyspectra.ops.optim import *
from pyspectra.ops.powerlaw import *
from pyspectra.ops.spectra import *
