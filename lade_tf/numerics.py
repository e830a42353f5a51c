"""Numerical tools: large arrays in blocks of rows, the probability simplex, bootstrap resamples."""

import numpy as np

# Entries of a block of rows: few enough to stay in a core's cache between two uses.
BLOCK_ENTRIES = 2**18


def row_blocks(array):
    """Yields slices that cover the rows of a [samples, classes] array, a cache-sized block each."""
    rows = max(1, BLOCK_ENTRIES // array.shape[1])
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def project_to_simplex(values):
    """Euclidean projection onto the probability simplex.

    The nearest distribution is max(values - t, 0) with the one t that makes it sum to 1; t follows
    from the sorted values (Held, Wolfe and Crowder, 1974; Duchi et al., ICML 2008).

    Args:
        values: [classes] finite numbers.

    Returns:
        [classes] float64, no entry negative, sums to 1.

    Raises:
        ValueError: `values` isn't a vector of finite numbers.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            "values must be a vector of at least one finite number; "
            f"got shape {values.shape}, {np.count_nonzero(~np.isfinite(values))} not finite"
        )
    descending = np.sort(values)[::-1]
    # thresholds[k-1] is the t under which the k largest entries sum to 1.
    thresholds = (np.cumsum(descending) - 1) / np.arange(1, values.size + 1)
    kept = np.count_nonzero(descending > thresholds)
    return np.maximum(values - thresholds[kept - 1], 0.0)


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
