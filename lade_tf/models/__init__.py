"""Keras models whose target prior can be set, and that train on the logits before it."""

from lade_tf.models.adapted_model import AdaptedModel, adapt
from lade_tf.models.lade_model import LADEModel

__all__ = ["AdaptedModel", "LADEModel", "adapt"]
