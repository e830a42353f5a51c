"""Losses for long-tailed training; plain softmax cross-entropy is Keras' own."""

from lade_tf.losses.balanced_softmax import BalancedSoftmax, balanced_softmax
from lade_tf.losses.lade import LADE

__all__ = ["LADE", "BalancedSoftmax", "balanced_softmax"]
