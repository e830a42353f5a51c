"""ClassScale: one trainable factor a class (LWS, Kang et al., ICLR 2020)."""

import keras


@keras.saving.register_keras_serializable("lade_tf")
class ClassScale(keras.layers.Layer):
    """Multiplies logits [batch, classes] by a trainable scale a class, 1 at first, in float32."""

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, logits):
        return logits * self.scale
