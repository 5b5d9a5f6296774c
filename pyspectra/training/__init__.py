"""The loop around the model: averaging of checkpoints."""

from pyspectra.training.checkpoints import AveragedCheckpoint, average_checkpoints

__all__ = ["AveragedCheckpoint", "average_checkpoints"]
