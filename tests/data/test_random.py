"""Random numbers: those of TensorFlow outside XLA, and the same under XLA."""

import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data import random
from lade_tf.data.augmentation.mixup import draw_share

SEED = [3, 4]
DRAWS = {
    "float32": lambda seed: random.uniform([3, 1001], seed),
    "float64": lambda seed: random.uniform([3, 1001], seed, tf.float64),
    "integers": lambda seed: random.integers([1001], seed, 7),
    "permutation": lambda seed: random.permutation(1001, seed),
    "mixup": lambda seed: draw_share(seed, 0.2),
}


@pytest.mark.parametrize("name", DRAWS)
def test_xla_draws_the_same_numbers(name):
    eager = DRAWS[name](tf.constant(SEED, tf.int64))
    compiled = tf.function(DRAWS[name], jit_compile=True)(tf.constant(SEED, tf.int64))
    np.testing.assert_array_equal(compiled, eager)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_uniform_numbers_are_those_of_tensorflow(dtype):
    expected = tf.random.stateless_uniform([3, 1001], SEED, dtype=dtype, alg="philox")
    np.testing.assert_array_equal(random.uniform([3, 1001], SEED, dtype), expected)


def test_permutations_are_uniform():
    draws = tf.data.Dataset.range(6000).map(lambda s: random.permutation(3, tf.stack([s, 1])))
    found, counts = np.unique(list(draws.as_numpy_iterator()), axis=0, return_counts=True)
    assert len(found) == 6
    np.testing.assert_allclose(counts, 1000, atol=4 * np.sqrt(1000))
