"""Images that tensorflow-datasets has prepared, as the files that a data set's lists name."""

import os
import pathlib

from lade_tf.data.files import records

# tensorflow-datasets' name of the set, the feature that tells an image from others, and how the
# path in a list tells it.
SETS = {
    "places_lt": ("places365_small", "filename", lambda path: path),
    "imagenet_lt": ("imagenet_lt", "file_name", os.path.basename),
    "inaturalist2018": ("i_naturalist2018", "id", lambda path: pathlib.PurePath(path).stem),
}


def unpack(dataset, splits, tfds_dir):
    """Writes the images that the lists name and that aren't there; returns how many."""
    import tensorflow_datasets as tfds  # Slow to import, and only this needs it.

    name, feature, key = SETS[dataset]
    versions = [info.parent for info in pathlib.Path(tfds_dir, name).glob("*/dataset_info.json")]
    if not versions:
        raise ValueError(f"--unpack={tfds_dir} must hold {name}, prepared by tensorflow-datasets")
    # Unlike tfds.builder, this reads the folder alone and never asks the network.
    builder = tfds.builder_from_directory(max(versions, key=lambda v: tfds.core.Version(v.name)))
    files = {
        key(path): file
        for images in splits.values()
        for path, file in zip(images.paths, images.files, strict=True)
        if not records.exists(file)
    }
    missing = len(files)
    for split in builder.info.splits:
        images = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})
        for example in images.as_numpy_iterator():
            file = files.pop(example[feature].decode(), None)
            if file:
                write(file, example["image"])
    return missing - len(files)


def write(file, content):
    """Writes a file, whole or not at all, in a folder that need not exist."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    pathlib.Path(file + ".part").write_bytes(content)
    os.replace(file + ".part", file)
