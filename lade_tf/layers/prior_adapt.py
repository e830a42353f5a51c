"""PriorAdaptLayer: logits for the label distribution of the place where the model runs."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import ops, priors
from lade_tf.checks import check_number
from lade_tf.class_order import labels_of


@keras.saving.register_keras_serializable("lade_tf")
class PriorAdaptLayer(keras.layers.Layer):
    """Adapts logits to a target prior: f / T − log p_s + log p_t, in float32 under any policy.

    Equation 4 of the LADE paper (PC Softmax) for logits that carry the source prior p_s; equation
    17 for logits that carry none (LADE, Balanced Softmax). The softmax of the result is the
    posterior under the target prior. The correction belongs on logits, before any softmax.

    The temperature T (Guo et al., ICML 2017), 1 in the paper, makes over-confident logits say what
    they know, which the correction relies on: `lade_tf.label_shift.fit_temperature` fits it.

    Both priors and the temperature are non-trainable state: saved with the model and set without
    retracing. A class with target probability 0 gets the logit −inf, probability exactly 0.

    >>> layer = lade_tf.PriorAdaptLayer(source_prior=[0.9, 0.1], target_prior=[0.5, 0.5])
    >>> probabilities = tf.nn.softmax(layer(logits))

    Args:
        source_prior: [classes] the prior that the logits carry at first, or None for disentangled
            logits.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        temperature: a number > 0 that the logits are divided by.

    Raises:
        ValueError: if a prior isn't one, or has another length than the logits have classes; if
            the temperature isn't > 0.
    """

    def __init__(self, source_prior=None, target_prior=None, temperature=1.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if source_prior is not None:
            source_prior = priors.check_prior(
                source_prior, allow_zero=False, name="source_prior"
            ).tolist()
        if target_prior is not None:
            num_classes = None if source_prior is None else len(source_prior)
            target_prior = priors.check_prior(
                target_prior, num_classes, name="target_prior"
            ).tolist()
        self.initial_source_prior = source_prior
        self._initial_target_prior = target_prior
        self._initial_temperature = _check_temperature(temperature)
        self.target_prior = None
        self.temperature = None
        self._log_source_prior = None
        self._load_error = None

    @property
    def source_prior(self):
        """The prior that the logits are taken to carry now, [classes] floats; None for none."""
        if not self.built:
            return self.initial_source_prior
        stored = keras.ops.convert_to_numpy(self._log_source_prior)
        # What it was built with is known more exactly than the weight has it.
        if np.all(stored == self._log_of(self.initial_source_prior).astype(stored.dtype)):
            return self.initial_source_prior
        prior = np.exp(stored.astype(np.float64))
        return (prior / prior.sum()).tolist()

    @staticmethod
    def _log_of(source_prior):
        return np.float64(0) if source_prior is None else np.log(source_prior)

    def build(self, input_shape):
        num_classes = input_shape[-1]
        if num_classes is None:
            raise ValueError(
                f"logits must have a known number of classes; got shape {tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: num_classes})
        for name, prior in (
            ("source_prior", self.initial_source_prior),
            ("target_prior", self._initial_target_prior),
        ):
            if prior is not None:
                priors.check_prior(prior, num_classes, name=name)
        initial = self._initial_target_prior or priors.uniform_prior(num_classes)
        self.target_prior = self._add_state("target_prior", (num_classes,), initial)
        self.temperature = self._add_state("temperature", (), self._initial_temperature)
        log_source_prior = self._log_of(self.initial_source_prior)
        # 0 for disentangled logits: nothing is taken out of them.
        self._log_source_prior = self._add_state(
            "log_source_prior", (num_classes,), np.broadcast_to(log_source_prior, num_classes)
        )
        self.built = True

    def _add_state(self, name, shape, initial):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=lambda shape, dtype: tf.constant(initial, dtype, shape),
            trainable=False,
            # Replicas only read it.
            aggregation="only_first_replica",
        )

    def set_target_prior(self, prior):
        """Sets the stored target prior, [classes]; None means uniform. Nothing is retraced.

        Raises:
            ValueError: if `prior` isn't a prior over the layer's classes; the stored one stays.
        """
        if not self.built:
            raise ValueError("set_target_prior needs a built layer: call it on logits first")
        num_classes = self.target_prior.shape[0]
        if prior is None:
            prior = priors.uniform_prior(num_classes)
        self.target_prior.assign(priors.check_prior(prior, num_classes, name="target_prior"))

    def set_source_prior(self, prior):
        """Sets the prior that the logits carry, [classes], None for none. Nothing is retraced.

        Raises:
            ValueError: if `prior` isn't a prior > 0 over the layer's classes; the stored one stays.
        """
        if not self.built:
            raise ValueError("set_source_prior needs a built layer: call it on logits first")
        num_classes = self.target_prior.shape[0]
        if prior is not None:
            prior = priors.check_prior(prior, num_classes, allow_zero=False, name="source_prior")
        self._log_source_prior.assign(np.broadcast_to(self._log_of(prior), num_classes))

    def set_temperature(self, temperature):
        """Sets the stored temperature, a number > 0; 1 takes it away. Nothing is retraced.

        Raises:
            ValueError: if `temperature` isn't one, or float32 can't hold it; the stored one stays.
        """
        if not self.built:
            raise ValueError("set_temperature needs a built layer: call it on logits first")
        self.temperature.assign(_check_temperature(temperature))

    def __call__(self, logits, *args, **kwargs):
        args, kwargs = with_unlabelled_prior(args, kwargs, self.target_prior)
        return super().__call__(logits, *args, **kwargs)

    def call(self, logits, target_prior=None):
        """Returns [batch, classes] float32 logits adapted to the target prior.

        Args:
            logits: [batch, classes].
            target_prior: [classes], or [batch, classes] for one prior an example; None means the
                stored one. One with labels of its own is read by them (`priors.check_prior`).
        """
        if not logits.dtype.is_floating:  # Keras casts floats alone
            logits = tf.cast(logits, self.compute_dtype)
        prior = tf.convert_to_tensor(self.target_prior)
        if target_prior is not None:
            prior = self.check_in_graph(target_prior, tf.shape(logits)[0])
        state = prior, self._log_source_prior, self.temperature
        prior, log_source, temperature = (tf.cast(x, logits.dtype) for x in state)
        return logits / temperature - log_source + tf.math.log(prior)

    def load_own_variables(self, store):
        """Loads the state, or raises a ValueError where it is none; what there was stays."""
        states = [self.target_prior, self.temperature, self._log_source_prior]
        values = [np.asarray(store[key], np.float64) for key in sorted(store.keys())]
        # What failed Keras looks for in another place, and shows the last error: of an empty one.
        if not values and self._load_error:
            raise self._load_error
        try:
            _check_state(*values[: len(states)])
        except ValueError as error:
            self._load_error = error
            raise
        if len(values) in (0, len(states)):  # of no state Keras says so itself
            super().load_own_variables(store)
            return
        # Saved before there was a temperature, or before the source prior could be set.
        for state, value in zip(states, values, strict=False):
            state.assign(value)
        self.set_source_prior(self.initial_source_prior)

    def check_stored(self):
        """Raises a ValueError unless the stored priors and temperature are such.

        They can be assigned without a check: by `set_weights` or a tf.train.Checkpoint for example.
        """
        states = self.target_prior, self.temperature, self._log_source_prior
        _check_state(*map(keras.ops.convert_to_numpy, states))

    def get_config(self):
        return {
            **super().get_config(),
            "source_prior": self.initial_source_prior,
            "target_prior": self._initial_target_prior,
            "temperature": self._initial_temperature,
        }

    def check_in_graph(self, prior, batch_size):
        """The in-graph twin of `priors.check_prior`: asserts, and NaN where XLA drops asserts.

        Args:
            prior: [classes] or [batch, classes], of known or unknown static shape.
            batch_size: how many examples a prior of rank 2 must have rows for.

        Returns:
            [1 or batch, classes] float32, rows sum to 1.
        """
        num_classes = self.target_prior.shape[0]
        prior = tf.convert_to_tensor(prior)
        if not (prior.dtype.is_floating or prior.dtype.is_integer):
            raise ValueError(f"target_prior must be numbers; got {prior.dtype.name}")
        prior = tf.cast(prior, tf.float32)
        shape = tf.shape(prior)
        expected = f"target_prior must have shape [{num_classes}] or [batch, {num_classes}]; got"
        last, rows = shape[-1:], shape[:-1]
        fits = tf.reduce_all(tf.concat([tf.equal(last, num_classes), rows == batch_size], 0))
        fits &= (tf.rank(prior) == 1) | (tf.rank(prior) == 2)
        prior = tf.reshape(ops.asserted(prior, fits, [expected, shape]), [-1, num_classes])

        total = tf.reduce_sum(prior, axis=-1, keepdims=True)
        lowest = tf.reduce_min(prior, axis=-1, keepdims=True)
        valid = (lowest >= 0) & (tf.abs(total - 1) <= priors.SUM_TOLERANCE)
        message = (
            "target_prior must hold probabilities >= 0 that sum to 1 (within "
            f"{priors.SUM_TOLERANCE}); got a smallest entry of"
        )
        span = [message, tf.reduce_min(lowest), "and a sum of", tf.reduce_max(total)]
        prior = ops.asserted(prior, tf.reduce_all(valid), span)
        return tf.where(valid, prior / total, float("nan"))


def with_unlabelled_prior(args, kwargs, stored):
    """Returns what follows the inputs of a call, a target prior with labels put in class order.

    To be used before Keras sees them: it makes a tensor of a Series, which has no labels any more,
    and of a masked array, which has no mask any more; that is refused.

    Args:
        args: a tuple whose first entry, if any, is the target prior.
        kwargs: the rest by name, perhaps `target_prior`.
        stored: the stored target prior, [classes], None before it exists.
    """
    num_classes = None if stored is None else stored.shape[0]

    def unlabelled(prior):
        if labels_of(prior) is None and not np.ma.is_masked(prior):
            return prior
        return priors.check_prior(prior, num_classes, name="target_prior")

    if "target_prior" in kwargs:
        return args, {**kwargs, "target_prior": unlabelled(kwargs["target_prior"])}
    return tuple(map(unlabelled, args[:1])) + args[1:], kwargs


def _check_state(target_prior=None, temperature=1.0, log_source_prior=0.0):
    """Raises a ValueError unless a layer's variables, as far as they are given, are what they are.

    Args:
        target_prior: [classes].
        temperature: [].
        log_source_prior: [classes].
    """
    if target_prior is not None:
        prior = np.asarray(target_prior, np.float64)
        # In a layer of a lower precision it is rounded.
        total = prior.sum() if abs(prior.sum() - 1) <= priors.ROUNDED_TOLERANCE else 1
        priors.check_prior(prior / total, name="the stored target prior")
    check_number(np.float64(temperature), "the stored temperature", above=0)
    if not np.all(np.isfinite(log_source_prior)):
        raise ValueError("the stored source prior must hold finite probabilities > 0")


def _check_temperature(temperature):
    """Returns a temperature that is still a positive finite number when it is stored as float32."""
    temperature = check_number(temperature, "temperature", above=0)
    limits = np.finfo(np.float32)
    return check_number(temperature, "temperature", float(limits.tiny), maximum=float(limits.max))
