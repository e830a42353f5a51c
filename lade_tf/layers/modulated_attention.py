"""ModulatedAttention: OLTR's self-attention on a feature map, weighted by location."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("lade_tf")
class ModulatedAttention(keras.layers.Layer):
    """f + MA(f) ⊗ SA(f) on a feature map of known size, in float32 under any dtype policy.

    SA is a non-local block: softmax(θ(f) φ(f)ᵀ) g(f) over all pairs of locations, with θ, φ and g
    linear to half as many channels, and a linear map back. MA is one weight a location: a softmax
    over all locations of a linear map of the whole feature map.

    The map back starts at zero, so that the layer starts as the identity and class means of the
    features before it are class means after it. The released layer does the same, but the released
    backbone then draws that kernel anew with its convolutions.

    Reference: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019
    (modulated attention); initial values as in its released code, but for biases, which are 0.

    Raises:
        ValueError: when built on anything but [batch, height, width, channels ≥ 2] with known
            height, width and channels.
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def build(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:] or input_shape[3] < 2:
            raise ValueError(
                "feature map must be [batch, height, width, channels >= 2] with known height, "
                f"width and channels; got shape {tuple(input_shape)}"
            )
        _, height, width, channels = input_shape
        locations = height * width
        self.theta, self.phi, self.g = (
            self._linear(channels // 2, 2.0, "untruncated_normal", name)
            for name in ("theta", "phi", "g")
        )
        self.back = keras.layers.Dense(
            channels, use_bias=False, kernel_initializer="zeros", dtype="float32", name="back"
        )
        # U(-1/sqrt(inputs), 1/sqrt(inputs))
        self.spatial = self._linear(locations, 1 / 3, "uniform", "spatial")
        for layer in (self.theta, self.phi, self.g):
            layer.build((None, locations, channels))
        self.back.build((None, locations, channels // 2))
        self.spatial.build((None, locations * channels))
        self.built = True

    def call(self, feature_map):
        """Returns the attended feature map, [batch, height, width, channels] as the input."""
        _, height, width, channels = feature_map.shape
        locations = height * width
        pixels = tf.reshape(feature_map, [-1, locations, channels])
        similarity = tf.matmul(self.theta(pixels), self.phi(pixels), transpose_b=True)
        self_attention = self.back(tf.matmul(tf.nn.softmax(similarity), self.g(pixels)))
        spatial = tf.nn.softmax(self.spatial(tf.reshape(pixels, [-1, locations * channels])))
        attended = pixels + spatial[:, :, None] * self_attention
        return tf.reshape(attended, [-1, height, width, channels])

    def _linear(self, units, scale, distribution, name):
        initializer = keras.initializers.VarianceScaling(scale, "fan_in", distribution)
        return keras.layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)
