"""The draw of a long-tailed subset from a balanced training set."""

import numbers

import numpy as np

from lade_tf.priors import exponential_counts


def long_tailed_counts(per_class, num_classes, imbalance_ratio):
    """Returns `exponential_counts`, [classes] int64, none of them 0.

    Raises:
        ValueError: for a ratio below 1, not finite, or so large that a class gets no image.
    """
    counts = exponential_counts(per_class, num_classes, imbalance_ratio)
    if counts.min() == 0:
        raise ValueError(
            f"imbalance_ratio must be at most {per_class}, so that every class keeps an image; "
            f"got {imbalance_ratio!r}"
        )
    return counts


def long_tailed_subset(labels, counts, data_seed):
    """Draws `counts[c]` images of every class c without replacement.

    Each class is shuffled once and its first images are kept, so with the same `data_seed` a
    smaller count gives a subset of what a larger one gives.

    Args:
        labels: [images] integers.
        counts: [classes] integers, how many images of each class to keep.
        data_seed: non-negative integer; the draw depends on nothing else.

    Returns:
        [sum of counts] int64, ascending positions in `labels`.

    Raises:
        ValueError: if a class has fewer images than `counts` asks for, or for a `data_seed` that
            isn't a non-negative integer.
    """
    if not isinstance(data_seed, numbers.Integral) or data_seed < 0:
        raise ValueError(f"data_seed must be a non-negative integer; got {data_seed!r}")
    generator = np.random.default_rng(data_seed)
    chosen = []
    for class_index, count in enumerate(counts):
        members = generator.permutation(np.flatnonzero(labels == class_index))
        if not 0 <= count <= members.size:
            raise ValueError(
                f"counts must ask for 0 to {members.size} images of class {class_index}, as many "
                f"as it has; got {count}"
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))
