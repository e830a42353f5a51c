"""Assertions about the values of tensors."""

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
        ValueError: in eager mode, when `condition` is false.
        tf.errors.InvalidArgumentError: in graph mode, when `condition` is false.
    """
    if tf.executing_eagerly():
        if not condition:
            values = [part.numpy() if tf.is_tensor(part) else part for part in message]
            raise ValueError(" ".join(map(str, values)))
        return tensor
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.identity(tensor)
