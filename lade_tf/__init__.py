"""Classifiers trained on long-tailed data, deployed wherever the labels are distributed otherwise.

An implementation of LADE (Hong et al., CVPR 2021) for Keras and TensorFlow.
"""

from lade_tf import data, label_shift, layers, losses, metrics, models, ops, optimizers, priors
from lade_tf.layers import PriorAdaptLayer
from lade_tf.models import AdaptedModel, LADEModel, adapt

__version__ = "0.1.0"

__all__ = [
    "AdaptedModel",
    "LADEModel",
    "PriorAdaptLayer",
    "adapt",
    "data",
    "label_shift",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "priors",
]
