"""Classifiers trained on long-tailed data, deployed wherever the labels are distributed otherwise.

An implementation of LADE (Hong et al., CVPR 2021) for Keras and TensorFlow.
"""

import os
import sys

# Asked before Keras is imported: it would look for the other backend, which may not be there.
_backend = None if "keras" in sys.modules else os.environ.get("KERAS_BACKEND")
if not _backend:
    import keras

    _backend = keras.config.backend()
if _backend != "tensorflow":
    raise ImportError(
        f"lade_tf needs Keras on TensorFlow; this Keras is to run on {_backend}: set "
        "KERAS_BACKEND=tensorflow before Keras is imported"
    )

# ruff: noqa: E402
from lade_tf import (
    backbones,
    data,
    evaluation,
    label_shift,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    priors,
    training,
)
from lade_tf.layers import PriorAdaptLayer
from lade_tf.models import AdaptedModel, LADEModel, adapt

__version__ = "0.1.0"

__all__ = [
    "AdaptedModel",
    "LADEModel",
    "PriorAdaptLayer",
    "adapt",
    "backbones",
    "data",
    "evaluation",
    "label_shift",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "priors",
    "training",
]
