"""How streams of batches are made, and made again from another epoch on."""

import dataclasses
import functools
from collections.abc import Callable

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


@dataclasses.dataclass(frozen=True)
class Origin:
    """How to make a stream of epochs again, from another epoch on.

    Attributes:
        from_epoch: function of an epoch that returns the stream that starts there.
        initial_epoch: at which the stream starts.
        epochs: the epoch, counted from 0, at which it ends.
        steps_per_epoch: batches in an epoch.
    """

    from_epoch: Callable
    initial_epoch: int
    epochs: int
    steps_per_epoch: int


def with_origin(stream, origin):
    """Returns a `tf.data.Dataset` that `origin_of` knows; what is made of it isn't known."""
    stream.lade_tf_origin = origin
    return stream


def origin_of(stream):
    """Returns the `Origin` of a stream, None where it has none."""
    return getattr(stream, "lade_tf_origin", None)


def restartable(train_batches):
    """Decorates a `train_batches`, so that its streams have an `Origin`."""

    @functools.wraps(train_batches)
    def decorated(self, batch_size, epochs, seed, initial_epoch=0, *args, **kwargs):
        def from_epoch(epoch):
            return train_batches(self, batch_size, epochs, seed, epoch, *args, **kwargs)

        steps = self.steps_per_epoch(batch_size)
        origin = Origin(from_epoch, initial_epoch, epochs, steps)
        return with_origin(from_epoch(initial_epoch), origin)

    return decorated
