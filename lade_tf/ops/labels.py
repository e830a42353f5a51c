"""The one place where labels that meet logits in a graph are checked."""

import tensorflow as tf

from lade_tf.ops.assertions import asserted


def check_labels(labels, logits, num_classes):
    """Returns integer labels and a factor that is NaN where a label is out of range.

    Out-of-range labels raise in eager and in graph mode. XLA drops assertions, so a loss must
    also multiply its result by the factor: it then becomes NaN, never a plausible number.

    Args:
        labels: [batch] or [batch, 1] integers of any dtype (Keras hands them over as floats).
        logits: [batch, classes], for its shape alone.
        num_classes: C, the number of classes that was declared.

    Returns:
        (labels [batch] int32, factor: float32 scalar, 1 or NaN).

    Raises:
        ValueError: for shapes that don't match, and in eager mode for labels outside 0..C-1.
        tf.errors.InvalidArgumentError: in graph mode, for labels outside 0..C-1.
    """
    if logits.shape.rank != 2 or logits.shape[-1] not in (None, num_classes):
        raise ValueError(
            f"logits must have shape [batch, {num_classes}], one column for each entry of "
            f"class_counts; got shape {logits.shape}"
        )
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == 1:
        labels = tf.squeeze(labels, -1)
    if labels.shape.rank != 1:
        raise ValueError(
            f"labels must be integers of shape [batch] or [batch, 1]; got shape {labels.shape}"
        )
    if not labels.shape.is_compatible_with(logits.shape[:1]):
        raise ValueError(
            f"labels and logits must have the same batch size; got {labels.shape[0]} labels "
            f"for {logits.shape[0]} rows of logits"
        )
    # Checked before the cast, which would make labels of fractions and of too large integers.
    is_label = (labels >= 0) & (labels < num_classes)
    if labels.dtype.is_floating:
        is_label &= labels == tf.floor(labels)
    all_labels = tf.reduce_all(is_label)
    message = f"labels must be integers in 0..{num_classes - 1}; got labels from"
    span = [message, tf.reduce_min(labels), "to", tf.reduce_max(labels)]
    labels = tf.cast(asserted(labels, all_labels, span), tf.int32)
    return labels, tf.where(all_labels, 1.0, float("nan"))
