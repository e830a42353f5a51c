"""Random crops and flips, every image of a batch its own, without a per-image map."""

import tensorflow as tf

from lade_tf.data import random


def random_crop_flip(images, seed, padding, flip):
    """Pads with black, crops back to the original size at random and mirrors half of the images.

    The augmentation of the CIFAR recipes. Offsets are uniform over all (2·padding + 1)² crops.

    Args:
        images: [batch, height, width, channels], raw pixels of any type; 0 is black.
        seed: [2] integers; the same seed gives the same crops and flips.
        padding: pixels added on every side before the crop.
        flip: whether to mirror each image left to right with probability 1/2.

    Returns:
        [batch, height, width, channels], the type of `images`.
    """
    tops, lefts, mirrored = random_offsets(tf.shape(images)[0], seed, padding, flip)
    return crop_flip(images, tops, lefts, mirrored, padding)


def random_offsets(batch_size, seed, padding, flip):
    """Draws the crops and flips of one batch.

    Args:
        batch_size: how many images.
        seed: [2] integers.
        padding: offsets are drawn from 0 to 2·padding, both included.
        flip: whether any image is mirrored.

    Returns:
        tops, lefts: [batch] int32; mirrored: [batch] bool.
    """
    # Philox is named so that every device draws the same numbers.
    seeds = tf.random.split(seed, 2, alg="philox")
    tops, lefts = tf.unstack(random.integers([2, batch_size], seeds[0], 2 * padding + 1))
    if not flip:
        return tops, lefts, tf.zeros([batch_size], tf.bool)
    return tops, lefts, random.integers([batch_size], seeds[1], 2) == 1


def crop_flip(images, tops, lefts, mirrored, padding):
    """Crops each padded image at its own offset, then mirrors it where asked.

    Args:
        images: [batch, height, width, channels].
        tops: [batch] int32, first row of the crop in the padded image.
        lefts: [batch] int32, first column of the crop in the padded image.
        mirrored: [batch] bool, whether the crop is mirrored left to right.
        padding: pixels of 0 added on every side.

    Returns:
        [batch, height, width, channels], the type of `images`.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    columns = tf.range(width)
    columns = tf.where(mirrored[:, None], columns[::-1], columns)
    crops = tf.gather(padded, tops[:, None] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(crops, lefts[:, None] + columns, axis=2, batch_dims=1)
