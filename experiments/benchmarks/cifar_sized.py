"""Random images in the sizes and counts of CIFAR-100-LT with imbalance ratio 100."""

import numpy as np

from lade_tf import priors
from lade_tf.data import ImageData, Split

COUNTS = priors.exponential_counts(500, 100, 100)


def make_data():
    """Returns an `ImageData` whose pixels mean nothing."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100), COUNTS).astype(np.int32)
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    split = Split(images, labels)
    names = tuple(map(str, range(100)))
    return ImageData("random", names, split, split, (0.5,) * 3, (0.25,) * 3, 255, 4, True)
