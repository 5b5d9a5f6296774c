"""Models in files, read tensor by tensor and written anew, whole or not at all.

`open_checkpoint` lists what a file or a folder holds, `check_target` judges where a new one is to
be, and `write_checkpoint` makes it, with new values for those tensors that have some.
"""

from pyspectra.edit.files.checkpoint import SUFFIXES, Checkpoint, Tensor, open_checkpoint
from pyspectra.edit.files.targets import Target, check_target
from pyspectra.edit.files.writing import CHUNK, write_checkpoint

__all__ = [
    "CHUNK",
    "SUFFIXES",
    "Checkpoint",
    "Target",
    "Tensor",
    "check_target",
    "open_checkpoint",
    "write_checkpoint",
]
