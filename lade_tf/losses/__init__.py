"""Losses for long-tailed training; plain softmax cross-entropy is Keras' own.

Each has `source_prior`, what it leaves in the logits that it trains: None for nothing
(disentangled), "training" for the training prior, or a prior, [classes]. A loss of your own that
has it is understood by `lade_tf.adapt` too; `lade_tf.losses.base` has what these ones share.
"""

from lade_tf.losses.balanced_softmax import BalancedSoftmax, balanced_softmax
from lade_tf.losses.focal import ClassBalancedFocal, Focal, effective_number_weights
from lade_tf.losses.lade import LADE
from lade_tf.losses.ldam import LDAM, ldam_margins
from lade_tf.losses.logit_adjustment import LogitAdjustment

__all__ = [
    "LADE",
    "LDAM",
    "BalancedSoftmax",
    "ClassBalancedFocal",
    "Focal",
    "LogitAdjustment",
    "balanced_softmax",
    "effective_number_weights",
    "ldam_margins",
]
