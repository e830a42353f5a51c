"""Keras layers: the target prior at inference, what the backbones are made of, classifiers."""

from lade_tf.layers.batch_normalization import BatchNormalization
from lade_tf.layers.causal_norm import CausalNormClassifier, CausalNormMomentum
from lade_tf.layers.class_scale import ClassScale
from lade_tf.layers.cosine_classifier import CosineClassifier
from lade_tf.layers.cosine_norm_classifier import CosineNormClassifier
from lade_tf.layers.grouped_conv import GroupedConv2D
from lade_tf.layers.meta_embedding import MetaEmbedding
from lade_tf.layers.modulated_attention import ModulatedAttention
from lade_tf.layers.nearest_class_mean import NearestClassMean
from lade_tf.layers.prior_adapt import PriorAdaptLayer

__all__ = [
    "BatchNormalization",
    "CausalNormClassifier",
    "CausalNormMomentum",
    "ClassScale",
    "CosineClassifier",
    "CosineNormClassifier",
    "GroupedConv2D",
    "MetaEmbedding",
    "ModulatedAttention",
    "NearestClassMean",
    "PriorAdaptLayer",
]
