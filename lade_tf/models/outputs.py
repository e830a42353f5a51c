"""What a network gives, as logits of all classes; one output stands for two classes."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import ops

SMALLEST_FLOAT32 = np.finfo(np.float32).tiny
SMALLEST_FLOAT16 = float(np.finfo(np.float16).smallest_subnormal)
# What is nearer to 1 than this is rounded to it, by the dtype's precision.
NEAREST_TO_ONE = {"float16": 2.0**-12, "bfloat16": 2.0**-9, "float32": 2.0**-25}


def check_output_shape(shape, num_classes, one_output_refused=None):
    """Raises a ValueError unless a network of this output shape judges `num_classes` classes.

    Args:
        shape: of the outputs: [batch, num_classes], or for two classes [batch, 1] or [batch].
        num_classes: the entries of class_counts.
        one_output_refused: why one output isn't enough, or None if two classes may have it.
    """
    shape = tuple(shape)
    if is_one_output(shape):
        if num_classes == 2 and one_output_refused is None:
            return
        advice = (
            "one output is two classes, class_counts then (negative, positive)"
            if one_output_refused is None
            else f"{one_output_refused}; for a trained network use lade_tf.adapt"
        )
    elif len(shape) == 2 and shape[-1] in (None, num_classes):
        return
    else:
        advice = "one column for each entry of class_counts"
    raise ValueError(
        f"network must give [batch, {num_classes}] logits, {advice}; its output shape is {shape}"
    )


def is_one_output(shape):
    """Returns whether an output shape is that of one number an example."""
    return len(shape) == 1 or (len(shape) == 2 and shape[-1] == 1)


def as_logits(outputs, from_logits):
    """Returns float32 logits [batch, classes] of a network's outputs.

    One output z, the log odds of the second class, becomes the logits [0, z], whose softmax is
    [1 − σ(z), σ(z)].

    Args:
        outputs: [batch, classes], or [batch, 1] or [batch] for two classes.
        from_logits: whether they are logits; if not, they are the probabilities of a softmax, or
            those of a sigmoid for the second class.
    """
    if keras.tree.is_nested(outputs):
        raise ValueError(
            f"network must give one tensor of logits; it gives a {type(outputs).__name__}"
        )
    outputs = tf.convert_to_tensor(outputs)
    one_output = is_one_output(outputs.shape)
    if from_logits:
        logits = tf.cast(ops.check_logits(outputs), tf.float32)
    elif one_output:
        logits = _log_odds(outputs)
    else:
        logits = _log(outputs)
    if one_output:
        logits = tf.reshape(logits, [-1, 1])
        logits = tf.concat([tf.zeros_like(logits), logits], axis=-1)
    return logits


def _log_odds(probabilities):
    """Returns the float32 log odds of a sigmoid's probabilities, of the same shape."""
    # Keras' sigmoid keeps its logits, from which its losses learn; near 1 probabilities lose them.
    logits = getattr(probabilities, "_keras_logits", None)
    if logits is not None:
        return tf.cast(logits, tf.float32)
    nearest = NEAREST_TO_ONE.get(probabilities.dtype.name, NEAREST_TO_ONE["float32"])
    others = tf.maximum(1 - tf.cast(probabilities, tf.float32), nearest)
    return _log(probabilities) - tf.math.log(others)


def _log(probabilities):
    # Of what half precision can't tell from 0 no more is known than that it is below this.
    smallest = SMALLEST_FLOAT16 if probabilities.dtype == tf.float16 else SMALLEST_FLOAT32
    return tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), smallest))
