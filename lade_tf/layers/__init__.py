"""Keras layers: the target prior at inference, and what the backbones are made of."""

from lade_tf.layers.batch_normalization import BatchNormalization
from lade_tf.layers.prior_adapt import PriorAdaptLayer

__all__ = ["BatchNormalization", "PriorAdaptLayer"]
