"""What happens between the steps and the epochs of a run."""

import math
import time

import keras
import numpy as np


class Checkpoint(keras.callbacks.Callback):
    """After each epoch: a row in history.csv, then the last checkpoint.

    In that order, so that a kill between the two leaves a row too many, which the resumed run
    removes, and never one too few.
    """

    def __init__(self, run, steps_per_epoch, batch_size, probe):
        """`probe`: a few images, on which a checkpoint must give finite logits to be kept."""
        super().__init__()
        self.run = run
        self.probe = probe
        self.steps_per_epoch = steps_per_epoch
        self.images_per_epoch = steps_per_epoch * batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic(), time.process_time()
        self.learning_rate = float(self.model.optimizer.learning_rate)  # constant in an epoch

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.started[0]
        row = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in logs.items()},
            "learning_rate": self.learning_rate,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(time.process_time() - self.started[1], 2),
            "images_per_second": round(self.images_per_epoch / seconds, 1),
        }
        logs["images_per_second"] = row["images_per_second"]
        self._refuse_ruined_weights(epoch)
        self.run.write_history([*self.run.read_history()[:epoch], row])
        self.run.save(self.model, epoch + 1)

    def _refuse_ruined_weights(self, epoch):
        # The loss of a step is that before its update: the last one of an epoch is seen only here.
        if not np.isfinite(self.model.predict_on_batch(self.probe)).all():
            step = (epoch + 1) * self.steps_per_epoch
            raise FloatingPointError(
                f"the logits aren't finite after step {step} (the end of epoch {epoch + 1}). "
                + last_good(self.run, epoch)
            )


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first step whose loss isn't finite, naming it."""

    def __init__(self, run, steps_per_epoch):
        super().__init__()
        self.run = run
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            step = self.epoch * self.steps_per_epoch + batch + 1
            raise FloatingPointError(
                f"the loss became {loss} at step {step} (epoch {self.epoch + 1}, batch "
                f"{batch + 1}). {last_good(self.run, self.epoch)}"
            )


def last_good(run, epochs):
    """Says which checkpoint is kept after `epochs` good epochs."""
    if epochs == 0:
        return "There is no checkpoint yet. A lower --learning_rate may help"
    return (
        f"The last good checkpoint, of epoch {epochs}, is kept: {run.file('last.weights.h5')}. "
        "A lower --learning_rate may help"
    )
