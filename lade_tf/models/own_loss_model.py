"""OwnLossModel: what models have in common that bring their own loss."""

import tensorflow as tf

from lade_tf.models.adapted_model import AdaptedModel


class OwnLossModel(AdaptedModel):
    """An `AdaptedModel` that computes its loss itself and whose logits carry no prior."""

    ONE_OUTPUT_REFUSED = "one of each class: end it in two outputs"

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Keras' `compile` without a loss."""
        if loss is not None:
            raise ValueError(
                f"loss must not be given to {type(self).__name__}.compile: the model owns its loss"
            )
        super().compile(optimizer, loss, *args, **kwargs)

    def _regularization(self):
        """Returns the sum of the losses that the network's own layers add, a float32 scalar."""
        return tf.add_n([tf.zeros([]), *(tf.cast(loss, tf.float32) for loss in self.losses)])

    def get_config(self):
        config = super().get_config()
        del config["from_logits"]
        if config["source_prior"] is None:
            del config["source_prior"]
        return config
