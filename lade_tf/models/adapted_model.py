"""AdaptedModel: a network, and after it the target prior of the place where it runs."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import priors
from lade_tf.layers import PriorAdaptLayer
from lade_tf.models.export import export_saved_model

SMALLEST_PROBABILITY = np.finfo(np.float32).tiny


@keras.saving.register_keras_serializable("lade_tf")
class AdaptedModel(keras.Model):
    """A classifier whose answers are right for a target prior that can be set at any time.

    Calling it and `predict` give float32 logits adapted to the stored target prior; `network(x)`
    the raw ones. The loss given to `compile` sees the raw logits (adaptation is for inference),
    the metrics the adapted ones. `jit_compile="auto"` means XLA on GPUs and none on CPUs, where it
    makes convolutions slower.

    Args:
        network: any Keras model that gives logits [batch, classes] (or probabilities, below).
        class_counts: [classes] training samples per class.
        source_prior: [classes] the prior that the logits carry, or None if they are disentangled.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        from_logits: whether `network` gives logits; if not, its probabilities' logs are taken.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Raises:
        ValueError: for bad counts or priors, and a network of another number of classes.
    """

    def __init__(
        self,
        network,
        class_counts,
        source_prior=None,
        target_prior=None,
        from_logits=True,
        zero_count="error",
        **kwargs,
    ):
        # The network casts its own inputs; a second cast out here could only lose digits.
        super().__init__(autocast=False, **kwargs)
        self.training_prior = priors.class_prior(class_counts, zero_count)
        num_classes = self.training_prior.size
        if not isinstance(network, keras.Model):
            raise ValueError(f"network must be a keras.Model that gives logits; got {network!r}")
        if network.built and getattr(network, "output_shape", None):
            _check_output_shape(network.output_shape, num_classes)
        self.network = network
        self.class_counts = np.asarray(class_counts).tolist()
        self.zero_count = zero_count
        self.from_logits = from_logits
        self.prior_adapt = PriorAdaptLayer(source_prior, target_prior, name="prior_adapt")
        self.prior_adapt.build((None, num_classes))

    @property
    def target_prior(self):
        """The stored target prior, [classes] float32."""
        return keras.ops.convert_to_numpy(self.prior_adapt.target_prior)

    def set_target_prior(self, prior):
        """Sets the stored target prior, [classes]; None means uniform. Nothing is retraced."""
        self.prior_adapt.set_target_prior(prior)

    def raw_logits(self, inputs, training=False):
        """Returns the network's float32 logits [batch, classes], before any target prior."""
        outputs = tf.cast(self.network(inputs, training=training), tf.float32)
        self.built = True  # training comes here without going through Keras' __call__
        if self.from_logits:
            return outputs
        return tf.math.log(tf.maximum(outputs, SMALLEST_PROBABILITY))

    def call(self, inputs, target_prior=None, training=False):
        """Returns [batch, classes] logits adapted to `target_prior`, by default the stored one."""
        return self.prior_adapt(self.raw_logits(inputs, training), target_prior=target_prior)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self.raw_logits(x, training=True)
            loss = self.compute_loss(x, y, logits, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._update_metrics(x, y, logits, sample_weight, loss)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = self.raw_logits(x)
        loss = self.compute_loss(x, y, logits, sample_weight, training=False)
        return self._update_metrics(x, y, logits, sample_weight, loss)

    def _update_metrics(self, x, y, logits, sample_weight, loss):
        # Keras divides a replica's loss by the number of replicas; what is shown isn't divided.
        shown = loss * self.distribute_strategy.num_replicas_in_sync
        self._loss_tracker.update_state(shown, sample_weight=tf.shape(logits)[0])
        return self.compute_metrics(x, y, self.prior_adapt(logits), sample_weight)

    def compile(self, optimizer="rmsprop", loss=None, *, jit_compile="auto", **kwargs):
        if jit_compile == "auto" and not tf.config.list_physical_devices("GPU"):
            jit_compile = False
        # All other state exists already; saying so lets Keras save before the first call.
        self.built = self.built or self.network.built
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def export(self, filepath, format="tf_saved_model", class_names=None, **kwargs):
        """Exports the model for inference.

        The default format is a SavedModel with named outputs, a signature for the stored prior and
        one that takes the target prior: see `lade_tf.models.export.export_saved_model`. Other
        formats are Keras' own and have the stored prior baked in.
        """
        if format == "tf_saved_model":
            export_saved_model(self, filepath, class_names)
        else:
            super().export(filepath, format=format, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "class_counts": self.class_counts,
            "source_prior": self.prior_adapt.source_prior,
            "target_prior": self.prior_adapt.get_config()["target_prior"],
            "from_logits": self.from_logits,
            "zero_count": self.zero_count,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**{**config, "network": network})


def adapt(model, class_counts, from_logits=None, zero_count="error"):
    """Makes a trained Keras classifier into one whose target prior can be set (PC Softmax).

    For a model trained with ordinary cross-entropy, whose outputs carry the training prior
    (section 3.2, equation 4 of the LADE paper). The model isn't changed or copied.

    >>> adapted = lade_tf.adapt(model, class_counts=[900, 90, 10])
    >>> adapted.set_target_prior([0.2, 0.3, 0.5])

    Args:
        model: a keras.Model giving logits or softmax probabilities [batch, classes].
        class_counts: [classes] the counts it was trained on.
        from_logits: whether it gives logits; None finds out from the last layer's activation.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        An `AdaptedModel` with a uniform target prior.

    Raises:
        ValueError: for bad counts, another number of classes, or where `from_logits` can't be
            found out.
    """
    if from_logits is None:
        from_logits = _gives_logits(model)
    prior = priors.class_prior(class_counts, zero_count)
    return AdaptedModel(
        model, class_counts, source_prior=prior, from_logits=from_logits, zero_count=zero_count
    )


def _gives_logits(model):
    """Whether the model's last layer gives logits (True) or softmax probabilities (False)."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1] if model.layers else None
    else:
        last = getattr(model, "operations", [None])[-1]  # only functional models have them
    if isinstance(last, keras.Model):
        return _gives_logits(last)
    if isinstance(last, keras.layers.Softmax):
        return False
    activation = getattr(last, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.linear):
        return activation is keras.activations.linear
    raise ValueError(
        "from_logits must be given for this model: whether its outputs are logits or softmax "
        f"probabilities can't be told from its last layer, {last!r}"
    )


def _check_output_shape(shape, num_classes):
    if len(shape) != 2 or shape[-1] != num_classes:
        raise ValueError(
            f"network must give [batch, {num_classes}] logits, one column for each entry of "
            f"class_counts; its output shape is {shape}"
        )
