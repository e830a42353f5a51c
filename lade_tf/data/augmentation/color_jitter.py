"""Colour jitter as Pillow and torchvision define it: multiplicative, in random order."""

import itertools

import tensorflow as tf

from lade_tf.data import random

ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation")))
GREY = (0.299, 0.587, 0.114)


def draw_jitter(batch_size, seed, jitter):
    """Draws the colour jitter of a batch.

    Args:
        batch_size: how many images.
        seed: [2] integers.
        jitter: factors are uniform in 1 ± `jitter`.

    Returns:
        factors: [batch, 3] float32, of brightness, contrast and saturation;
        orders: [batch] int32, positions in `ORDERS`.
    """
    seeds = tf.random.split(seed, 2, alg="philox")
    factors = 1.0 + jitter * (2.0 * random.uniform([batch_size, 3], seeds[0]) - 1.0)
    return factors, random.integers([batch_size], seeds[1], len(ORDERS))


# Compiled, because a dozen passes over the image become a few: about 0.2 ms an image, not 0.4.
@tf.function(jit_compile=True, autograph=False)
def color_jitter(image, factors, order):
    """Multiplies brightness, contrast and saturation.

    Each step blends, factor·image + (1 − factor)·other, and clips to 0..255: brightness with black,
    contrast with the mean grey level, saturation with the grey image. Grey is 0.299 red + 0.587
    green + 0.114 blue. Pillow does the same and drops fractions after every step.

    Args:
        image: [columns, 3, rows] float32 in 0..255.
        factors: [3] float32, of brightness, contrast and saturation.
        order: scalar int32, a position in `ORDERS`.

    Returns:
        [columns, 3, rows] float32 in 0..255.
    """
    steps = {
        "brightness": lambda image: _blend(image, 0.0, factors[0]),
        "contrast": lambda image: _blend(image, tf.reduce_mean(_grey(image)), factors[1]),
        "saturation": lambda image: _blend(image, _grey(image), factors[2]),
    }

    def in_order(names):
        jittered = image
        for name in names:
            jittered = steps[name](jittered)
        return jittered

    return tf.switch_case(order, [lambda names=names: in_order(names) for names in ORDERS])


def _blend(image, other, factor):
    return tf.clip_by_value(factor * image + (1.0 - factor) * other, 0.0, 255.0)


def _grey(image):
    red, green, blue = tf.split(image, 3, axis=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue
