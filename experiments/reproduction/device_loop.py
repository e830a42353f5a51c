"""--loop=device: whole epochs as one XLA program; data, shuffling and augmentation on the device.

An epoch is a pure function of tensors: what Keras keeps in variables goes in and comes out again
through a `keras.StatelessScope`, so the program can also be exported (studies.export_program). The
model computes its own loss and metrics in it, and random numbers are those of `data.train_batches`:
the run is the one of the ordinary loop, up to the rounding of another compiler.
"""

import math

import keras
import tensorflow as tf

import lade_tf
from lade_tf.training.callbacks import last_good


def check(config, data, model):
    """Raises a ValueError that says why, if a configuration can't be trained in this loop."""
    reason = None
    if not config.num_epochs:
        reason = f"--loss={config.loss} trains nothing"
    elif config.method.paired or type(model).train_step is not lade_tf.AdaptedModel.train_step:
        reason = f"--loss={config.loss} has training steps of its own"
    elif not isinstance(data, lade_tf.data.ImageData):
        reason = f"the images of --dataset={config.dataset} aren't in memory"
    elif config.augment != "standard":
        reason = f"--augment={config.augment} has shapes that XLA can't compile: only standard"
    elif config.precision == "float16":
        reason = "--precision=float16 may skip steps: use bfloat16"
    elif model.distribute_strategy.num_replicas_in_sync > 1:
        reason = "it is for one device: use --strategy=one_device"
    if reason:
        raise ValueError(f"--loop=device can't do this: {reason}")


def fit(
    config, data, run, model, initial_epoch, epochs, callbacks, validation_data=None, verbose=2
):
    """Trains as `model.fit` does on `training.train_batches`, each epoch in one call.

    Args:
        config: of the run.
        data: `lade_tf.data.ImageData`.
        run: the `RunFolder`, to say what is kept if the loss becomes NaN.
        model: compiled, its optimizer built.
        initial_epoch: epochs already done.
        epochs: epoch, counted from 0, at which to end.
        callbacks: Keras callbacks; they see epochs, no batches.
        validation_data: batches that Keras evaluates the model on after each epoch, or None.
        verbose: as in `model.fit`.

    Raises:
        ValueError: as `check`.
        FloatingPointError: if the loss isn't finite after an epoch.
    """
    program = EpochProgram(config, data, model)
    run_epoch = tf.function(program.epoch, jit_compile=True, autograph=False)
    images, labels = tf.constant(data.train.images), tf.constant(data.train.labels)
    callbacks = keras.callbacks.CallbackList(
        callbacks,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=program.steps,
    )
    model.stop_training = False
    callbacks.on_train_begin()
    logs = {}
    for epoch in range(initial_epoch, epochs):
        callbacks.on_epoch_begin(epoch)
        values, metrics, _ = run_epoch(program.values(), tf.constant(epoch), images, labels)
        program.assign(values)
        logs = dict(zip(program.metrics, metrics.numpy().tolist(), strict=True))
        check_finite(logs["loss"], epoch, run)
        if validation_data is not None:
            scores = model.evaluate(validation_data, return_dict=True, verbose=0)
            logs |= {f"val_{name}": score for name, score in scores.items()}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)  # as `fit` does
    callbacks.on_train_end(logs)


def check_finite(loss, epoch, run):
    """Raises a FloatingPointError unless the mean loss of an epoch, from 0, is finite."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} in epoch {epoch + 1}. " + last_good(run, epoch)
        )


class EpochProgram:
    """The training of a model as functions of tensors alone, for one device.

    A state is the values of `variables`, 64-bit integers as int32: not every device has those.

    Attributes:
        steps: in an epoch.
        metrics: their names.
        variables: weights, statistics and the optimizer's.
    """

    def __init__(self, config, data, model):
        """Takes the configuration, the `ImageData` and the compiled model of a run."""
        check(config, data, model)
        self._model = model
        self.steps = data.steps_per_epoch(config.batch_size)
        self._epoch_indices, self._make_batch = data.batch_functions(
            config.batch_size,
            config.num_epochs,
            config.seed,
            sampler=config.sampler,
            augment=config.augment,
            mixup_alpha=config.mixup,
        )
        images, labels = next(iter(data.plain_batches("train", 1)))
        model.update_metrics(images, model.batch_loss(images, labels))  # the first creates them
        model.reset_metrics()
        self.metrics = sorted(model.get_metrics_result())  # as `fit` orders them
        self._metric_variables = model.metrics_variables
        taken = {id(variable) for variable in self._metric_variables}
        others = [*model.variables, *model.optimizer.variables]
        self.variables = [variable for variable in others if id(variable) not in taken]

    def values(self):
        """Returns the state that the variables have now."""
        return [_narrow(tf.convert_to_tensor(variable.value)) for variable in self.variables]

    def assign(self, values):
        """Gives the variables a state."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(tf.cast(value, variable.dtype))

    def epoch(self, values, epoch, images, labels):
        """Trains one epoch.

        Args:
            values: the state before it.
            epoch: counted from 0, int32 scalar.
            images: of the training set, [images, height, width, channels] uint8.
            labels: their labels, [images] int32.

        Returns:
            The state after it, its `metrics` [numbers] float32, and its learning rate.
        """
        epoch = tf.cast(epoch, tf.int64)
        indices = self._epoch_indices(epoch)

        def step(number, values):
            batch = self._make_batch(
                images, labels, epoch, tf.cast(number, tf.int64), indices[number]
            )
            return number + 1, self._step(values, *batch)

        values = [tf.cast(v, own.dtype) for v, own in zip(values, self.variables, strict=True)]
        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self._metric_variables]
        start = [*values, *zeros]
        with self._scope(start):
            learning_rate = tf.cast(self._model.optimizer.learning_rate, tf.float32)
        _, end = tf.while_loop(lambda number, _: number < self.steps, step, (0, start))
        with self._scope(end):
            results = self._model.get_metrics_result()
        metrics = tf.stack([results[name] for name in self.metrics])
        return [_narrow(value) for value in end[: len(values)]], metrics, learning_rate

    def _step(self, values, x, y):
        """Returns the values after a step: `AdaptedModel.train_step` without variables."""
        model, optimizer = self._model, self._model.optimizer
        with self._scope(values) as scope:
            weights = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(weights)
                batch = model.batch_loss(x, y, training=True)
                loss = batch.share * batch.loss
            gradients = tape.gradient(loss, weights)
            model.update_metrics(x, batch)
            changed = [*model.trainable_variables, *optimizer.variables]
            own = [variable.value for variable in optimizer.variables]
            weights, own = optimizer.stateless_apply(own, gradients, weights)
            for variable, value in zip(changed, [*weights, *own], strict=True):
                variable.assign(value)
        return [scope.get_current_value(variable) for variable in self._all_variables]

    def _scope(self, values):
        return keras.StatelessScope(zip(self._all_variables, values, strict=True))

    @property
    def _all_variables(self):
        return [*self.variables, *self._metric_variables]


def _narrow(value):
    return tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
