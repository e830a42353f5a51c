"""A training that was broken off ends with the same bits as one that wasn't."""

import dataclasses
import functools
import os
import shutil
import signal

import h5py
import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf

import lade_tf
from lade_tf.data import ImageData, Split
from lade_tf.training import checkpoints

COUNTS = [40, 20, 12]
EPOCHS, STEPS = 3, 4
CLOCKS = ("seconds", "cpu_seconds")


class Killed(Exception):
    """What a kill is here."""


class Kill(keras.callbacks.Callback):
    """Ends the training by an exception, or by SIGTERM, at a step of an epoch."""

    def __init__(self, epoch, step, by_signal=False):
        super().__init__()
        self.at, self.by_signal = (epoch, step), by_signal

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise Killed


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.int32), COUNTS)
    images = rng.integers(0, 255, (len(labels), 6, 6, 1), np.uint8)
    split = Split(images, labels)
    return ImageData("made", tuple("abc"), split, split, (0.5,), (0.2,), 255.0, 1, True)


def make_network():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Rescaling(1 / 255), *layers])


def make_model(kind=lade_tf.LADEModel, run_eagerly=False, **options):
    model = kind(make_network(), COUNTS)
    optimizer = keras.optimizers.Adam(0.01, **options)
    loss = {} if kind is lade_tf.LADEModel else {"loss": lade_tf.losses.Focal()}
    model.compile(optimizer=optimizer, metrics=["accuracy"], run_eagerly=run_eagerly, **loss)
    return model


def quick_model():
    """Returns a model that is traced by nothing: for what happens around its training."""
    return make_model(run_eagerly=True)


def bits(model, folder):
    """Returns all that two trainings must agree in: weights, optimizer, history, checkpoint."""
    arrays = {str(i): variable.numpy() for i, variable in enumerate(model.variables)}
    arrays |= {f"optimizer {i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
    rows = checkpoints.read_history(folder)
    arrays["history"] = np.array(
        [[value for name, value in row.items() if name not in CLOCKS] for row in rows]
    )
    with h5py.File(folder / checkpoints.LAST) as file:
        file.visititems(lambda n, v: arrays.update({n: v[()]} if hasattr(v, "shape") else {}))
    return arrays


def by_hand(epoch, seed=0):
    """A function of the epoch, as a user writes it."""
    rng = np.random.default_rng([seed, epoch])
    for _ in range(STEPS):
        labels = rng.integers(0, 3, 16)
        yield rng.uniform(0, 255, (16, 6, 6, 1)).astype(np.float32), labels


def validated(data, **options):
    batches = data.train_batches(18, EPOCHS, seed=3, **options)
    return batches, {"validation_data": data.plain_batches("test", 36), "verbose": 0}


def own_function(data):
    return by_hand, {"epochs": EPOCHS, "steps_per_epoch": STEPS, "verbose": 0}


@pytest.mark.parametrize(
    ("make_batches", "make", "kill"),
    [
        (
            functools.partial(validated, mixup_alpha=0.2, sampler="progressively_balanced"),
            functools.partial(make_model, lade_tf.AdaptedModel, use_ema=True),
            Kill(1, 1, by_signal=True),
        ),
        (own_function, make_model, Kill(1, 2)),
    ],
    ids=["told to stop", "killed"],
)
def test_a_broken_off_training_ends_with_the_same_bits(make_batches, make, kill, data, tmp_path):
    whole, resumed = make(), make()
    batches, options = make_batches(data)
    rows = lade_tf.training.fit(whole, batches, tmp_path / "whole", **options)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert ("val_accuracy" in rows[0]) == ("validation_data" in options)
    with pytest.raises(SystemExit if kill.by_signal else Killed):
        lade_tf.training.fit(resumed, batches, tmp_path / "run", callbacks=[kill], **options)
    progress = checkpoints.load(tmp_path / "run" / checkpoints.LAST, resumed)
    assert (progress.epoch, progress.step) == (kill.at[0], (kill.at[1] + 1) * kill.by_signal)
    resumed = make()  # as in another process
    lade_tf.training.fit(resumed, batches, tmp_path / "run", **options)
    actual, expected = bits(resumed, tmp_path / "run"), bits(whole, tmp_path / "whole")
    assert actual.keys() == expected.keys() and expected["history"].shape[0] == EPOCHS
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.slow
def test_so_does_one_on_two_replicas(tmp_path):
    whole, resumed = replicas.in_a_process(replicas.resumed, str(tmp_path))
    assert len(whole) == len(resumed) > 8
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The model and the folder of a training of one epoch."""
    model, folder = quick_model(), tmp_path_factory.mktemp("finished")
    lade_tf.training.fit(model, by_hand, folder, 1, STEPS, verbose=0)
    return model, folder


def test_every_batch_is_seen_once_and_in_its_order(finished):
    model = quick_model()
    for images, labels in by_hand(0):
        model.train_on_batch(images, labels)
    for one, other in zip(finished[0].variables, model.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)


def test_a_finished_training_is_loaded_and_left_alone(finished):
    (model, folder), again = finished, quick_model()
    rows = lade_tf.training.fit(again, by_hand, folder, 1, STEPS, callbacks=[Kill(0, 0)])
    assert rows == checkpoints.read_history(folder)
    np.testing.assert_array_equal(again.weights[0], model.weights[0])


def test_a_training_that_a_callback_stopped_stays_stopped(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    for more in ({"callbacks": [Stop()]}, {}):
        rows = lade_tf.training.fit(quick_model(), by_hand, tmp_path, 3, STEPS, verbose=0, **more)
        assert len(rows) == 1


def arrays(data):
    return (data.train.images, data.train.labels)


def a_data_set(data):
    return tf.data.Dataset.from_tensor_slices(arrays(data)).shuffle(72).batch(18)


def a_changed_stream(data):
    return data.train_batches(18, EPOCHS, seed=0).map(lambda x, y: (x, y))


def a_generator(data):
    return by_hand(0)


@pytest.mark.parametrize(
    ("make_batches", "why"),
    [
        (arrays, "tuple, which Keras shuffles"),
        (a_data_set, "Dataset, which can't be told to start at an epoch.*shuffling"),
        (a_changed_stream, "Dataset, which can't be told"),
        (a_generator, "generator, which can't be told to start"),
    ],
)
def test_other_data_are_refused_with_why(make_batches, why, data, tmp_path):
    with pytest.raises(ValueError, match=f"batches must be .* got .*{why}"):
        lade_tf.training.fit(quick_model(), make_batches(data), tmp_path / "run", EPOCHS, STEPS)
    assert not (tmp_path / "run").exists()


def test_a_function_of_more_than_the_epoch_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for function in (lambda epoch: by_hand(epoch, rng.integers(99)), lambda epoch: iter(())):
        with pytest.raises(ValueError, match="batches must"):
            lade_tf.training.fit(quick_model(), function, tmp_path / "run", EPOCHS, STEPS)
    assert not (tmp_path / "run").exists()


def test_an_epoch_with_fewer_batches_is_refused(tmp_path):
    with pytest.raises(Exception, match=f"steps_per_epoch, .*epoch 0 it returned {STEPS}"):
        lade_tf.training.fit(quick_model(), by_hand, tmp_path, EPOCHS, STEPS + 1, verbose=0)


def test_another_training_in_the_folder_is_refused(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "run")
    kept = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    for batches, steps in ((functools.partial(by_hand, seed=1), STEPS), (by_hand, STEPS - 1)):
        with pytest.raises(ValueError, match="folder must be of a training on the same batches"):
            lade_tf.training.fit(quick_model(), batches, folder, 2, steps)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == kept
    (folder / checkpoints.HISTORY).unlink()
    with pytest.raises(ValueError, match="history.csv must have a row for each of 1 epochs"):
        lade_tf.training.fit(quick_model(), by_hand, folder, 2, STEPS)
    other = tmp_path / "other"
    other.mkdir()
    (other / "history.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"folder must be new, empty .*history.csv"):
        lade_tf.training.fit(quick_model(), by_hand, other, 2, STEPS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "epochs must be 3, as train_batches was given, or None; got 2"),
        ({"steps_per_epoch": 2}, "steps_per_epoch must be 4, .* got 2"),
        ({"batches": by_hand}, "epochs must be an integer >= 1; got None"),
        ({"batches": by_hand, "epochs": 2}, "steps_per_epoch must be an integer >= 1; got None"),
        ({"model": lade_tf.AdaptedModel(make_network(), COUNTS)}, "model must be compiled"),
    ],
)
def test_bad_arguments_are_refused(options, message, data, tmp_path):
    given = {"model": quick_model(), "batches": data.train_batches(18, EPOCHS, seed=0), **options}
    with pytest.raises(ValueError, match=message):
        lade_tf.training.fit(folder=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_stream_that_starts_late_is_refused(data, tmp_path):
    late = data.train_batches(18, EPOCHS, seed=0, initial_epoch=1)
    with pytest.raises(ValueError, match="batches must start at epoch 0.*initial_epoch=1"):
        lade_tf.training.fit(quick_model(), late, tmp_path / "run")


def test_a_loss_that_isnt_finite_stops_it(tmp_path):
    def ruined(epoch):
        for images, labels in by_hand(epoch):
            yield images * (np.nan if epoch else 1), labels

    with pytest.raises(FloatingPointError, match=r"became nan at step 5 .*of epoch 1, is kept"):
        lade_tf.training.fit(quick_model(), ruined, tmp_path, EPOCHS, STEPS, verbose=0)
    assert checkpoints.restore(tmp_path, quick_model()).epoch == 1


def test_progress_has_room_for_metrics_of_many_classes(tmp_path):
    model = quick_model()
    model.optimizer.build(model.trainable_variables)
    progress = checkpoints.Progress(1, 2, metrics=np.arange(20_000.0))  # an attribute has 64 KB
    checkpoints.save(tmp_path, model, progress)
    again = checkpoints.load(tmp_path / checkpoints.LAST, model)
    np.testing.assert_array_equal(again.metrics, progress.metrics)
    assert dataclasses.replace(again, metrics=0) == dataclasses.replace(progress, metrics=0)
