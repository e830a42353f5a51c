"""A linear classifier on the unit sphere: its logits are scale · cosine."""

import math

import keras
import tensorflow as tf

from lade_tf.checks import check_integer, check_number

# Keeps the gradient of a feature vector of zeros finite.
SMALLEST_SQUARED_NORM = 1e-12


@keras.saving.register_keras_serializable("lade_tf")
class CosineClassifier(keras.layers.Layer):
    """Logits scale · cos(w_c, x), without bias, in float32 under any dtype policy.

    The normalised classifier that LDAM (Cao et al., NeurIPS 2019) trains with.

    Args:
        units: number of classes.
        scale: what the cosines are multiplied by, > 0.

    Raises:
        ValueError: for a bad argument.
    """

    def __init__(self, units, scale=30.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.units = check_integer(units, "units", minimum=1)
        self.scale = check_number(scale, "scale", above=0)

    def build(self, input_shape):
        # Columns of about unit length: the length only sets how fast the directions turn.
        initializer = keras.initializers.RandomNormal(stddev=1 / math.sqrt(input_shape[-1]))
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.units), initializer=initializer
        )
        self.built = True

    def call(self, features):
        """Returns [batch, units] logits of [batch, d] features."""
        features = tf.math.l2_normalize(features, axis=-1, epsilon=SMALLEST_SQUARED_NORM)
        kernel = tf.math.l2_normalize(self.kernel, axis=0, epsilon=SMALLEST_SQUARED_NORM)
        return self.scale * tf.matmul(features, kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "scale": self.scale}
