"""Mixup: batches blended with a shuffle of themselves."""

import numpy as np
import tensorflow as tf
from scipy import special

from lade_tf.checks import check_number
from lade_tf.data import random

# As many as there are: no device and no compiler draws other shares.
NUM_QUANTILES = 2**14


def mixup(images, labels, seed, alpha):
    """Blends every image of a batch with another one of it, all by the same share.

    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018: the share λ is drawn from
    Beta(alpha, alpha) and an image becomes λ·image + (1 − λ)·other. Losses are linear in one-hot
    labels, so the label is a triple: λ·loss(label) + (1 − λ)·loss(other label).

    Args:
        images: [batch, height, width, channels] of any type.
        labels: [batch] integers.
        seed: [2] integers; the same seed gives the same share and partners.
        alpha: positive; small numbers leave most batches almost as they are, 1 makes the share
            uniform.

    Returns:
        mixed: [batch, height, width, channels] float32;
        (labels, other_labels, share): [batch] each, the type of `labels` twice and float32.

    Raises:
        ValueError: if `alpha` is not a finite number > 0.
    """
    alpha = check_number(alpha, "alpha", above=0)
    batch_size = tf.shape(images)[0]
    seeds = tf.random.split(seed, 2, alg="philox")
    share = draw_share(seeds[0], alpha)
    partners = random.permutation(batch_size, seeds[1])
    images = tf.cast(images, tf.float32)
    mixed = share * images + (1.0 - share) * tf.gather(images, partners)
    return mixed, (labels, tf.gather(labels, partners), tf.fill([batch_size], share))


def draw_share(seed, alpha):
    """Draws from Beta(alpha, alpha), one of `NUM_QUANTILES` equally probable quantiles.

    Args:
        seed: [2] integers.
        alpha: positive.

    Returns:
        Scalar float32 in 0..1.
    """
    probabilities = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    quantiles = special.betaincinv(alpha, alpha, probabilities)
    return tf.gather(tf.constant(quantiles, tf.float32), random.integers([], seed, NUM_QUANTILES))
