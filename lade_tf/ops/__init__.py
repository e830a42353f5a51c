"""The maths as pure TensorFlow functions."""

from lade_tf.ops.assertions import asserted
from lade_tf.ops.labels import check_labels, check_logits, check_sample_weight
from lade_tf.ops.lader import (
    ESTIMATORS,
    lade_terms,
    lader,
    lader_and_share,
    lader_of_statistics,
    lader_statistics,
)

__all__ = [
    "ESTIMATORS",
    "asserted",
    "check_labels",
    "check_logits",
    "check_sample_weight",
    "lade_terms",
    "lader",
    "lader_and_share",
    "lader_of_statistics",
    "lader_statistics",
]
