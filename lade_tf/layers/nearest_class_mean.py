"""NearestClassMean: features are classified by the nearest of the classes' means."""

import keras
import tensorflow as tf

from lade_tf.checks import check_integer


@keras.saving.register_keras_serializable("lade_tf")
class NearestClassMean(keras.layers.Layer):
    """Turns features [batch, d] into logits −½·‖x − μ_c‖², in float32; `means` is [classes, d].

    Args:
        num_classes: C.

    Raises:
        ValueError: unless `num_classes` is an integer ≥ 1.
    """

    def __init__(self, num_classes, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = check_integer(num_classes, "num_classes", minimum=1)

    def build(self, input_shape):
        shape = (self.num_classes, input_shape[-1])
        self.means = self.add_weight(
            name="means", shape=shape, initializer="zeros", trainable=False
        )

    def call(self, features):
        # Distances are the same from any origin; from the middle of the means the squares below
        # are small, and little is lost when they are subtracted.
        means = tf.convert_to_tensor(self.means)
        middle = tf.reduce_mean(means, axis=0)
        features, means = features - middle, means - middle
        products = tf.matmul(features, means, transpose_b=True)
        squares = tf.reduce_sum(tf.square(features), axis=1, keepdims=True)
        return products - (squares + tf.reduce_sum(tf.square(means), axis=1)) / 2

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}
