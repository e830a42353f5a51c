"""The checkpoints of a run: how far it is, and all that it needs to go on from there.

    last.weights.h5         after the last finished epoch, or the step at which it was told to stop
    previous.weights.h5     the one before it
    best.weights.h5         after the epoch that was best on the validation set, if there is one
    epoch-0020.weights.h5   with --keep_every=20: after every 20th epoch

Each is replaced in one step and read in whole: one that was cut short gives way to the one before.
"""

import dataclasses
import os
import shutil

import h5py
import numpy as np
from absl import logging

from lade_tf.files import replacing

LAST, PREVIOUS, BEST = "last.weights.h5", "previous.weights.h5", "best.weights.h5"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch after them.
        seconds: what those steps took.
        cpu_seconds: of processor time.
        metrics: [numbers] the state of the model's metrics after those steps.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, file):
        """Reads what `write` wrote into an open checkpoint; of older ones the epoch alone."""
        names = [field.name for field in dataclasses.fields(cls) if field.name in file.attrs]
        values = {name: file.attrs[name] for name in names}
        whole = {name: int(values[name]) for name in ("epoch", "step") if name in values}
        return cls(**{**values, **whole})

    def write(self, file):
        file.attrs.update(dataclasses.asdict(self))


def name_of(epoch):
    """Returns the name of the checkpoint that is kept of an epoch."""
    return f"epoch-{epoch:04d}.weights.h5"


def restore(run, model):
    """Loads the last checkpoint of a run into its compiled model; returns its `Progress`.

    One that can't be read is left aside for the one before it.
    """
    existing = [path for path in map(run.file, (LAST, PREVIOUS)) if path.exists()]
    for path in existing:
        try:
            return load(path, model)
        except Exception as error:
            problem = str(error).splitlines()[0]
            if path == existing[-1]:
                raise ValueError(
                    f"checkpoint {path} can't be read, it may be cut short or damaged "
                    f"({problem}). Nothing was changed: put a good copy there, or remove it to "
                    "start this run again"
                ) from error
            logging.warning("%s can't be read (%s): the one before it is used", path, problem)
    return Progress()


def load(path, model):
    """Loads weights and optimizer; returns their `Progress`."""
    with h5py.File(path) as file:
        progress = Progress.of(file)
    model.load_weights(path)
    return progress


def save(run, model, progress, also=()):
    """Writes the last checkpoint and keeps the one before it; `also` are more names for it."""
    last = run.file(LAST)
    try:
        with replacing(last) as temporary:
            model.save_weights(temporary)
            with h5py.File(temporary, "a") as file:
                progress.write(file)
            if last.exists():
                # A second name for the old file, so that there is a last one at every moment.
                _give_name(last, run.file(PREVIOUS))
    except (OSError, RuntimeError) as error:  # h5py raises either
        number = getattr(error, "errno", None)  # HDF5's own texts are pages long
        reason = os.strerror(number) if number else str(error).splitlines()[0]
        kept = f"{last} is the one before" if last.exists() else "there is none yet"
        raise OSError(
            f"the checkpoint of epoch {progress.epoch} can't be written to {run.path} "
            f"({reason}); {kept}. With room on the disk and a folder that can "
            "be written, the same command goes on"
        ) from error
    for name in also:
        _give_name(last, run.file(name))


def metric_values(model):
    """Returns the state of all metrics of a model, [numbers] float64."""
    values = [np.ravel(variable.numpy()) for variable in model.metrics_variables]
    return np.concatenate([np.zeros(0), *values])


def add_to_metrics(model, values):
    """Adds what `metric_values` returned to the state of the metrics, which are sums."""
    sizes = [int(np.prod(variable.shape)) for variable in model.metrics_variables]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    for variable, part in zip(model.metrics_variables, parts, strict=True):
        part = part.reshape(variable.shape).astype(variable.dtype)
        variable.assign(variable + part)


def _give_name(path, name):
    with replacing(name) as link:
        try:
            os.link(path, link)
        except OSError:  # some file systems have no links
            shutil.copyfile(path, link)
