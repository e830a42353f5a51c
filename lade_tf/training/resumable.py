"""`fit` that goes on where it stopped, and ends with the same bits."""

import hashlib
import itertools
import pathlib

import keras
import numpy as np
import tensorflow as tf

from lade_tf.checks import check_integer
from lade_tf.data.batch_streams import Origin, origin_of, prefetched
from lade_tf.files import TEMPORARY, alone, read_json, write_json
from lade_tf.models.training import is_multi_worker
from lade_tf.training import checkpoints
from lade_tf.training.callbacks import Checkpoint, StopOnNaN, StopOnSignal

CLAIM = "batches.json"


def fit(
    model,
    batches,
    folder,
    epochs=None,
    steps_per_epoch=None,
    validation_data=None,
    callbacks=(),
    class_weight=None,
    keep_every=0,
    verbose="auto",
):
    """Trains a model, from its last checkpoint on where there is one.

    Called again after it was killed, it ends with the weights, the optimizer's state and the
    history of a training that wasn't, bit for bit: on the same kind of device with the same
    versions, and on a GPU after `tf.config.experimental.enable_op_determinism()`. On SIGTERM it
    writes a checkpoint of that step and exits. A loss that isn't finite stops it.

    >>> model.compile(optimizer, metrics=["accuracy"])
    >>> batches = data.train_batches(batch_size=128, epochs=30, seed=0)
    >>> lade_tf.training.fit(model, batches, "runs/first")

    Args:
        model: a compiled `lade_tf.AdaptedModel`; its optimizer and its loss are those of the call
            that is resumed. It may have Dropout, but no random numbers without a seed generator
            (`keras.random` called with none).
        batches: what `train_batches` of a data set of `lade_tf.data` returns, or a function of the
            epoch, counted from 0, that returns an iterable of its `steps_per_epoch` batches, the
            same ones whenever it is called. A batch is what Keras' `fit` takes as one.
        folder: new, empty, or of an earlier call; it gets the checkpoints and history.csv
            (`lade_tf.training.checkpoints`).
        epochs: how many in all; may be left out for `train_batches`, which know it.
        steps_per_epoch: batches in an epoch; may be left out for `train_batches`.
        validation_data: as of Keras' `fit`; the checkpoint of the epoch with the best
            val_accuracy is kept as best.weights.h5.
        callbacks: more of Keras' callbacks. What they hold in memory, the patience of
            `EarlyStopping` for example, starts anew in a resumed training; one that they stopped
            stays stopped.
        class_weight, verbose: as of Keras' `fit`.
        keep_every: n, to keep the checkpoint of every n-th epoch; 0 for none.

    Returns:
        The rows of history.csv, one {column: float} an epoch. The model has the weights of the
        last epoch.

    Raises:
        ValueError: for a model that isn't compiled, batches that can't be resumed or aren't those
            of an earlier call, a folder that holds other things, or one that another process
            trains in.
        FloatingPointError: if the loss or the logits aren't finite.
    """
    if getattr(model, "optimizer", None) is None:
        raise ValueError("model must be compiled, with an optimizer; it isn't")
    if is_multi_worker(model.distribute_strategy):
        raise ValueError(
            "model must be trained by one process here; on several machines only one of them may "
            "write: give the callbacks of lade_tf.training to Keras' fit"
        )
    origin = resumable(batches, epochs, steps_per_epoch)
    first = _first_batch(origin, is_known=origin_of(batches) is not None)
    probe = keras.tree.map_structure(tf.convert_to_tensor, first[0])
    with model.distribute_strategy.scope():  # builds what isn't built yet
        model.raw_logits(probe)
        model.optimizer.build(model.trainable_variables)
    with alone(folder):
        _claim(pathlib.Path(folder), first, origin.steps_per_epoch)
        while True:
            progress = checkpoints.restore(folder, model)
            if progress.stopped or progress.epoch >= origin.epochs:
                break
            if len(checkpoints.read_history(folder)) < progress.epoch:
                raise ValueError(
                    f"{pathlib.Path(folder, checkpoints.HISTORY)} must have a row for each of "
                    f"{progress.epoch} epochs"
                )
            checkpoint = Checkpoint(folder, origin.steps_per_epoch, probe, progress, keep_every)
            fit_from(
                model,
                origin,
                progress,
                validation_data=validation_data,
                class_weight=class_weight,
                verbose=verbose,
                callbacks=[
                    *callbacks,
                    StopOnNaN(folder, origin.steps_per_epoch, progress),
                    checkpoint,
                    StopOnSignal(checkpoint),
                ],
            )
        # Averaged weights take the weights' place, as at the end of Keras' fit.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return checkpoints.read_history(folder)


def fit_from(model, origin, progress, **kwargs):
    """Calls Keras' `fit` from a step of an epoch on.

    An epoch that was broken off comes to its end on its own: the rest takes another call.

    Args:
        model: compiled.
        origin: `lade_tf.data.batch_streams.Origin` of its batches.
        progress: the `Progress` of the model.
        **kwargs: the other arguments of Keras' `fit`.
    """
    model.fit(
        origin.from_epoch(progress.epoch).skip(progress.step),
        initial_epoch=progress.epoch,
        epochs=progress.epoch + 1 if progress.step else origin.epochs,
        steps_per_epoch=origin.steps_per_epoch - progress.step,
        shuffle=False,
        **kwargs,
    )


def resumable(batches, epochs=None, steps_per_epoch=None):
    """Returns the `Origin` of batches that are a function of epoch and step.

    Args:
        batches, epochs, steps_per_epoch: as of `fit`.

    Raises:
        ValueError: for others, with what is wrong with them.
    """
    origin = origin_of(batches)
    if origin is not None:
        for name, given in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
            if given not in (None, getattr(origin, name)):
                raise ValueError(
                    f"{name} must be {getattr(origin, name)}, as train_batches was given, or None; "
                    f"got {given!r}"
                )
        if origin.initial_epoch:
            raise ValueError(
                "batches must start at epoch 0: what is done is skipped by itself; got a stream "
                f"with initial_epoch={origin.initial_epoch}"
            )
        return origin
    if not callable(batches):
        raise ValueError(
            "batches must be what train_batches returns, unchanged, or a function of the epoch; "
            f"got {type(batches).__name__}, {_why_not(batches)}"
        )
    epochs = check_integer(epochs, "epochs", minimum=1)
    steps = check_integer(steps_per_epoch, "steps_per_epoch", minimum=1)
    signature = keras.tree.map_structure(_specification, _first_of(batches(0)))
    return Origin(lambda epoch: _stream(batches, epoch, epochs, steps, signature), 0, epochs, steps)


def _why_not(batches):
    """Returns why batches can't be resumed."""
    if isinstance(batches, tf.data.Dataset):
        return (
            "which can't be told to start at an epoch, and whose shuffling depends on what was "
            "drawn before"
        )
    if isinstance(batches, keras.utils.PyDataset):
        return "whose order in an epoch is drawn anew each time"
    if hasattr(batches, "shape") or isinstance(batches, list | tuple | dict):
        return "which Keras shuffles by random numbers whose state isn't kept"
    return "which can't be told to start at an epoch"


def _stream(batches, epoch, epochs, steps, signature):
    """Returns a `tf.data.Dataset` of the batches of several epochs.

    Keras would take a generator too, but begins it anew where it has looked at its first batch.
    """

    def generate():
        for each in range(epoch, epochs):
            count = 0
            for batch in itertools.islice(batches(each), steps):
                yield keras.tree.map_structure(tf.convert_to_tensor, _as_tuple(batch))
                count += 1
            if count < steps:
                raise ValueError(
                    f"batches must return {steps} batches, steps_per_epoch, for every epoch; of "
                    f"epoch {each} it returned {count}"
                )

    stream = tf.data.Dataset.from_generator(generate, output_signature=signature)
    number = tf.data.experimental.assert_cardinality((epochs - epoch) * steps)
    return prefetched(stream.apply(number), 1)


def _specification(value):
    """Returns what tf.data must know of an array, whose first axis is that of the batch."""
    value = tf.convert_to_tensor(value)
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def _as_tuple(batch):
    return tuple(batch) if isinstance(batch, list) else batch


def _first_of(batches):
    """Returns the first batch."""
    for batch in batches:
        return _as_tuple(batch)
    raise ValueError("batches must return at least one batch; got none")


def _first_batch(origin, is_known):
    """Returns (inputs, labels, weights) of the first batch, which must be always the same.

    Args:
        origin: the `Origin` of the batches.
        is_known: whether they are known to be; others are made a second time and compared.

    Raises:
        ValueError: if it isn't, or there is none.
    """
    found = [_first_of(origin.from_epoch(0)) for _ in range(1 if is_known else 2)]
    one, other = ([np.asarray(v) for v in keras.tree.flatten(found[i])] for i in (0, -1))
    if len(one) != len(other) or not all(map(_same, one, other)):
        raise ValueError(
            "batches must be a function of the epoch: its first batch of epoch 0 wasn't the "
            "same when it was called a second time. Shuffle and augment with seeds made of the "
            "epoch"
        )
    return keras.utils.unpack_x_y_sample_weight(found[0])


def _same(one, other):
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _claim(folder, first, steps_per_epoch):
    """Makes a folder that of these batches, or refuses another's."""
    digest = hashlib.sha256()
    for labels in keras.tree.flatten(first[1]):
        digest.update(np.asarray(labels).tobytes())
    claim = {"steps_per_epoch": steps_per_epoch, "first_labels": digest.hexdigest()[:16]}
    path = folder / CLAIM
    if path.exists():
        if read_json(path) != claim:
            raise ValueError(
                f"folder must be of a training on the same batches; {folder} is of one on others: "
                "give another folder"
            )
    elif others := [p.name for p in folder.iterdir() if not p.name.startswith(TEMPORARY)]:
        raise ValueError(
            f"folder must be new, empty or of an earlier call; {folder} holds other things "
            f"({sorted(others)[0]})"
        )
    else:
        write_json(path, claim)
