"""The one place where logits, labels and weights that meet in a graph are checked."""

import tensorflow as tf

from lade_tf.ops.assertions import asserted


def check_logits(logits):
    """Returns `logits`; raises a ValueError for what Keras marks as a softmax's or sigmoid's."""
    if getattr(logits, "_keras_logits", None) is not None:
        raise ValueError(
            "predictions must be logits; these are the output of a softmax or sigmoid: leave that "
            "activation out of the network"
        )
    return logits


def check_labels(labels, logits, num_classes):
    """Returns integer labels and a factor that is NaN where a label is out of range.

    Out-of-range labels raise in eager and in graph mode. XLA drops assertions, so a loss must
    also multiply its result by the factor: it then becomes NaN, never a plausible number.

    Args:
        labels: [batch] or [batch, 1] integers of any dtype (Keras hands them over as floats), or
            booleans.
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
    if labels is None:
        raise ValueError("labels must be given, integers of shape [batch]; got None")
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
    if not labels.dtype.is_floating:
        labels = tf.cast(labels, tf.int64)  # a narrower type may not hold C to compare with
    # Checked before the cast, which would make labels of fractions and of too large integers.
    is_label = (labels >= 0) & (labels < num_classes)
    if labels.dtype.is_floating:
        is_label &= labels == tf.floor(labels)
    all_labels = tf.reduce_all(is_label)
    message = f"labels must be integers in 0..{num_classes - 1}; got labels from"
    span = [message, tf.reduce_min(labels), "to", tf.reduce_max(labels)]
    labels = tf.cast(asserted(labels, all_labels, span), tf.int32)
    return labels, tf.where(all_labels, 1.0, float("nan"))


def check_sample_weight(sample_weight, labels, dtype):
    """Returns weights ready to use, and whether all of them are what they should be.

    As with labels, under XLA the second must decide whether a result becomes NaN.

    Args:
        sample_weight: [batch] or [batch, 1] numbers of any dtype, or None, which means 1.
        labels: [batch], as `check_labels` returns them.
        dtype: of the weights returned.

    Returns:
        (weights [batch], boolean scalar: whether all are finite and >= 0).

    Raises:
        ValueError: for another number of weights, and in eager mode for a weight that is negative
            or not finite.
        tf.errors.InvalidArgumentError: in graph mode, for such a weight.
    """
    if sample_weight is None:
        return tf.ones_like(labels, dtype), tf.constant(True)
    weight = tf.cast(sample_weight, dtype)
    if weight.shape.rank == 2 and weight.shape[-1] != 1:
        raise ValueError(f"sample_weight must have shape [batch] or [batch, 1]; got {weight.shape}")
    sizes = {weight.shape.num_elements(), labels.shape[0]} - {None}
    if len(sizes) > 1:
        raise ValueError(f"sample_weight must have shape {labels.shape}; got {weight.shape}")
    weight = tf.reshape(weight, tf.shape(labels))
    are_weights = tf.reduce_all((weight >= 0) & tf.math.is_finite(weight))
    message = ["sample_weight must be finite and >= 0 everywhere; got", tf.reduce_min(weight)]
    return asserted(weight, are_weights, message), are_weights
