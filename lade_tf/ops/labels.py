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
    labels = tf.cast(labels, tf.int32)
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
    in_range = tf.reduce_all((labels >= 0) & (labels < num_classes))
    message = f"labels must lie in 0..{num_classes - 1}"
    if tf.executing_eagerly():
        if not in_range:
            raise ValueError(
                f"{message}; got labels from {int(tf.reduce_min(labels))} "
                f"to {int(tf.reduce_max(labels))}"
            )
    else:
        lowest, highest = tf.reduce_min(labels), tf.reduce_max(labels)
        labels = asserted(labels, in_range, [f"{message}; got labels from", lowest, "to", highest])
    return labels, tf.where(in_range, 1.0, float("nan"))
