"""What all streams of batches are made with."""

import tensorflow as tf

# For what a stream calls. Nothing here has Python's control flow over tensors, and AutoGraph, which
# would look for it, takes longer than all else that making a stream does.
graph_function = tf.autograph.experimental.do_not_convert


def prefetched(stream, batches):
    """Makes batches ahead, so that the network doesn't wait for them.

    How much is done at a time is fixed everywhere, so TensorFlow's tuning has nothing to do. It is
    switched off because it sleeps between its looks, longer and longer, and a stream that is left
    before its end waits for it: 2 s after a stream of 3 s, 18 s after one of 25 s.

    Args:
        stream: `tf.data.Dataset`.
        batches: how many may be ready.

    Returns:
        A `tf.data.Dataset` of the same elements.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.prefetch(batches).with_options(options)
