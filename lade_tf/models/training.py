"""A batch's way through training and evaluation: network, loss, replicas, optimizer, metrics."""

import inspect
import typing

import keras
import numpy as np
import tensorflow as tf

from lade_tf import losses, ops
from lade_tf.models import compatibility
from lade_tf.models.carried_prior import check_class_weight, check_taken_out_once

# Stands for −inf where metrics see logits: Keras' answer for any row that isn't finite is "wrong".
LOWEST_LOGIT = np.finfo(np.float32).min / 4


class BatchLoss(typing.NamedTuple):
    """What a model makes of a batch, or of a replica's part of it, before the optimizer.

    Attributes:
        logits: [batch, classes] the raw ones, from which metrics are computed.
        labels: [batch] what metrics compare them with.
        loss: scalar, the loss of this replica's examples.
        share: its weight in the loss of the global batch, the sum of share · loss over replicas;
            1 on one device.
    """

    logits: tf.Tensor
    labels: tf.Tensor
    loss: tf.Tensor
    share: tf.Tensor | float


class TrainedModel(keras.Model):
    """The training of an `AdaptedModel`: the loss sees its raw logits, metrics the adapted ones.

    A model with a loss of its own overrides `batch_loss`, by default the compiled loss. One that
    only weights the compiled loss differently overrides Keras' `compute_loss`, which is called in
    there.

    Keras 3 also trains under `tf.distribute.MultiWorkerMirroredStrategy`, but for two places, which
    are mended here: `_maybe_symbolic_build` and `compute_metrics`.
    """

    # Whether a model computes its loss itself: `compile` then takes none.
    OWNS_LOSS = False
    # Arguments of fit and train_on_batch that make no sense for a model's loss, and why.
    REFUSED = {}

    _checks_loss = True
    _compiles_replicas = _has_binary_loss = False

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            batch = self.batch_loss(x, y, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(batch.share * batch.loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.update_metrics(x, batch, sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if len(label_sets(y)) > 1:
            raise ValueError("labels that mixup gives are for training: evaluate on plain ones")
        return self.update_metrics(x, self.batch_loss(x, y, sample_weight), sample_weight)

    def batch_loss(self, x, y, sample_weight=None, training=False):
        """Returns the `BatchLoss` of a batch: the one hook for models with a loss of their own.

        Args:
            x: what the network takes.
            y: [batch] integer labels; in training also mixup's (labels, other labels, shares).
            sample_weight: [batch] numbers ≥ 0, or None.
            training: whether the network is called as in training.
        """
        logits = self._compiled(self.raw_logits, training)(x, training=training)
        return self._of_compute_loss(x, y, logits, logits, sample_weight, training)

    def update_metrics(self, x, batch, sample_weight=None):
        """Adds a `BatchLoss` to what is shown, loss and metrics; returns {name: value so far}."""
        size = tf.shape(batch.logits)[0]
        self._show(self._loss_tracker, batch.loss, size, batch.share, sample_weight)
        adapted = tf.maximum(self.prior_adapt(batch.logits), LOWEST_LOGIT)
        return self.compute_metrics(x, batch.labels, adapted, sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the compiled loss; a binary one sees the log odds of the second class."""
        if self._has_binary_loss:
            y, validity = ops.check_labels(y, y_pred, 2)
            y = tf.cast(y, tf.float32)[:, None] * validity
            y_pred = y_pred[:, 1:] - y_pred[:, :1]
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _regularization(self):
        """Returns the sum of the losses that the network's own layers add, a float32 scalar."""
        return tf.add_n([tf.zeros([]), *(tf.cast(loss, tf.float32) for loss in self.losses)])

    def _of_compute_loss(self, x, y, logits, outputs, sample_weight, training):
        """Returns the `BatchLoss` that `compute_loss` gives; `outputs` are what it takes."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        of_each = [
            self.compute_loss(x, labels, outputs, sample_weight, training) * replicas
            for labels in label_sets(y)
        ]
        # Keras has divided it.
        return BatchLoss(logits, label_sets(y)[0], mixed(y, of_each), 1 / replicas)

    def _show(self, tracker, value, batch_size, share, sample_weight):
        """Adds a replica's value to a `keras.metrics.Mean`, so that it shows that of one device.

        `share` is that of a `BatchLoss` with this value; `batch_size` counts its examples.
        """
        share = self._shown_share(share, sample_weight)
        if share is None:
            tracker.update_state(value, sample_weight=batch_size)
            return
        # Replicas add their values up: with weights of one size, shares make the batch's of them.
        replicas = self.distribute_strategy.num_replicas_in_sync
        mean_size = _sum_over_replicas(tf.cast(batch_size, tf.float32)) / replicas
        tracker.update_state(replicas * share * value, sample_weight=mean_size)

    def _shown_share(self, share, sample_weight):
        """Returns a replica's weight in the loss that is shown, None for its number of examples."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return None
        reduction = getattr(self.loss, "reduction", None)
        if reduction == "sum" or isinstance(self.loss, losses.LADE):
            return share  # these are parts of the batch's
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            weight = tf.reduce_sum(tf.cast(sample_weight, tf.float32))
            return tf.math.divide_no_nan(weight, _sum_over_replicas(weight))
        return None

    def _compiled(self, function, training):
        """Returns a function that exchanges nothing, compiled where replicas are to use XLA."""
        if not (training and self._compiles_replicas):
            return function
        # A function of each replica's own: it captures the replica's variables.
        return tf.function(function, jit_compile=True, autograph=False)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        *,
        jit_compile="auto",
        **kwargs,
    ):
        if self.OWNS_LOSS and loss is not None:
            raise ValueError(
                f"loss must not be given to {type(self).__name__}.compile: the model owns its loss"
            )
        compatibility.check_expects_logits("loss", loss)
        num_classes = len(self.class_counts)
        self._has_binary_loss = compatibility.check_fits_outputs(loss, self.network, num_classes)
        if self._checks_loss:
            source_prior = self.prior_adapt.initial_source_prior
            check_taken_out_once(loss, source_prior, self.training_prior, self._weights_told)
        all_metrics = [metrics, kwargs.get("weighted_metrics")]
        if compatibility.has_one_output(self.network):
            compatibility.check_takes_two_logits(all_metrics)
        compatibility.check_expects_logits("metrics", all_metrics)
        self._jit_compile_given = jit_compile
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        if jit_compile == "auto" and not (has_gpu and self.supports_jit):
            jit_compile = False
        # Keras would compile the whole step, collectives included, which TensorFlow can't.
        self._compiles_replicas = self._can_compile_replicas(jit_compile)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            jit_compile = False
        super().compile(optimizer, loss, loss_weights, metrics, jit_compile=jit_compile, **kwargs)

    def _can_compile_replicas(self, jit_compile):
        """Whether XLA is wanted on several replicas and possible there."""
        if not jit_compile or self.distribute_strategy.num_replicas_in_sync == 1:
            return False
        layers = self.network._flatten_layers()
        synchronized = [layer.name for layer in layers if getattr(layer, "synchronized", False)]
        if synchronized and jit_compile != "auto":
            raise ValueError(
                "jit_compile must be False on several replicas with synchronised batch "
                f"normalisation ({synchronized[0]}): replicas exchange its statistics in the "
                "middle of the network, and XLA can't compile that"
            )
        return not synchronized

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:  # what "auto" means is for the machine to say that loads the model
            config["jit_compile"] = self._jit_compile_given
        return config

    def compile_from_config(self, config):
        # Files from before don't say which weights of classes the loss was checked with.
        self._checks_loss = False
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._checks_loss = True
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs):
        self._check_weighting(super().fit, args, kwargs)
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        self._check_weighting(super().train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)

    def _check_weighting(self, method, args, kwargs):
        given = inspect.signature(method).bind_partial(*args, **kwargs).arguments
        for name, why in self.REFUSED.items():
            if given.get(name) is not None:
                raise ValueError(f"{name} must not be given to {type(self).__name__}: {why}")
        if given.get("class_weight") is not None:
            taken = self.prior_adapt.initial_source_prior, self.training_prior
            check_class_weight(given["class_weight"], self.loss, *taken)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds metrics and optimizer from one replica's part of a batch.

        Keras adds the parts up, which fails where replicas can't divide a batch evenly.
        """
        if iterator is not None and self._distribute_strategy is not None:
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda v: local(v)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def _symbolic_build(self, iterator=None, data_batch=None):
        # With replicas Keras builds the compiled loss on a batch; it is for one set of labels.
        if isinstance(data_batch, tuple) and len(data_batch) > 1:
            data_batch = data_batch[0], label_sets(data_batch[1])[0], *data_batch[2:]
        super()._symbolic_build(iterator, data_batch)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Returns what Keras shows of a step."""
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if is_multi_worker(self.distribute_strategy):
            # Keras takes their mean over the workers along an axis, which scalars don't have.
            logs = {name: keras.ops.expand_dims(value, 0) for name, value in logs.items()}
        return logs


def label_sets(y):
    """Returns the labels that a batch has: one set, or the two that mixup gives."""
    if not isinstance(y, (tuple, list, dict)):
        return (y,)
    if not isinstance(y, tuple) or len(y) != 3 or not y[2].dtype.is_floating:
        raise ValueError(
            "labels must be one tensor [batch], or the three that mixup gives, "
            f"(labels, other labels, shares); got {keras.tree.map_structure(_describe, y)}"
        )
    return y[:2]


def _describe(tensor):
    return f"{tensor.dtype.name} {list(tensor.shape)}"


def mixed(y, of_each):
    """Returns the loss of a batch, given that of each set of labels: two are mixed by share."""
    if len(of_each) == 1:
        return of_each[0]
    of_first = tf.reduce_mean(y[2])
    return of_first * of_each[0] + (1 - of_first) * of_each[1]


def _sum_over_replicas(value):
    return tf.distribute.get_replica_context().all_reduce("sum", value)


def is_multi_worker(strategy):
    """Returns whether the replicas of a tf.distribute strategy are on several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
