"""Saved logits that several tests look at."""

import numpy as np

from lade_tf import priors
from lade_tf.evaluation import SavedLogits


def cifar_sized(seed=0):
    """Returns logits in CIFAR-100's test sizes, right more often in frequent classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(100), 100)
    logits = rng.normal(size=(10_000, 100)).astype(np.float32)
    logits[np.arange(10_000), labels] += np.linspace(4, 1, 100)[labels]
    counts = priors.exponential_counts(500, 100, 100)
    names = np.array([str(c) for c in range(100)])
    return SavedLogits(logits, labels, counts, priors.class_prior(counts), names)
