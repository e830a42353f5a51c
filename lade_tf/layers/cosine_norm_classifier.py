"""CosineNormClassifier: a linear classifier on squashed features and unit weights."""

import keras
import tensorflow as tf

from lade_tf.checks import check_integer, check_number

# Keeps the gradient at a vector of zeros finite.
SMALLEST_SQUARED_NORM = 1e-12


@keras.saving.register_keras_serializable("lade_tf")
class CosineNormClassifier(keras.layers.Layer):
    """Logits scale · φ(x) · w_c / ‖w_c‖, without bias, in float32 under any dtype policy.

    φ(x) = x / (1 + ‖x‖) squashes features to less than unit length: long ones are compared by
    angle alone, short ones give even logits.

    Reference: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019; φ, the
    scale and the initial values as in its released code. The paper's φ is
    ‖x‖² / (1 + ‖x‖²) · x / ‖x‖.

    Args:
        units: number of classes.
        scale: > 0.

    Raises:
        ValueError: for a bad argument.
    """

    def __init__(self, units, scale=16.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.units = check_integer(units, "units", minimum=1)
        self.scale = check_number(scale, "scale", above=0)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            # U(-1/sqrt(d), 1/sqrt(d))
            initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        )
        self.built = True

    def call(self, features):
        """Returns [batch, units] logits of [batch, d] features."""
        squared = tf.reduce_sum(features**2, axis=-1, keepdims=True)
        squashed = features / (1 + tf.sqrt(tf.maximum(squared, SMALLEST_SQUARED_NORM)))
        directions = tf.math.l2_normalize(self.kernel, axis=0, epsilon=SMALLEST_SQUARED_NORM)
        return self.scale * tf.matmul(squashed, directions)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "scale": self.scale}
