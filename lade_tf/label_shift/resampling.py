"""Bootstrap resamples of labelled and unlabelled samples."""

import numpy as np


def draw_rows(labels, class_counts, rng):
    """Draws rows of a labelled sample with replacement, `class_counts[c]` of every class c.

    Args:
        labels: Integers [samples].
        class_counts: Integers [classes]; 0 for a class without samples.
        rng: A NumPy generator.

    Returns:
        Row numbers, integers [sum of class_counts], in class order.
    """
    available = np.bincount(labels, minlength=len(class_counts))
    first = np.cumsum(available) - available
    drawn = np.repeat(np.arange(len(class_counts)), class_counts)
    offset = (rng.random(len(drawn)) * available[drawn]).astype(np.int64)
    return np.argsort(labels, kind="stable")[first[drawn] + offset]


def resample_source(labels, num_classes, rng):
    """Draws as many rows of every class as there are, so that no class gets lost."""
    return draw_rows(labels, np.bincount(labels, minlength=num_classes), rng)
