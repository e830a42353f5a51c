"""Small images taken from their files into memory."""

import numpy as np
import tensorflow as tf

from lade_tf.data.augmentation import resized_crop
from lade_tf.data.files import image_decoding
from lade_tf.data.files.file_reading import explained, read_files
from lade_tf.data.image_data import ImageData, Split


def in_memory(data):
    """Decodes every image of a `FileData` once.

    The shorter side is resized to `data.size` and the centre cut out: an image of that size stays
    as it is. Training pads an eighth of the size before it crops, and mirrors, as CIFAR's recipe.

    Args:
        data: `FileData`.

    Returns:
        `ImageData` of the same images.

    Raises:
        ValueError: naming a file that can't be read or decoded, and why.
    """
    return ImageData(
        name=data.name,
        class_names=data.class_names,
        **{name: _decode(getattr(data, name), data.size, data.max_pixel) for name in data.splits},
        mean=data.mean,
        std=data.std,
        pixel_max=data.pixel_max,
        padding=data.size // 8,
        flip=True,
        bad_images=data.bad_images,
    )


def _decode(split, size, max_pixel):
    def load(contents, file):
        image = image_decoding.decode_window(
            contents, lambda height, width: tf.stack([0, 0, height, width]), size, max_pixel
        )
        image = resized_crop.resize_centre(image, size, shorter=size)
        return tf.round(resized_crop.upright(image, split.orientation_tensor[file]))

    files = tf.data.Dataset.range(len(split.paths), output_type=tf.int32)
    images = np.empty((len(split.paths), size, size, 3), np.uint8)
    loaded = read_files(split.path_tensor, files, files, load).take(len(split.paths))
    try:
        for file, image in loaded.as_numpy_iterator():
            images[file] = image
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(explained(error.message) or error.message) from error
    return Split(images, split.labels)
