"""What happens between the steps and the epochs of a run."""

import math
import signal
import sys
import threading
import time

import keras
import numpy as np

from reproduction import checkpoints


class Checkpoint(keras.callbacks.Callback):
    """After each epoch: a row in history.csv, then the last checkpoint.

    In that order, so that a kill between the two leaves a row too many, which the resumed run
    removes, and never one too few.
    """

    def __init__(self, run, steps_per_epoch, batch_size, probe, progress, keep_every=0):
        """Writes the checkpoints of a run that goes on from `progress`.

        Args:
            run: the `RunFolder`; None checks as the others do and writes nothing.
            steps_per_epoch: steps in an epoch.
            batch_size: images in a step.
            probe: a few images, on which a checkpoint must give finite logits to be kept.
            progress: the `checkpoints.Progress` of the model.
            keep_every: of every how manieth epoch the checkpoint is kept; 0 for none.
        """
        super().__init__()
        self.run = run
        self.probe = probe
        self.steps_per_epoch = steps_per_epoch
        self.images_per_epoch = steps_per_epoch * batch_size
        self.progress = progress
        self.keep_every = keep_every

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic(), time.process_time()
        self.learning_rate = float(self.model.optimizer.learning_rate)  # constant in an epoch

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
            "images_per_second": round(self.images_per_epoch / seconds, 1),
        }
        logs["images_per_second"] = row["images_per_second"]
        self._refuse_ruined_weights(epoch)
        self.progress = checkpoints.Progress(epoch + 1)
        if self.run is None:
            return
        history = self.run.read_history()[:epoch]
        self.run.write_history([*history, row])
        # As the others are read, without the digits that aren't written: a tie isn't better.
        *history, row = self.run.read_history()
        checkpoints.save(self.run, self.model, self.progress, self._more_names(row, history))

    def save_inside_epoch(self, epoch, step):
        """Writes the last checkpoint after some steps of an epoch."""
        progress = checkpoints.Progress(
            epoch, step, *self._seconds(), checkpoints.metric_values(self.model)
        )
        checkpoints.save(self.run, self.model, progress)

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
                + last_good(self.run, epoch)
            )


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first step whose loss isn't finite, naming it."""

    def __init__(self, run, steps_per_epoch, progress):
        super().__init__()
        self.run = run
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
                f"{batch + 1}). {last_good(self.run, self.epoch)}"
            )


class StopOnSignal(keras.callbacks.Callback):
    """On SIGTERM, which announces that the machine is taken away: a checkpoint, then the end.

    It stands behind `checkpoint` in the list of callbacks. The checkpoint is of the step that the
    signal fell into, or, without `inside_epochs`, of the epoch before.
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
        sys.exit(f"stopped by SIGTERM after {place}. The same command goes on from there")


def last_good(run, epochs):
    """Says which checkpoint is kept after `epochs` good epochs."""
    if epochs == 0:
        return "There is no checkpoint yet. A lower --learning_rate may help"
    path = run.file(checkpoints.LAST) if run else "the chief's"
    return (
        f"The last good checkpoint, of epoch {epochs}, is kept: {path}. "
        "A lower --learning_rate may help"
    )
