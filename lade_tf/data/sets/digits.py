"""Long-tailed handwritten digits: scikit-learn's bundled set, 8×8 pixels, always at hand."""

import numpy as np

from lade_tf.data.image_data import ImageData, Split
from lade_tf.data.sets.long_tail import long_tailed_counts, long_tailed_subset

NUM_CLASSES = 10
TEST_PER_CLASS = 50
MAX_TRAIN_PER_CLASS = 120  # The rarest digit has 174 images.


def load(imbalance_ratio=20, data_seed=0, data_dir=None):
    """Loads digits_lt: 50 test images of every digit, a long-tailed training set from the rest.

    The 1,797 images of the UCI "Optical Recognition of Handwritten Digits" test set, as
    `sklearn.datasets.load_digits` ships them.

    Args:
        imbalance_ratio: largest over smallest class of the training set, at least 1.
        data_seed: non-negative integer; decides which images are test and which training images.
        data_dir: None; the images come with scikit-learn.

    Returns:
        `ImageData` with images of shape (8, 8, 1) and values 0 to 16.

    Raises:
        ValueError: for an `imbalance_ratio` below 1 or not finite, a wrong `data_seed`, or any
            `data_dir`.
    """
    if data_dir is not None:
        raise ValueError(
            f"data_dir must be None for digits_lt, which comes with scikit-learn; got {data_dir!r}"
        )
    counts = long_tailed_counts(MAX_TRAIN_PER_CLASS, NUM_CLASSES, imbalance_ratio)

    from sklearn.datasets import load_digits  # Slow to import, and only this set needs it.

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    labels = labels.astype(np.int32)
    test = long_tailed_subset(labels, [TEST_PER_CLASS] * NUM_CLASSES, data_seed)
    rest = np.setdiff1d(np.arange(len(labels)), test)
    train = rest[long_tailed_subset(labels[rest], counts, data_seed)]
    return ImageData(
        name="digits_lt",
        class_names=tuple(str(digit) for digit in range(NUM_CLASSES)),
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        mean=(0.3053,),
        std=(0.3760,),
        pixel_max=16,
        padding=1,
        flip=False,  # A mirrored digit is another thing.
    )
