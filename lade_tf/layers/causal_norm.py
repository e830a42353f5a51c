"""CausalNormClassifier: the multi-head normalised classifier of Tang et al. (NeurIPS 2020)."""

import math

import keras
import tensorflow as tf

from lade_tf.checks import check_integer, check_number

INITIAL_MOMENTUM = 0.9


@keras.saving.register_keras_serializable("lade_tf")
class CausalNormClassifier(keras.layers.Layer):
    """Normalised logits that at inference lose the effect of the features' common direction.

    Features and kernel are split into K heads along the feature dimension. In training
    f_c = τ/K · Σ_k ŵ_ckᵀ x̂_k with x̂_k = x_k / ‖x_k‖ and ŵ_ck = w_ck / (‖w_ck‖ + γ), and the moving
    feature mean follows e ← μ·e + mean(x), of which only the direction matters. At inference the
    total direct effect: x̂_k becomes x̂_k − α·cos(x_k, e_k)·e_k / ‖e_k‖. The logits carry the
    uniform prior. There is no bias; everything is float32 under any dtype policy.

    Reference: Tang et al., "Long-Tailed Classification by Keeping the Good and Removing the Bad
    Momentum Causal Effect", NeurIPS 2020; the division by K and the update of e are those of the
    released code too. The effect on CIFAR is 1.5, elsewhere 3. Where a head of the features or of
    e is all zeros, its unit vector is taken to be zero.

    >>> logits = lade_tf.layers.CausalNormClassifier(num_classes)(features)

    Args:
        units: the number of classes.
        num_heads: K ≥ 1, a divisor of the number of features.
        scale: τ > 0.
        gamma: γ ≥ 0, added to the norms of the weights.
        effect: α ≥ 0, how much of the common direction is removed; 0 is the training logits.
        momentum: μ in [0, 1]. None makes it a weight, 0.9 at first, that `CausalNormMomentum` lets
            follow the learning rate, as the released code does on all data sets but CIFAR.

    Raises:
        ValueError: for arguments outside these ranges, and when it is built on features that
            aren't [batch, d] with a known d that num_heads divides.
    """

    def __init__(
        self, units, num_heads=2, scale=16.0, gamma=1 / 32, effect=1.5, momentum=0.9, **kwargs
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.units = check_integer(units, "units", minimum=1)
        self.num_heads = check_integer(num_heads, "num_heads", minimum=1)
        self.scale = check_number(scale, "scale", above=0)
        self.gamma = check_number(gamma, "gamma", minimum=0)
        self.effect = check_number(effect, "effect", minimum=0)
        if momentum is not None:
            momentum = check_number(momentum, "momentum", minimum=0, maximum=1)
        self.momentum = momentum

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[1] is None:
            raise ValueError(
                f"features must be [batch, d] with a known d; got shape {tuple(input_shape)}"
            )
        size = input_shape[1]
        if size % self.num_heads:
            raise ValueError(
                f"num_heads must divide the number of features, {size}; got {self.num_heads}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: size})
        limit = 1 / math.sqrt(size)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, self.units),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.feature_mean = self.add_weight(
            name="feature_mean",
            shape=(size,),
            initializer="zeros",
            trainable=False,
            aggregation="mean",
        )
        if self.momentum is None:
            self.current_momentum = self.add_weight(
                name="momentum",
                shape=(),
                initializer=keras.initializers.Constant(INITIAL_MOMENTUM),
                trainable=False,
                aggregation="mean",
            )
        self.built = True

    def load_own_variables(self, store):
        names = list(store.keys())
        if self.momentum is None and len(names) == 2:  # from before, or of a fixed momentum
            store = {**{name: store[name] for name in names}, "2": INITIAL_MOMENTUM}
        super().load_own_variables(store)

    def call(self, features, training=False):
        """Returns [batch, units] float32 logits of [batch, d] features."""
        directions = _unit(self._heads(features))
        if training:
            size = tf.cast(tf.shape(features)[0], features.dtype)
            batch_mean = tf.math.divide_no_nan(tf.reduce_sum(features, axis=0), size)
            # A replica without examples leaves it as it is.
            momentum = self.current_momentum if self.momentum is None else self.momentum
            momentum = tf.where(size > 0, momentum, 1.0)
            self.feature_mean.assign(momentum * self.feature_mean + batch_mean)
        else:
            common = _unit(self._heads(self.feature_mean))
            cosine = tf.reduce_sum(directions * common, axis=-1, keepdims=True)
            directions -= self.effect * cosine * common
        weights = self._heads(tf.transpose(self.kernel))
        weights /= _norm(weights) + self.gamma
        logits = tf.matmul(_joined(directions), _joined(weights), transpose_b=True)
        return self.scale / self.num_heads * logits

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "scale": self.scale,
            "gamma": self.gamma,
            "effect": self.effect,
            "momentum": self.momentum,
        }

    def _heads(self, vectors):
        """Returns [any, K, d / K] for [any, d], and [1, K, d / K] for [d]."""
        return tf.reshape(vectors, [-1, self.num_heads, vectors.shape[-1] // self.num_heads])


class CausalNormMomentum(keras.callbacks.Callback):
    """Sets μ of every `CausalNormClassifier(momentum=None)` to 1 − 0.1·min(50·learning rate, 1).

    That is the released code's, of Tang et al., on all data sets but CIFAR: 0.9 while the learning
    rate is 0.02 or more, towards 1 as it falls, so that features of early epochs stay in the mean.

    >>> model.fit(images, labels, callbacks=[lade_tf.layers.CausalNormMomentum()])

    Raises:
        ValueError: when training starts, for a model without such a layer.
    """

    def on_train_begin(self, logs=None):
        self._layers = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, CausalNormClassifier) and layer.momentum is None
        ]
        if not self._layers:
            raise ValueError(
                "CausalNormMomentum needs a CausalNormClassifier(momentum=None) in the model"
            )
        self._momentum = None

    def on_epoch_begin(self, epoch, logs=None):
        self._follow()

    def on_train_batch_begin(self, batch, logs=None):
        self._follow()

    def _follow(self):
        learning_rate = float(self.model.optimizer.learning_rate)
        momentum = 1 - 0.1 * min(50 * learning_rate, 1)
        if momentum != self._momentum:
            self._momentum = momentum
            for layer in self._layers:
                layer.current_momentum.assign(momentum)


def _joined(heads):
    return tf.reshape(heads, [-1, heads.shape[1] * heads.shape[2]])


def _unit(vectors):
    return vectors / _norm(vectors)


def _norm(vectors):
    """Returns the norms along the last axis; 1 for a zero vector, whose gradient stays finite."""
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    return tf.sqrt(tf.where(squares > 0, squares, 1.0))
