"""Checkpoints of a training: how far it is, and all that it needs to go on from there.

    last.weights.h5         after the last finished epoch, or the step at which it was told to stop
    previous.weights.h5     the one before it
    best.weights.h5         after the epoch that was best on the validation set, if there is one
    epoch-0020.weights.h5   of the epochs that are kept
    history.csv             a row for each finished epoch

Each is replaced in one step and read in whole: a checkpoint that was cut short gives way to the one
before. It holds the weights, the optimizer's state and that of the layers' random numbers.
"""

import csv
import dataclasses
import os
import pathlib
import shutil
import warnings

import h5py
import numpy as np

from lade_tf.files import replacing

LAST, PREVIOUS, BEST = "last.weights.h5", "previous.weights.h5", "best.weights.h5"
HISTORY = "history.csv"
# Beside what Keras writes.
METRICS, SEEDS = "lade_tf_metrics", "lade_tf_seeds"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch after them.
        seconds: what those steps took.
        cpu_seconds: of processor time.
        metrics: [numbers] the state of the model's metrics after those steps.
        stopped: whether a callback stopped the training for good (`model.stop_training`).
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    stopped: bool = False

    @classmethod
    def of(cls, file):
        """Reads what `write` wrote into an open checkpoint; of older ones the epoch alone."""
        names = [field.name for field in dataclasses.fields(cls) if field.name in file.attrs]
        values = {name: file.attrs[name] for name in names}
        whole = {name: int(values[name]) for name in ("epoch", "step") if name in values}
        if METRICS in file:
            values["metrics"] = file[METRICS][()]
        return cls(**{**values, **whole})

    def write(self, file):
        """Writes it into an open checkpoint."""
        values = dataclasses.asdict(self)
        file[METRICS] = values.pop("metrics")  # an attribute can't be larger than 64 KB
        file.attrs.update(values)


def name_of(epoch):
    """Returns the name of the checkpoint that is kept of an epoch, counted from 1."""
    return f"epoch-{epoch:04d}.weights.h5"


def restore(folder, model):
    """Loads the last checkpoint in a folder into its compiled model.

    One that can't be read is left aside for the one before it, with a `UserWarning`.

    Args:
        folder: of the checkpoints.
        model: compiled and built.

    Returns:
        Its `Progress`; that of a start where there is no checkpoint.

    Raises:
        ValueError: if no checkpoint that there is can be read; nothing is changed.
    """
    paths = [pathlib.Path(folder, name) for name in (LAST, PREVIOUS)]
    existing = [path for path in paths if path.exists()]
    for path in existing:
        try:
            return load(path, model)
        except Exception as error:
            problem = str(error).splitlines()[0]
            if path == existing[-1]:
                raise ValueError(
                    f"checkpoint {path} can't be read, it may be cut short or damaged "
                    f"({problem}). Nothing was changed: put a good copy there, or remove it to "
                    "start again"
                ) from error
            warnings.warn(
                f"{path} can't be read ({problem}): the one before it is used", stacklevel=2
            )
    return Progress()


def load(path, model):
    """Loads weights, optimizer and the state of random numbers of a checkpoint into its model.

    Args:
        path: of the checkpoint.
        model: compiled and built.

    Returns:
        Its `Progress`.
    """
    if getattr(model, "optimizer", None) is not None:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)  # else Keras passes its state over
    with h5py.File(path) as file:
        progress = Progress.of(file)
        seeds = file[SEEDS][()] if SEEDS in file else None
    states = seed_states(model)
    if seeds is not None and len(seeds) != len(states):
        raise ValueError(
            f"it holds {len(seeds)} states of random numbers, and the model has {len(states)}"
        )
    model.load_weights(path)
    if seeds is not None:
        for variable, value in zip(states, seeds, strict=True):
            variable.assign(value)
    return progress


def save(folder, model, progress, also=()):
    """Writes the last checkpoint and keeps the one before it.

    Args:
        folder: an existing folder.
        model: the model.
        progress: its `Progress`.
        also: more names for the checkpoint.

    Raises:
        OSError: if it can't be written; what was there before is kept.
    """
    folder = pathlib.Path(folder)
    last = folder / LAST
    try:
        with replacing(last) as temporary:
            model.save_weights(temporary)
            with h5py.File(temporary, "a") as file:
                progress.write(file)
                if states := seed_states(model):
                    file[SEEDS] = np.stack([variable.numpy() for variable in states])
            if last.exists():
                # A second name for the old file, so that there is a last one at every moment.
                _give_name(last, folder / PREVIOUS)
    except (OSError, RuntimeError) as error:  # h5py raises either
        number = getattr(error, "errno", None)  # HDF5's own texts are pages long
        reason = os.strerror(number) if number else str(error).splitlines()[0]
        kept = f"{last} is the one before" if last.exists() else "there is none yet"
        raise OSError(
            f"the checkpoint of epoch {progress.epoch} can't be written to {folder} "
            f"({reason}); {kept}. With room on the disk and a folder that can "
            "be written, the same call goes on"
        ) from error
    for name in also:
        _give_name(last, folder / name)


def seed_states(model):
    """Returns the variables of a model's random numbers, those of Dropout for example.

    Keras doesn't save them with the weights.
    """
    known = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in known]


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


def read_history(folder):
    """Returns the rows of a folder's history.csv.

    Returns:
        A list of {column: float}, one an epoch; empty where there is no file.

    Raises:
        ValueError: if the file can't be read.
    """
    path = pathlib.Path(folder, HISTORY)
    if not path.exists():
        return []
    try:
        with open(path, newline="") as file:
            return [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(file, strict=True)
            ]
    except (TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} can't be read, it may be cut short: {error}") from error


def write_history(folder, rows):
    """Writes history.csv; numbers get nine digits.

    Args:
        folder: an existing folder.
        rows: a list of {column: number}, at least one, all of the same columns.
    """
    with (
        replacing(pathlib.Path(folder, HISTORY)) as temporary,
        open(temporary, "w", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: f"{value:.9g}" for name, value in row.items()} for row in rows)


def _give_name(path, name):
    with replacing(name) as link:
        try:
            os.link(path, link)
        except OSError:  # some file systems have no links
            shutil.copyfile(path, link)
