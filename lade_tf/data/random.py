"""Random numbers that are the same in eager mode, in graphs and under XLA, on every device.

`tf.random.stateless_*` with `alg="philox"` are that only for integers: XLA makes other floats of
the same bits, and has no shuffle.
"""

import tensorflow as tf


def uniform(shape, seed, dtype=tf.float32):
    """Draws uniform numbers, those of `tf.random.stateless_uniform` outside XLA.

    Args:
        shape: list of integers.
        seed: [2] integers.
        dtype: float32 or float64.

    Returns:
        `shape` numbers in [0, 1): multiples of 2⁻²³, or of 2⁻⁵² as float64.
    """
    if dtype == tf.float32:
        return tf.cast(_bits(shape, seed) & 0x7FFFFF, dtype) * 2.0**-23
    high, low = tf.unstack(_bits([*shape, 2], seed), axis=-1)
    return tf.cast(high & 0xFFFFF, dtype) * 2.0**-20 + tf.cast(low, dtype) * 2.0**-52


def integers(shape, seed, limit):
    """Draws `shape` int32 in 0..`limit` − 1, uniformly."""
    return tf.random.stateless_uniform(shape, seed, 0, limit, tf.int32, alg="philox")


def permutation(size, seed):
    """Returns 0..`size` − 1 in random order, [size] int32."""
    # Equal keys, one pair among 90,000 numbers, are no harm: the sort is stable.
    return tf.argsort(_bits([size], seed), stable=True)


def _bits(shape, seed):
    return tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
