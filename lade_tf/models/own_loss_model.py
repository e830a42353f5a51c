"""OwnLossModel: what models have in common that bring their own loss."""

import inspect

import tensorflow as tf

from lade_tf.models.adapted_model import AdaptedModel


class OwnLossModel(AdaptedModel):
    """An `AdaptedModel` that computes its loss itself and whose logits carry no prior."""

    # Arguments of fit and train_on_batch that make no sense for the loss, and why.
    REFUSED = {}

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Keras' `compile` without a loss."""
        if loss is not None:
            raise ValueError(
                f"loss must not be given to {type(self).__name__}.compile: the model owns its loss"
            )
        super().compile(optimizer, loss, *args, **kwargs)

    def fit(self, *args, **kwargs):
        self._refuse(super().fit, args, kwargs)
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        self._refuse(super().train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)

    def _refuse(self, method, args, kwargs):
        given = inspect.signature(method).bind_partial(*args, **kwargs).arguments
        for name, why in self.REFUSED.items():
            if given.get(name) is not None:
                raise ValueError(f"{name} must not be given to {type(self).__name__}: {why}")

    def _regularization(self):
        """Returns the sum of the losses that the network's own layers add, a float32 scalar."""
        return tf.add_n([tf.zeros([]), *(tf.cast(loss, tf.float32) for loss in self.losses)])

    def get_config(self):
        config = super().get_config()
        for key in ("source_prior", "from_logits"):
            del config[key]
        return config
