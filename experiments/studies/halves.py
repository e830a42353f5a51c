"""A test set in two halves: one to fit on, one to measure on."""

import numpy as np


def split(labels, seed):
    """Returns the indices of two halves of a test set, class by class."""
    rng = np.random.default_rng(seed)
    images = [rng.permutation(np.flatnonzero(labels == c)) for c in range(labels.max() + 1)]
    halves = [(order[: len(order) // 2], order[len(order) // 2 :]) for order in images]
    return tuple(np.concatenate(half) for half in zip(*halves, strict=True))
