"""What data sets in memory and data sets in files have in common."""

import numpy as np

from lade_tf.checks import check_choice, check_number
from lade_tf.data.samplers import SAMPLERS


class DataSet:
    """A training set, perhaps a validation set, and a test set, as subclasses hold them.

    These are dataclasses with `class_names`, `train`, `val` and `test`, the last three with
    `labels`, and with `mean` and `std` of the pixels; `plain_batches` streams a split.
    """

    def __post_init__(self):
        for split in self.splits:
            check_range(getattr(self, split).labels, 0, self.num_classes - 1, f"{split} labels")
        channels = self.image_shape[-1]
        for name in ("mean", "std"):
            if len(getattr(self, name)) != channels:
                raise ValueError(
                    f"{name} must have one entry for each of the {channels} channels; "
                    f"got {getattr(self, name)}"
                )

    @property
    def splits(self):
        """The names of the splits there are: "train", "val" unless it is None, "test"."""
        return ("train", "test") if self.val is None else ("train", "val", "test")

    @property
    def num_classes(self):
        """How many classes there are."""
        return len(self.class_names)

    @property
    def class_counts(self):
        """Training images of every class, [classes] int64."""
        return np.bincount(self.train.labels, minlength=self.num_classes).astype(np.int64)

    def steps_per_epoch(self, batch_size):
        """Returns how many whole batches the training set gives; the remainder is dropped.

        Raises:
            ValueError: if `batch_size` is less than 1 or exceeds the training set.
        """
        size = len(self.train.labels)
        if not 1 <= batch_size <= size:
            raise ValueError(
                f"batch_size must be 1 to {size}, the size of the training set; got {batch_size!r}"
            )
        return size // batch_size

    def test_batches(self, batch_size):
        """Streams every test image once, in stored order, as `plain_batches` does."""
        return self.plain_batches("test", batch_size)

    def _check_split(self, split, batch_size):
        """Raises a ValueError for arguments that `plain_batches` refuses."""
        check_choice(split, self.splits, "split")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size!r}")


def check_epochs(initial_epoch, epochs):
    """Raises a ValueError unless 0 ≤ `initial_epoch` ≤ `epochs`."""
    if not 0 <= initial_epoch <= epochs:
        raise ValueError(f"initial_epoch must be 0 to epochs={epochs}; got {initial_epoch!r}")


def check_sampling(sampler, mixup_alpha):
    """Raises a ValueError for an unknown sampler, or an α of mixup that is neither None nor > 0."""
    check_choice(sampler, SAMPLERS, "sampler")
    if mixup_alpha is not None:
        check_number(mixup_alpha, "mixup_alpha", above=0)


def check_array(array, dtype, shape, name):
    """Raises a ValueError unless it is an array of that type and shape; None means any length."""
    is_array = isinstance(array, np.ndarray)
    fits = is_array and array.dtype == dtype and array.ndim == len(shape)
    if not fits or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        lengths = ", ".join("any" if length is None else str(length) for length in shape)
        got = f"{array.dtype} {array.shape}" if is_array else type(array).__name__
        raise ValueError(f"{name} must be an array of {np.dtype(dtype)}, [{lengths}]; got {got}")


def check_range(array, low, high, name):
    """Raises a ValueError that gives the first entry outside `low`..`high`."""
    wrong = array[(array < low) | (array > high)]
    if wrong.size:
        raise ValueError(f"{name} must be {low} to {high}; got {wrong[0]}")
