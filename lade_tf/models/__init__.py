"""Keras models whose target prior can be set, and that train on the logits before it."""

from lade_tf.models import decoupled
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.models.bbn import BBN
from lade_tf.models.deferred_reweighting import DeferredReweightingModel
from lade_tf.models.lade_model import LADEModel
from lade_tf.models.oltr import OLTR, oltr_network
from lade_tf.models.pc_softmax import adapt

__all__ = [
    "BBN",
    "OLTR",
    "AdaptedModel",
    "DeferredReweightingModel",
    "LADEModel",
    "adapt",
    "decoupled",
    "oltr_network",
]
