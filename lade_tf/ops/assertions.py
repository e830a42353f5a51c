"""Assertions inside graphs."""

import tensorflow as tf


def asserted(tensor, condition, message):
    """Returns `tensor`, which can't be used before `condition` was found to hold.

    Without that order the first operation that trips over a bad value may fail before the
    assertion, unreadably. XLA drops assertions: what is computed there must become NaN by itself.

    Args:
        tensor: any tensor.
        condition: boolean scalar.
        message: list of strings and tensors to show.

    Raises:
        tf.errors.InvalidArgumentError: when `condition` is false.
    """
    assertion = tf.debugging.Assert(condition, message)
    if assertion is None:  # eager: it held
        return tensor
    with tf.control_dependencies([assertion]):
        return tf.identity(tensor)
