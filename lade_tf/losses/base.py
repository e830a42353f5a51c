"""What the losses have in common: they take logits and integer labels, and know class counts."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import ops, priors


class LogitsLoss(keras.losses.Loss):
    """A loss on logits and integer labels.

    A subclass keeps each argument as the attribute of the same name, lists them in `ARGUMENTS`, and
    defines `values(logits, labels)`, which returns one value per example. Its `source_prior` says
    what prior the logits carry that it trains, see `lade_tf.losses`.
    """

    ARGUMENTS = ()

    def call(self, y_true, y_pred):
        return self.values(ops.check_logits(y_pred), y_true)

    def get_config(self):
        own = {name: getattr(self, name) for name in self.ARGUMENTS}
        return {**super().get_config(), "dtype": self.dtype, **own}


class ClassCountsLoss(LogitsLoss):
    """A loss that depends on how often each class occurs in training.

    Attributes:
        prior: the training prior π, [classes] float64.
        log_prior: log π.
    """

    def __init__(self, class_counts, zero_count, name, reduction, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.prior = priors.class_prior(class_counts, zero_count)
        self.log_prior = np.log(self.prior)
        self.class_counts = priors.plain_counts(class_counts)
        self.zero_count = zero_count


def checked(logits, labels, num_classes):
    """Returns logits, labels and a factor for the values, ready to compute with.

    Args:
        logits: [batch, classes].
        labels: [batch] or [batch, 1] integers in 0..C−1.
        num_classes: C.

    Returns:
        [batch, classes] float32, or float64 for float64 logits; [batch] int32; the type of the
        logits, 1, or under XLA NaN where a label is out of range.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: as `lade_tf.ops.check_labels`.
    """
    logits = tf.convert_to_tensor(logits)
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labels, validity = ops.check_labels(labels, logits, num_classes)
    return logits, labels, tf.cast(validity, logits.dtype)
