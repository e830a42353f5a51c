"""The maths as pure TensorFlow functions."""

from lade_tf.ops.labels import check_labels
from lade_tf.ops.lader import ESTIMATORS, lader

__all__ = ["ESTIMATORS", "check_labels", "lader"]
