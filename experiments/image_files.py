"""Images that a user has: a folder of image files, or an .npz of arrays."""

import pathlib

import numpy as np
import tensorflow as tf

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def read_images(path, image_shape, flag):
    """Returns every image in a folder (any depth) or in the `images` of an .npz.

    Args:
        path: the folder or file.
        image_shape: (height, width, channels) that the model takes.
        flag: what the path came from, for messages.

    Returns:
        [images, height, width, channels], raw pixels.

    Raises:
        ValueError: if there is no image, one can't be read, or one has another shape.
    """
    path = _existing(path, flag)
    if path.suffix == ".npz":
        return _array_of(path, "images", image_shape, flag)
    return _decode(_image_files(path), image_shape, f"{flag}={path}")


def read_labelled_images(path, class_names, num_classes, image_shape, flag):
    """Returns the images and labels of a folder with one subfolder a class, or of an .npz.

    A subfolder has the name of its class or, where the model knows no names, its number. An .npz
    holds `images` and integer `labels`. Args, Raises: as `read_images`; an unknown class.

    Returns:
        [images, height, width, channels] raw pixels, [images] int64.
    """
    path = _existing(path, flag)
    if path.suffix == ".npz":
        images = _array_of(path, "images", image_shape, flag)
        return images, _array_of(path, "labels", (), flag, len(images)).astype(np.int64)
    known = {name: index for index, name in enumerate(class_names or map(str, range(num_classes)))}
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    unknown = [folder.name for folder in folders if folder.name not in known]
    if unknown or not folders:
        raise ValueError(
            f"{flag}={path} must hold a folder for each class, named as the class "
            f"({', '.join(list(known)[:3])}, …); got {unknown[0] if unknown else 'no folder'!r}"
        )
    files = [(file, known[folder.name]) for folder in folders for file in _image_files(folder)]
    images = _decode([file for file, _ in files], image_shape, f"{flag}={path}")
    return images, np.array([label for _, label in files], np.int64)


def _existing(path, flag):
    path = pathlib.Path(path)
    if not path.is_dir() and not (path.is_file() and path.suffix == ".npz"):
        raise ValueError(f"{flag}={path} must be a folder of images or an .npz file")
    return path


def _image_files(folder):
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)


def _decode(files, image_shape, name):
    if not files:
        raise ValueError(f"{name} must hold at least one image ({', '.join(ENDINGS)}); got none")
    images = np.empty((len(files), *image_shape), np.uint8)
    for image, file in zip(images, files, strict=True):
        try:
            pixels = tf.io.decode_image(
                file.read_bytes(), channels=image_shape[-1], expand_animations=False
            )
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{file} can't be read as an image: {error.message}") from error
        if pixels.shape != image_shape:
            raise ValueError(
                f"{file} must have the shape {tuple(image_shape)} that the model takes; "
                f"got {tuple(pixels.shape)}: resize it as the model's training images were"
            )
        image[:] = pixels
    return images


def _array_of(path, name, item_shape, flag, length=None):
    try:
        with np.load(path) as arrays:
            array = arrays[name]
    except Exception as error:
        raise ValueError(f"{flag}={path} must be an .npz with {name!r}: {error}") from error
    if (
        array.shape[1:] != tuple(item_shape)
        or len(array) == 0
        or len(array) != (length or len(array))
    ):
        raise ValueError(
            f"{name!r} in {flag}={path} must have shape {[length or 'images', *item_shape]}; "
            f"got {list(array.shape)}"
        )
    return array
