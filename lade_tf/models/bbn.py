"""BBN: two branches that learn from two samplers, mixed by a weight that falls with the epochs."""

import functools

import keras
import numpy as np
import tensorflow as tf

from lade_tf.checks import check_integer
from lade_tf.losses.balanced_softmax import balanced_softmax
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.ops import check_sample_weight


@keras.saving.register_keras_serializable("lade_tf")
class BBN(AdaptedModel):
    """Trains the two branches of `network`, each on its own batch (Zhou et al., CVPR 2020).

    The conventional branch sees images as they come, the rebalancing branch images of a reversed
    sampler. In epoch e of E, counted from 0, λ = 1 − (e/E)², the logits are
    head(2·[λ·f_c, (1 − λ)·f_r]) and the loss is λ·CE(y_c) + (1 − λ)·CE(y_r). The epoch is that of
    the optimizer's steps, so a resumed run goes on with the right λ. Inference is the plain
    network. The logits carry the uniform prior.

    `fit` takes data of the form ((images, rebalancing_images), (labels, rebalancing_labels)); its
    metrics compare the mixed logits with `labels`. `evaluate` and `predict` take plain data.
    `compile` takes an optimizer and metrics, no loss: the model owns it.

    >>> model = lade_tf.models.BBN(network, counts, epochs=200, steps_per_epoch=84)
    >>> model.compile(optimizer="sgd", metrics=["accuracy"])
    >>> model.fit(tf.data.Dataset.zip(instances, reversed_instances).map(
    ...     lambda a, b: ((a[0], b[0]), (a[1], b[1]))), epochs=200)

    Args:
        network: a keras.Model with two branches, as `split_branches` wants it.
        class_counts: [classes] training samples per class.
        epochs: E, after which λ is 0.
        steps_per_epoch: optimizer steps of an epoch.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Raises:
        ValueError: for a network without two branches, bad counts, priors, epochs or steps.
    """

    OWNS_LOSS = True
    ONE_OUTPUT_REFUSED = "one of each class: end it in two outputs"
    REFUSED = dict.fromkeys(("class_weight", "sample_weight"), "its samplers weight the classes")

    def __init__(
        self,
        network,
        class_counts,
        epochs,
        steps_per_epoch,
        target_prior=None,
        zero_count="error",
        **kwargs,
    ):
        super().__init__(
            network, class_counts, target_prior=target_prior, zero_count=zero_count, **kwargs
        )
        self.epochs = check_integer(epochs, "epochs", minimum=1)
        self.steps_per_epoch = check_integer(steps_per_epoch, "steps_per_epoch", minimum=1)
        # Keras doesn't track what lies in a partial: all state is the network's, saved as such.
        self._features = functools.partial(_SideBySide(split_branches(network)), training=True)

    def mixing_weight(self, step):
        """Returns λ at a step of the optimizer, a float32 scalar; 0 after the last epoch."""
        epoch = tf.cast(tf.convert_to_tensor(step) // self.steps_per_epoch, tf.float32)
        return 1 - tf.square(tf.minimum(epoch / self.epochs, 1.0))

    def mixed_logits(self, images, rebalancing_images, mixing):
        """Returns the float32 logits [batch, classes] of a training step.

        Args:
            images: [batch, ...] of the conventional branch.
            rebalancing_images: [batch, ...] of the rebalancing branch.
            mixing: λ, a scalar.
        """
        features = self._features([images, rebalancing_images])
        weights = (mixing, 1 - mixing)
        mixed = [2 * w * tf.cast(f, tf.float32) for w, f in zip(weights, features, strict=True)]
        head = self.network.output._keras_history.operation
        return tf.cast(head(tf.concat(mixed, axis=-1)), tf.float32)

    def batch_loss(self, x, y, sample_weight=None, training=False):
        if not training:
            return super().batch_loss(x, y, sample_weight)
        _check_pairs(x, y, sample_weight)
        mixing = self.mixing_weight(self.optimizer.iterations)
        logits = self.mixed_logits(*x, mixing)
        conventional, rebalancing = (
            self._of_compute_loss(None, labels, logits, logits, None, training) for labels in y
        )
        loss = mixing * conventional.loss + (1 - mixing) * rebalancing.loss
        return conventional._replace(loss=loss)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns cross-entropy on raw logits plus the network's own losses, as Keras scales it."""
        # The prior that it takes is uniform here: log 1 for every class.
        values = balanced_softmax(y_pred, y, log_prior=np.zeros(len(self.class_counts)))
        weight, _ = check_sample_weight(sample_weight, values, values.dtype)
        size = tf.cast(tf.size(values), values.dtype)  # 0 on a replica without examples
        mean = tf.math.divide_no_nan(tf.reduce_sum(weight * values), size)
        loss = mean + self._regularization()
        return loss / self.distribute_strategy.num_replicas_in_sync

    def get_config(self):
        return {
            **super().get_config(),
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def _symbolic_build(self, iterator=None, data_batch=None):
        # With replicas Keras first calls the model on a batch as inference knows it, to build the
        # metrics.
        if isinstance(data_batch, tuple) and isinstance(data_batch[0], (list, tuple)):
            _check_pairs(*keras.utils.unpack_x_y_sample_weight(data_batch))
            data_batch = data_batch[0][0], data_batch[1][0]
        super()._symbolic_build(iterator, data_batch)


def split_branches(network):
    """Returns the two branches of a network as models that share its layers.

    The network ends in a Dense layer, its head, on the concatenation of two branches' features:
    Dense(Concatenate([f, g])) or, what is the same as that of the pooled branches,
    Dense(GlobalAveragePooling2D(Concatenate([f, g]))). Each of these layers may be the last of a
    nested functional model, as in `lade_tf.backbones.resnet32` with a `classifier_head`.

    Args:
        network: a functional keras.Model with one input and one output.

    Returns:
        (conventional, rebalancing): two keras.Model with the input of the network, that give
        features [batch, d]. What both need is shared, and nothing has new weights.

    Raises:
        ValueError: if the network isn't built like that.
    """
    features = None
    if len(getattr(network, "outputs", None) or []) == 1:
        head, inputs = _producer(network.output)
        features = _branches(inputs[0]) if isinstance(head, keras.layers.Dense) else None
    if features is None:
        raise ValueError(
            "network must be a functional model that ends in two concatenated branches and a Dense "
            "layer: Concatenate of two, GlobalAveragePooling2D or not, Dense; its layers are "
            f"{[layer.name for layer in getattr(network, 'layers', [])][-5:]} at the end"
        )
    return tuple(keras.Model(network.input, branch) for branch in features)


def _branches(tensor):
    """Returns the two Keras tensors that `tensor` is the concatenation of, or None."""
    layer, inputs = _producer(tensor)
    if isinstance(layer, keras.layers.Concatenate):
        joins_channels = layer.axis in (-1, len(tensor.shape) - 1)
        return inputs if len(inputs) == 2 and joins_channels else None
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        branches = _branches(inputs[0]) if layer.data_format == "channels_last" else None
        return branches and [layer(branch) for branch in branches]
    if len(getattr(layer, "outputs", None) or []) == 1:
        branches = _branches(layer.outputs[0])
        return branches and [keras.Model(layer.input, branch)(*inputs) for branch in branches]
    return None


def _producer(tensor):
    """Returns the layer that a Keras tensor comes out of, and the tensors that went in there."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return history.operation, node.input_tensors


class _SideBySide(keras.Model):
    """Both branches in one call, so that Keras keeps the activity losses of both batches."""

    def __init__(self, branches):
        super().__init__(autocast=False, name="branches")
        self.branches = branches

    def call(self, images, training=False):
        pairs = zip(self.branches, images, strict=True)
        return [branch(batch, training=training) for branch, batch in pairs]


def _check_pairs(x, y, sample_weight):
    """Raises a ValueError unless a training batch is a pair of images and one of labels."""
    if sample_weight is not None:
        raise ValueError("sample_weight must not be given to BBN: its samplers weight the classes")
    if not all(isinstance(part, (list, tuple)) and len(part) == 2 for part in (x, y)):
        raise ValueError(
            "the data of BBN must have the form ((images, rebalancing_images), (labels, "
            f"rebalancing_labels)); got x of {_structure(x)} and y of {_structure(y)}"
        )


def _structure(part):
    return keras.tree.map_structure(lambda tensor: list(tensor.shape), part)
