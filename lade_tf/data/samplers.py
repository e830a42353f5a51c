"""Samplers of training images: how often each class is seen, and which images that makes."""

import numpy as np
import tensorflow as tf

from lade_tf.checks import check_choice, check_number
from lade_tf.data import random
from lade_tf.priors import check_counts

# The position of a name is part of its random streams: new names go to the end.
SAMPLERS = ("instance", "class_balanced", "square_root", "progressively_balanced", "reversed")


def class_probabilities(sampler, class_counts, progress=0.0):
    """Returns the probability that a drawn training image is of each class.

    With n_c images of class c and C classes that have any: "instance" n_c / Σn, "class_balanced"
    1 / C, "square_root" ∝ √n_c, "progressively_balanced" (1 − t) · instance + t · class_balanced
    at progress t (Kang et al., "Decoupling Representation and Classifier for Long-Tailed
    Recognition", ICLR 2020, section 3), "reversed" ∝ max(n) / n_c (Zhou et al., "BBN", CVPR 2020,
    section 4.2). A class without images has probability 0.

    Args:
        sampler: one of `SAMPLERS`.
        class_counts: [classes] training images of each class.
        progress: t in [0, 1]; only "progressively_balanced" depends on it.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: for an unknown sampler, counts that are negative, not finite or all 0, or a
            progress outside [0, 1].
    """
    check_choice(sampler, SAMPLERS, "sampler")
    counts = check_counts(class_counts, allow_zero=True)
    if not counts.any():
        raise ValueError("class_counts must hold an image of some class; got only zeros")
    progress = check_number(progress, "progress", minimum=0, maximum=1)
    if sampler == "progressively_balanced":
        instance = class_probabilities("instance", counts)
        return (1 - progress) * instance + progress * class_probabilities("class_balanced", counts)
    exponent = {"instance": 1.0, "class_balanced": 0.0, "square_root": 0.5, "reversed": -1.0}
    weights = np.zeros_like(counts)
    seen = counts > 0
    weights[seen] = counts[seen] ** exponent[sampler]
    return weights / weights.sum()


def epoch_seed(sampler, seed, epoch):
    """Returns the seed of everything random in an epoch, [2] int64; samplers share no stream.

    Args:
        sampler: one of `SAMPLERS`.
        seed: integer.
        epoch: scalar int64 tensor.
    """
    stem = tf.stack([tf.constant(seed, tf.int64), epoch])
    if sampler == "instance":
        return stem
    # Negative, because the steps of an epoch fold in 0, 1, 2, ...
    return tf.random.fold_in(stem, tf.constant(-SAMPLERS.index(sampler), tf.int64), alg="philox")


def epoch_sampler(sampler, labels, class_counts, epochs, size):
    """Returns the function that gives an epoch's images.

    "instance" shuffles: every image at most once. The others draw with replacement, first a class
    by `class_probabilities` at progress epoch / (epochs − 1), then one of its images uniformly.

    Args:
        sampler: one of `SAMPLERS`.
        labels: [images] integers.
        class_counts: [classes] how often each class occurs in `labels`.
        epochs: how many epochs the progress is spread over.
        size: how many images an epoch has.

    Returns:
        A TensorFlow function of an epoch, scalar int64, and its `epoch_seed`, that gives the
        positions of its images in `labels`, [size] int32.
    """

    def shuffle(_, seed):
        return random.permutation(len(labels), seed)[:size]

    if sampler == "instance":
        return shuffle
    by_class = np.argsort(labels, kind="stable").astype(np.int32)
    classes = np.flatnonzero(class_counts)  # A class without images can't be drawn.
    counts = np.asarray(class_counts)[classes]
    first = (np.cumsum(counts) - counts).astype(np.int32)
    # Every sampler's probabilities are linear in the progress.
    start, end = (
        np.cumsum(class_probabilities(sampler, class_counts, progress)[classes])[:-1]
        for progress in (0.0, 1.0)
    )

    def draw(epoch, seed):
        progress = tf.cast(epoch, tf.float64) / max(1, epochs - 1)
        uniform = random.uniform([2, size], seed, tf.float64)
        drawn = tf.searchsorted((1 - progress) * start + progress * end, uniform[0], side="right")
        member = tf.cast(uniform[1] * tf.gather(counts.astype(np.float64), drawn), tf.int32)
        return tf.gather(by_class, tf.gather(first, drawn) + member)

    return draw
