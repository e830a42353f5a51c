"""Images that a user has: a folder of image files, or an .npz of arrays."""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf

import lade_tf
from lade_tf.data.files import exif, image_decoding
from lade_tf.data.sets import folder, small_images
from reproduction import recipes

BATCH_SIZE = 256
DIGITS = "digits_lt"  # The one set whose white isn't 255.


@dataclasses.dataclass(frozen=True)
class Format:
    """What images a model takes.

    Attributes:
        image_shape: (height, width, channels).
        dataset: what it was trained on, None where that isn't known.
        from_files: whether these were image files, which are resized as its test images were.
        max_pixel: the value of white in PNGs of 16 bits, None for 65,535.
    """

    image_shape: tuple
    dataset: str | None = None
    from_files: bool = False
    max_pixel: int | None = None

    @classmethod
    def of_run(cls, run, image_shape):
        """Returns that of the model of a `RunFolder`."""
        dataset = run.config.dataset
        return cls(image_shape, dataset, dataset in recipes.LARGE, run.config.max_pixel)


def read_images(path, form, flag):
    """Returns every image in a folder (any depth) or in the `images` of an .npz.

    Args:
        path: the folder or file.
        form: the `Format` of the model.
        flag: what the path came from, for messages.

    Returns:
        Batches of [images, height, width, channels] raw pixels, in order. Those of image files
        are read when they are asked for.

    Raises:
        ValueError: if there is no image, one can't be read, has another shape or other pixels.
    """
    path = _existing(path, flag)
    if path.suffix == ".npz":
        return [_images_of(path, form, flag)]
    return _batches(folder.image_files(path), form, f"{flag}={path}")


def read_labelled_images(path, class_names, form, flag):
    """Returns the images and labels of a folder with one subfolder a class, or of an .npz.

    An .npz holds `images` and integer `labels`. Args, Raises: as `read_images`; an unknown class.

    Returns:
        batches as of `read_images`, [images] int64.
    """
    path = _existing(path, flag)
    if path.suffix == ".npz":
        images = _images_of(path, form, flag)
        return [images], _array_of(path, "labels", (), flag, len(images)).astype(np.int64)
    files = folder.image_files(path)
    known = {name: label for label, name in enumerate(class_names)}
    labels = [_label(pathlib.Path(file).relative_to(path), known) for file in files]
    if None in labels:
        raise ValueError(
            f"{flag}={path} must hold a folder for each class, named as the class "
            f"({', '.join(class_names[:3])}, …); {files[labels.index(None)]} lies in none"
        )
    return _batches(files, form, f"{flag}={path}"), np.array(labels, np.int64)


def _label(file, known):
    """Returns the class in whose folder a file lies, or None; Places-LT's names have slashes."""
    folders = (parent.as_posix() for parent in file.parents)
    return next((known[name] for name in folders if name in known), None)


def _existing(path, flag):
    path = pathlib.Path(path)
    if not path.is_dir() and not (path.is_file() and path.suffix == ".npz"):
        raise ValueError(f"{flag}={path} must be a folder of images or an .npz file")
    return path


def _batches(files, form, name):
    if not files:
        raise ValueError(
            f"{name} must hold at least one image ({', '.join(folder.ENDINGS)}); got none"
        )
    if form.from_files:
        return (images for images, _ in _test_set(files, form).test_batches(BATCH_SIZE))
    images = _decode(files, form)
    _check_pixels(images, form, name)
    return [images]


def _test_set(files, form):
    """Makes files the test set of a data set as the model's own was, so they are read alike."""

    def split(files):
        orientations = exif.orientations(files) if form.dataset == "folder" else None
        return lade_tf.data.FileSplit(tuple(files), np.zeros(len(files), np.int32), orientations)

    files, size = [os.path.abspath(file) for file in files], form.image_shape[0]
    data = lade_tf.data.FileData(
        name=form.dataset,
        class_names=("unknown",),
        train=split(files[:1]),  # There must be one.
        test=split(files),
        val=None,
        mean=folder.MEAN,
        std=folder.STD,
        size=size,
        max_pixel=form.max_pixel,
    )
    small = form.dataset == "folder" and size <= folder.LARGEST_IN_MEMORY
    return small_images.in_memory(data) if small else data


def _decode(files, form):
    image_shape = form.image_shape
    images = np.empty((len(files), *image_shape), np.uint8)
    for image, file in zip(images, files, strict=True):
        try:
            pixels = image_decoding.decode_channels(
                pathlib.Path(file).read_bytes(), image_shape[-1], form.max_pixel
            )
        except tf.errors.InvalidArgumentError as error:
            reason = image_decoding.bad_image_reason(file, form.max_pixel)
            raise ValueError(f"{file} can't be read as an image: {reason}") from error
        if pixels.shape != image_shape:
            raise ValueError(
                f"{file} must have the shape {tuple(image_shape)} that the model takes; "
                f"got {tuple(pixels.shape)}: resize it as the model's training images were"
            )
        image[:] = pixels
    return images


def _images_of(path, form, flag):
    images = _array_of(path, "images", form.image_shape, flag)
    _check_pixels(images, form, f"{flag}={path}")
    return images


def _check_pixels(images, form, name):
    """Raises a ValueError for pixels in another range than those that the model was trained on."""
    if form.dataset is None:
        return
    white = 16 if form.dataset == DIGITS else 255
    low, high = images.min(), images.max()
    # Not so for NaN either. An image of 0 to 1 is black in the eyes of the model.
    if not (low >= 0 and 1 < high <= white):
        raise ValueError(
            f"{name} must have pixels of 0 to {white}, as those of {form.dataset} that the model "
            f"was trained on; they are {low:g} to {high:g}"
        )


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
