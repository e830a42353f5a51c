"""Long-tailed image data sets; `load` knows them by name."""

from lade_tf.checks import check_choice as _check_choice
from lade_tf.data import cifar as _cifar
from lade_tf.data import digits as _digits
from lade_tf.data.image_data import ImageData, Split
from lade_tf.data.policies import AUGMENTATIONS
from lade_tf.data.samplers import SAMPLERS, class_probabilities

_LOADERS = {
    "digits_lt": _digits.load,
    "cifar10_lt": _cifar.load_cifar10,
    "cifar100_lt": _cifar.load_cifar100,
}
NAMES = tuple(_LOADERS)

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "SAMPLERS",
    "ImageData",
    "Split",
    "class_probabilities",
    "load",
]


def load(name, imbalance_ratio=None, data_seed=0, data_dir=None):
    """Loads a long-tailed data set.

    Args:
        name: one of `NAMES`.
        imbalance_ratio: largest over smallest training class, at least 1; None means the set's
            own: 20 for digits_lt, 100 for the others.
        data_seed: non-negative integer; the choice of images depends on nothing else.
        data_dir: folder of prepared tensorflow-datasets, for the sets that come from there.

    Returns:
        `ImageData`.

    Raises:
        ValueError: for an unknown name or a value that the set refuses.
    """
    _check_choice(name, NAMES, "name")
    ratio = {} if imbalance_ratio is None else {"imbalance_ratio": imbalance_ratio}
    return _LOADERS[name](data_seed=data_seed, data_dir=data_dir, **ratio)
