"""CIFAR-10-LT and CIFAR-100-LT, read from a folder that tensorflow-datasets prepared."""

import os
import pathlib

import numpy as np

from lade_tf.data.image_data import ImageData, Split
from lade_tf.data.sets.long_tail import long_tailed_counts, long_tailed_subset

# CIFAR-10's statistics; the recipes use them for both sets.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


def load_cifar10(imbalance_ratio=100, data_seed=0, data_dir=None):
    """Loads cifar10_lt, int(5000 · (1/ratio)^(c/9)) training images of class c.

    See `load_cifar100` for arguments, result and errors.
    """
    return _load("cifar10", 10, 5000, imbalance_ratio, data_seed, data_dir)


def load_cifar100(imbalance_ratio=100, data_seed=0, data_dir=None):
    """Loads cifar100_lt, int(500 · (1/ratio)^(c/99)) training images of class c.

    The long-tailed CIFAR of Cui et al. (CVPR 2019): classes in label order, the whole balanced
    test set. Nothing is downloaded.

    Args:
        imbalance_ratio: largest over smallest class of the training set, at least 1.
        data_seed: non-negative integer; decides which training images are kept.
        data_dir: folder of prepared tensorflow-datasets; None means the environment variable
            TFDS_DATA_DIR or, where that is unset, ~/tensorflow_datasets.

    Returns:
        `ImageData` with images of shape (32, 32, 3) and values 0 to 255.

    Raises:
        ValueError: if `data_dir` isn't a folder, the set isn't prepared in it (the message gives
            the command that prepares it), `imbalance_ratio` is below 1 or not finite, or
            `data_seed` isn't a non-negative integer.
    """
    return _load("cifar100", 100, 500, imbalance_ratio, data_seed, data_dir)


def _load(tfds_name, num_classes, per_class, imbalance_ratio, data_seed, data_dir):
    builder = _prepared_builder(tfds_name, _data_folder(data_dir))
    counts = long_tailed_counts(per_class, num_classes, imbalance_ratio)
    images, labels = _read(builder, "train")
    kept = long_tailed_subset(labels, counts, data_seed)
    return ImageData(
        name=f"{tfds_name}_lt",
        class_names=tuple(builder.info.features["label"].names),
        train=Split(images[kept], labels[kept]),
        test=Split(*_read(builder, "test")),
        mean=MEAN,
        std=STD,
        pixel_max=255,
        padding=4,
        flip=True,
    )


def _data_folder(data_dir):
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        return pathlib.Path(data_dir).expanduser()
    folder = pathlib.Path(data_dir).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data_dir must be an existing folder; got {str(data_dir)!r}")
    return folder


def _prepared_builder(tfds_name, folder):
    import tensorflow_datasets as tfds  # Slow to import, and only these sets need it.

    versions = [info.parent for info in (folder / tfds_name).glob("[0-9]*/dataset_info.json")]
    if not versions:
        command = f"import tensorflow_datasets as tfds; tfds.load('{tfds_name}', "
        raise ValueError(
            f"{tfds_name} is not prepared in {folder}; this command downloads and prepares it: "
            f'python -c "{command}data_dir={str(folder)!r})"'
        )
    newest = max(versions, key=lambda version: tfds.core.Version(version.name))
    # Unlike tfds.builder, this reads the folder alone and never asks the network.
    return tfds.builder_from_directory(newest)


def _read(builder, split):
    """Decodes a whole split in stored order: images [n, 32, 32, 3] uint8, labels [n] int32."""
    import tensorflow_datasets as tfds

    columns = builder.as_dataset(
        split=split,
        batch_size=-1,
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return columns["image"].numpy(), columns["label"].numpy().astype(np.int32)
