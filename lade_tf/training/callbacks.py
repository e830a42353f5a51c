"""What happens between the steps and the epochs of a training that can be resumed."""

import math
import pathlib
import signal
import threading
import time

import keras
import numpy as np

from lade_tf.training import checkpoints

ADVICE = "A lower learning rate may help"


class Checkpoint(keras.callbacks.Callback):
    """After each epoch: a row in history.csv, then the last checkpoint.

    In that order, so that a kill between the two leaves a row too many, which the resumed training
    removes, and never one too few.
    """

    def __init__(self, folder, steps_per_epoch, probe, progress, keep_every=0, batch_size=None):
        """Writes the checkpoints of a training that goes on from `progress`.

        Args:
            folder: an existing folder; None checks as the others do and writes nothing.
            steps_per_epoch: steps in an epoch.
            probe: a few inputs, on which a checkpoint must give finite logits to be kept.
            progress: the `checkpoints.Progress` of the model.
            keep_every: n, to keep the checkpoint of every n-th epoch; 0 for none.
            batch_size: examples in a step, for the column images_per_second; None for none.
        """
        super().__init__()
        self.folder = folder
        self.probe = probe
        self.steps_per_epoch = steps_per_epoch
        self.progress = progress
        self.keep_every = keep_every
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic(), time.process_time()
        learning_rate = self.model.optimizer.learning_rate  # constant in an epoch
        self.learning_rate = float(keras.ops.convert_to_numpy(learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0 and self.progress.step:  # not before: the first step creates the metrics
            checkpoints.add_to_metrics(self.model, self.progress.metrics)

    def on_epoch_end(self, epoch, logs=None):
        seconds, cpu_seconds = self._seconds()
        row = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in logs.items()},
            "learning_rate": self.learning_rate,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
        }
        if self.batch_size is not None:
            images = self.steps_per_epoch * self.batch_size
            row["images_per_second"] = logs["images_per_second"] = round(images / seconds, 1)
        self._refuse_ruined_weights(epoch)
        self.progress = checkpoints.Progress(epoch + 1, stopped=self.model.stop_training)
        if self.folder is None:
            return
        history = checkpoints.read_history(self.folder)[:epoch]
        checkpoints.write_history(self.folder, [*history, row])
        # As the others are read, without the digits that aren't written: a tie isn't better.
        *history, row = checkpoints.read_history(self.folder)
        names = self._more_names(row, history)
        checkpoints.save(self.folder, self.model, self.progress, names)

    def save_inside_epoch(self, epoch, step):
        """Writes the last checkpoint after some steps of an epoch."""
        progress = checkpoints.Progress(
            epoch, step, *self._seconds(), checkpoints.metric_values(self.model)
        )
        checkpoints.save(self.folder, self.model, progress)

    def _seconds(self):
        """Returns the seconds of this epoch, those before an interruption too, and of processor."""
        seconds, cpu_seconds = self.progress.seconds, self.progress.cpu_seconds
        started, cpu_started = self.started
        return (
            seconds + time.monotonic() - started,
            cpu_seconds + time.process_time() - cpu_started,
        )

    def _more_names(self, row, history):
        """Returns by which names, beside the last, the checkpoint of an epoch is kept."""
        epoch, score = int(row["epoch"]), row.get("val_accuracy")
        if self.keep_every and epoch % self.keep_every == 0:
            yield checkpoints.name_of(epoch)
        if score is not None and all(score > earlier["val_accuracy"] for earlier in history):
            yield checkpoints.BEST

    def _refuse_ruined_weights(self, epoch):
        # The loss of a step is that before its update: the last one of an epoch is seen only here.
        if not np.isfinite(self.model.raw_logits(self.probe)).all():
            step = (epoch + 1) * self.steps_per_epoch
            raise FloatingPointError(
                f"the logits aren't finite after step {step} (the end of epoch {epoch + 1}). "
                + last_good(self.folder, epoch)
            )


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first step whose loss isn't finite, by a FloatingPointError."""

    def __init__(self, folder, steps_per_epoch, progress):
        """Takes the folder of the checkpoints, steps in an epoch, and the `Progress` at the start.

        The folder is for the message alone; None where another process writes them.
        """
        super().__init__()
        self.folder = folder
        self.steps_per_epoch = steps_per_epoch
        self.first_step = progress.step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            batch += self.first_step
            step = self.epoch * self.steps_per_epoch + batch + 1
            raise FloatingPointError(
                f"the loss became {loss} at step {step} (epoch {self.epoch + 1}, batch "
                f"{batch + 1}). {last_good(self.folder, self.epoch)}"
            )


class StopOnSignal(keras.callbacks.Callback):
    """On SIGTERM, which announces that the machine is taken away: a checkpoint, then SystemExit.

    It stands behind `checkpoint` in the list of callbacks. The checkpoint is of the step that the
    signal fell into, or, without `inside_epochs`, of the epoch before. Outside the main thread,
    where Python hears no signals, it does nothing.
    """

    def __init__(self, checkpoint, inside_epochs=True):
        super().__init__()
        self.checkpoint = checkpoint
        self.inside_epochs = inside_epochs
        self.received = False

    def on_train_begin(self, logs=None):
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGTERM, self._note)

    def on_train_end(self, logs=None):
        if hasattr(self, "handler"):
            signal.signal(signal.SIGTERM, self.handler)

    def _note(self, *_):
        self.received = True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = self.checkpoint.progress.step + batch + 1
        # After the last step the checkpoint is the epoch's.
        if not self.received or step == self.checkpoint.steps_per_epoch:
            return
        if self.inside_epochs:
            self.checkpoint.save_inside_epoch(self.epoch, step)
            self._stop(f"step {step} of epoch {self.epoch + 1}")
        self._stop(f"epoch {self.epoch}")

    def on_epoch_end(self, epoch, logs=None):
        if self.received:
            self._stop(f"epoch {epoch + 1}")

    def _stop(self, place):
        raise SystemExit(f"stopped by SIGTERM after {place}. The same call goes on from there")


def last_good(folder, epochs):
    """Says which checkpoint is kept after `epochs` good epochs."""
    if epochs == 0:
        return f"There is no checkpoint yet. {ADVICE}"
    path = "the chief's" if folder is None else pathlib.Path(folder, checkpoints.LAST)
    return f"The last good checkpoint, of epoch {epochs}, is kept: {path}. {ADVICE}"
