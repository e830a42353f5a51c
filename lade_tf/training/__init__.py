"""Training that can be killed: it goes on from its last checkpoint and ends with the same bits."""

from lade_tf.training.callbacks import Checkpoint, StopOnNaN, StopOnSignal
from lade_tf.training.checkpoints import Progress, load, restore, save
from lade_tf.training.resumable import fit

__all__ = [
    "Checkpoint",
    "Progress",
    "StopOnNaN",
    "StopOnSignal",
    "fit",
    "load",
    "restore",
    "save",
]
