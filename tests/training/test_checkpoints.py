"""Checkpoints without a training: models of a few variables and disks that fail."""

import errno
import os
import types

import h5py
import keras
import numpy as np
import pytest

from lade_tf.training import checkpoints
from lade_tf.training.checkpoints import BEST, LAST, PREVIOUS, Progress


class Model:
    """What checkpoints.py needs of a model: one number that stands for the weights."""

    optimizer = None
    variables = weights = metrics_variables = ()

    def __init__(self, number=0.0, error=None):
        self.number = number
        self.error = error

    def save_weights(self, path):
        if self.error:
            raise self.error
        with h5py.File(path, "w") as file:
            file["number"] = self.number

    def load_weights(self, path):
        with h5py.File(path) as file:
            self.number = float(file["number"][()])


def number_in(path):
    model = Model()
    checkpoints.load(path, model)
    return model.number


def test_progress_comes_back_as_it_was(tmp_path):
    progress = Progress(3, 17, 2.5, 1.25, np.array([1.0, 2.0]))
    checkpoints.save(tmp_path, Model(), progress)
    again = checkpoints.restore(tmp_path, Model())
    assert (again.epoch, again.step) == (3, 17)
    assert (type(again.epoch), type(again.step)) == (int, int)
    assert (again.seconds, again.cpu_seconds) == (2.5, 1.25)
    np.testing.assert_array_equal(again.metrics, [1, 2])


def test_of_older_checkpoints_the_epoch_alone_is_known(tmp_path):
    checkpoints.save(tmp_path, Model(), Progress(3, 17))
    with h5py.File((tmp_path / LAST), "a") as file:
        for name in set(file.attrs) - {"epoch"}:
            del file.attrs[name]
    again = checkpoints.restore(tmp_path, Model())
    assert (again.epoch, again.step, again.seconds) == (3, 0, 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Can't write data (no appropriate function)\nmore lines"),
            "Can't write data",
        ),
        (OSError(errno.ENOSPC, "HDF5's own page"), "No space left on device"),
        (OSError("Unable to flush file"), "Unable to flush file"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, error, reason):
    message = rf"of epoch 1 can't be written to .*\({reason}.*; there is none yet"
    with pytest.raises(OSError, match=message) as raised:
        checkpoints.save(tmp_path, Model(error=error), Progress(1))
    assert "more lines" not in str(raised.value) and not list(tmp_path.iterdir())
    checkpoints.save(tmp_path, Model(1.0), Progress(1))
    with pytest.raises(OSError, match="of epoch 2 can't be written.*last.*is the one before"):
        checkpoints.save(tmp_path, Model(2.0, error), Progress(2))
    assert number_in(tmp_path / LAST) == 1 and checkpoints.restore(tmp_path, Model()).epoch == 1
    assert not list(tmp_path.glob("tmp-*"))


@pytest.mark.parametrize("links", [True, False])
def test_other_names_hold_what_the_last_held_then(tmp_path, links, monkeypatch):
    if not links:  # as on file systems that have none
        refuse = lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links"))  # noqa: E731
        monkeypatch.setattr(os, "link", refuse)
    for epoch in (1, 2, 3):
        also = [checkpoints.name_of(epoch), *([BEST] if epoch == 2 else [])]
        checkpoints.save(tmp_path, Model(float(epoch)), Progress(epoch), also)
    names = [LAST, PREVIOUS, BEST, *map(checkpoints.name_of, (1, 2, 3))]
    assert [number_in(tmp_path / name) for name in names] == [3, 2, 2, 1, 2, 3]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    (tmp_path / LAST).write_bytes(b"cut short")
    with pytest.warns(UserWarning, match="can't be read .*: the one before it is used"):
        assert checkpoints.restore(tmp_path, Model()).epoch == 2


def test_without_one_that_can_be_read_nothing_is_changed(tmp_path):
    assert checkpoints.restore(tmp_path, Model()).epoch == 0
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=f"{PREVIOUS} can't be read.*Nothing was changed"):
        checkpoints.restore(tmp_path, Model())
    assert (tmp_path / LAST).read_bytes() == (tmp_path / PREVIOUS).read_bytes() == b"cut short"


def metrics_of(*values):
    """Returns a model with metrics in these states."""
    return types.SimpleNamespace(
        metrics_variables=[keras.Variable(value, dtype=np.asarray(value).dtype) for value in values]
    )


def test_the_metrics_of_a_broken_off_epoch_are_added_to_those_after_it():
    before = metrics_of(2.5, [[1.0, 2.0], [3.0, 4.0]], np.int64(7))
    values = checkpoints.metric_values(before)
    np.testing.assert_array_equal(values, [2.5, 1, 2, 3, 4, 7])
    after = metrics_of(10.0, [[10.0, 20.0], [30.0, 40.0]], np.int64(70))
    for times in (1, 2):
        checkpoints.add_to_metrics(after, values)
        total, matrix, count = (variable.numpy() for variable in after.metrics_variables)
        assert total == 10 + 2.5 * times and count == 70 + 7 * times
        np.testing.assert_array_equal(
            matrix, times * np.array([[1, 2], [3, 4]]) + [[10, 20], [30, 40]]
        )
    assert checkpoints.metric_values(metrics_of()).size == 0
