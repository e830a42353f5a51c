"""Bytes of a file that is a scalar string in a graph."""

import tensorflow as tf


def read(contents, start, length):
    """Returns bytes of a string, [length] uint8, with zeros beyond its end."""
    size = tf.cast(tf.strings.length(contents), tf.int64)
    start, length = tf.cast(start, tf.int64), tf.cast(length, tf.int64)
    part = tf.strings.substr(contents, tf.minimum(start, size), length)
    found = tf.io.decode_raw(part, tf.uint8)
    return tf.pad(found, [[0, tf.cast(length, tf.int32) - tf.size(found)]])


def byte(contents, position):
    """Returns a byte of a string as an integer, scalar int32, 0 beyond its end."""
    return tf.cast(read(contents, position, 1)[0], tf.int32)


def checked(contents, *checks):
    """Returns a tensor that is there only if all is well with the file that it is of.

    Args:
        contents: any tensor.
        *checks: (scalar bool, what is wrong where it is False).

    Raises:
        tf.errors.InvalidArgumentError: "assertion failed: [WHAT IS WRONG]", in the graph.
    """
    # tf.debugging.Assert would make a conditional of each, of which a file of another format pays.
    asserts = [tf.raw_ops.Assert(condition=good, data=[text]) for good, text in checks]
    with tf.control_dependencies(asserts):
        return tf.identity(contents)
