"""MetaEmbedding: OLTR's features, enriched from a memory of class centroids."""

import keras
import tensorflow as tf

from lade_tf.checks import check_integer, check_number

# Bounds the reachability and its gradient where a feature coincides with a centroid.
SMALLEST_DISTANCE = 1e-3


@keras.saving.register_keras_serializable("lade_tf")
class MetaEmbedding(keras.layers.Layer):
    """γ · (x + e ⊗ oᵀM) on features x, in float32 under any dtype policy.

    M are the class centroids, o = softmax(hallucinator(x)) says which of them to recall,
    e = tanh(selector(x)) how much of it, and γ = scale / min_c ‖x − M_c‖ makes features that are
    far from all centroids small. The distance in γ is taken to be at least 0.001.

    The centroids are a trainable weight [classes, d], but no gradient reaches them through this
    layer, as in the released code: `lade_tf.models.OLTR` trains them with the centroids loss. They
    start standard normal and are meant to be set to the class means of the features.

    Reference: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019
    (dynamic meta-embedding). The softmax in o and the scale 10 in γ, where the paper has 1, are
    those of its released code.

    Args:
        num_classes: an integer ≥ 1.
        scale: the numerator of γ, > 0.

    Raises:
        ValueError: for a bad argument.
    """

    def __init__(self, num_classes, scale=10.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_classes = check_integer(num_classes, "num_classes", minimum=1)
        self.scale = check_number(scale, "scale", above=0)

    def build(self, input_shape):
        dimension = input_shape[-1]
        self.centroids = self.add_weight(
            name="centroids",
            shape=(self.num_classes, dimension),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.hallucinator = self._linear(self.num_classes, "hallucinator")
        self.selector = self._linear(dimension, "selector")
        for layer in (self.hallucinator, self.selector):
            layer.build(input_shape)
        self.built = True

    def call(self, features):
        """Returns [batch, d] meta embeddings of [batch, d] features."""
        memory = tf.stop_gradient(tf.convert_to_tensor(self.centroids))
        recalled = tf.matmul(tf.nn.softmax(self.hallucinator(features)), memory)
        embedding = features + tf.tanh(self.selector(features)) * recalled
        return self.scale / self._distance(features, memory) * embedding

    def _distance(self, features, memory):
        """Returns [batch, 1] distances to the nearest centroid."""
        # Found by inner products, measured by differences: those of large vectors cancel badly.
        nearest = tf.argmin(squared_distances(features, memory), axis=-1)
        squared = tf.reduce_sum((features - tf.gather(memory, nearest)) ** 2, -1, keepdims=True)
        return tf.sqrt(tf.maximum(squared, SMALLEST_DISTANCE**2))

    def _linear(self, units, name):
        # U(-1/sqrt(d), 1/sqrt(d))
        initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        return keras.layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "scale": self.scale}


def squared_distances(features, centroids):
    """Returns ‖x_i − M_c‖², [batch, classes], of [batch, d] features and [classes, d] centroids."""
    lengths = tf.reduce_sum(features**2, -1, keepdims=True) + tf.reduce_sum(centroids**2, -1)
    return lengths - 2 * tf.matmul(features, centroids, transpose_b=True)
