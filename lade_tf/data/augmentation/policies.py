"""What follows the standard augmentation: AutoAugment with Cutout, RandAugment, a user's layers.

Pixels are a function of the images and a seed alone, so that a resumed run sees what an
uninterrupted one sees. `image_ops` says why the operations are not keras-cv's.
"""

import functools

import numpy as np
import tensorflow as tf

from lade_tf.checks import check_choice, check_integer, check_number
from lade_tf.data import random
from lade_tf.data.augmentation import keras_layers
from lade_tf.data.augmentation.image_ops import OPS, apply_ops, cutout

AUGMENTATIONS = ("standard", "autoaugment_cutout", "randaugment", "keras_cv_randaugment")

# Sub-policies of two (operation, probability, magnitude): the policy found on CIFAR-10, Cubuk et
# al. 2019, table 7. Operations without a magnitude have the table's number all the same.
CIFAR10_POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)
MAX_POLICY_MAGNITUDE = 9

# RandAugment's fourteen: all but the inversion.
RANDAUGMENT_OPS = tuple(name for name in OPS if name != "invert")
MAX_RANDAUGMENT_MAGNITUDE = 10

CUTOUT_SIZE = 16


def policy(augment, batch_shape, fill, pixel_max=255.0):
    """Returns what changes a batch after the standard crop and flip.

    Args:
        augment: one of `AUGMENTATIONS`, "standard" changing nothing, or a list of layers of Keras
            and keras-cv, see `keras_layers`.
        batch_shape: (batch, height, width, channels) of the images.
        fill: [channels], the raw pixel that policies fill with, such as the data set's mean;
            layers have a fill of their own.
        pixel_max: the value of a white pixel.

    Returns:
        A function of images, `batch_shape` raw pixels in 0..`pixel_max` of any type, and the seed,
        [2] integers, of their crops and flips, that returns images of the same shape and type.
        Policies and layers see float32 pixels in 0..255; integers are rounded at the end.

    Raises:
        ValueError: for an unknown name, a policy that such images can't have, or layers that
            `keras_layers.seeded` refuses.
    """
    if isinstance(augment, str):
        _check_name(augment, batch_shape[1:])
    if augment == "standard":
        return lambda images, seed: images
    if augment == "autoaugment_cutout":
        change = functools.partial(autoaugment_cutout, fill=fill, pixel_max=pixel_max)
    elif augment == "randaugment":
        change = functools.partial(randaugment, fill=fill, pixel_max=pixel_max)
    else:
        change = _of_layers(augment, batch_shape, pixel_max)
    # The crop splits the seed itself; folding gives the policy draws of its own.
    return lambda images, seed: change(images, tf.random.fold_in(seed, 1, alg="philox"))


def _check_name(name, image_shape):
    check_choice(name, AUGMENTATIONS, "augment")
    channels = image_shape[-1]
    if name == "autoaugment_cutout" and channels != 3:
        raise ValueError(
            "augment must not be autoaugment_cutout, whose colour operations need 3 channels, for "
            f"images of shape {tuple(image_shape)}"
        )
    if name == "keras_cv_randaugment" and channels not in (1, 3):
        raise ValueError(
            "augment must not be keras_cv_randaugment, which needs 1 or 3 channels, for images of "
            f"shape {tuple(image_shape)}"
        )


def _of_layers(augment, batch_shape, pixel_max):
    if augment == "keras_cv_randaugment":
        apply = keras_layers.keras_cv_randaugment(tuple(batch_shape))
    else:
        apply = keras_layers.seeded(augment, batch_shape)

    def change(images, seed):
        pixels = tf.cast(images, tf.float32) * (255.0 / pixel_max)
        return _from_255(apply(pixels, seed), images.dtype, pixel_max)

    return change


def autoaugment_cutout(images, seed, fill, pixel_max=255.0):
    """Applies one random sub-policy of AutoAugment's CIFAR-10 policy to each image, then Cutout.

    Cubuk et al., AutoAugment, CVPR 2019; DeVries and Taylor, Improved Regularization of
    Convolutional Neural Networks with Cutout, 2017: one square of 16 × 16 pixels whose centre is
    uniform over the image. Magnitude 9 is an operation's greatest effect and 0 none; an effect
    with a direction takes either with probability 1/2.

    Args:
        images: [batch, height, width, 3], raw RGB pixels in 0..`pixel_max` of any type.
        seed: [2] integers; the same seed gives the same result.
        fill: [3], the raw pixel of the square and of what comes in from outside the image.
        pixel_max: the value of a white pixel.

    Returns:
        [batch, height, width, 3], the type of `images`.

    Raises:
        ValueError: for images without 3 channels, a `fill` of another length or a `pixel_max` that
            is not positive.
    """
    if images.shape.rank != 4 or images.shape[3] != 3:
        raise ValueError(
            "images must be [batch, height, width, 3] for AutoAugment, whose colour operations "
            f"need 3 channels; got {images.shape}"
        )
    pixels, fill = _to_255(images, fill, pixel_max)
    seeds = tf.random.split(seed, 2, alg="philox")
    pixels = _apply_steps(pixels, *draw_subpolicies(tf.shape(images)[0], seeds[0]), fill)
    centres = draw_centres(tf.shape(images)[0], seeds[1], *images.shape[1:3])
    pixels = cutout(pixels, *centres, CUTOUT_SIZE, fill)
    return _from_255(pixels, images.dtype, pixel_max)


def randaugment(images, seed, fill, num_ops=2, magnitude=9, pixel_max=255.0):
    """Applies operations drawn uniformly from fourteen to each image, all at one magnitude.

    Cubuk et al., RandAugment, NeurIPS 2020. The magnitude is the paper's, where 10 is an
    operation's greatest effect; libraries that count to 30 call magnitude 3 their 9. An effect
    with a direction takes either with probability 1/2. On grey images, "color" has no effect.

    Args:
        images: [batch, height, width, 1 or 3], raw pixels in 0..`pixel_max` of any type.
        seed: [2] integers; the same seed gives the same result.
        fill: [channels], the raw pixel of what comes in from outside the image.
        num_ops: operations on each image, one after another, with repetition.
        magnitude: 0 to 10.
        pixel_max: the value of a white pixel.

    Returns:
        [batch, height, width, channels], the type of `images`.

    Raises:
        ValueError: for images of another shape, a `fill` of another length, or a number outside
            its range.
    """
    if images.shape.rank != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"images must be [batch, height, width, 1 or 3]; got {images.shape}")
    check_integer(num_ops, "num_ops", minimum=1)
    if not 0 <= magnitude <= MAX_RANDAUGMENT_MAGNITUDE:
        raise ValueError(f"magnitude must be 0 to {MAX_RANDAUGMENT_MAGNITUDE}; got {magnitude!r}")
    pixels, fill = _to_255(images, fill, pixel_max)
    steps = draw_ops(tf.shape(images)[0], seed, num_ops, magnitude)
    return _from_255(_apply_steps(pixels, *steps, fill), images.dtype, pixel_max)


def draw_subpolicies(batch_size, seed, policy=CIFAR10_POLICY):
    """Draws a sub-policy for each image, and which of its operations take place.

    Args:
        batch_size: how many images.
        seed: [2] integers.
        policy: sub-policies as in `CIFAR10_POLICY`.

    Returns:
        ops: [2, batch] int32, positions in `OPS`, "identity" where none takes place;
        strengths: [2, batch] float32 in −1..1.
    """
    ops = np.array([[OPS.index(name) for name, _, _ in row] for row in policy], np.int32)
    probabilities = np.array([[share for _, share, _ in row] for row in policy], np.float32)
    magnitudes = np.array([[magnitude for _, _, magnitude in row] for row in policy], np.float32)
    seeds = tf.random.split(seed, 3, alg="philox")
    rows = random.integers([batch_size], seeds[0], len(policy))
    shape = [2, batch_size]
    happens = random.uniform(shape, seeds[1]) < tf.gather(probabilities.T, rows, axis=1)
    strengths = tf.gather(magnitudes.T / MAX_POLICY_MAGNITUDE, rows, axis=1)
    chosen = tf.where(happens, tf.gather(ops.T, rows, axis=1), OPS.index("identity"))
    return chosen, strengths * _signs(shape, seeds[2])


def draw_ops(batch_size, seed, num_ops, magnitude):
    """Draws RandAugment's operations.

    Args:
        batch_size: how many images.
        seed: [2] integers.
        num_ops: operations for each image.
        magnitude: 0 to 10.

    Returns:
        ops: [num_ops, batch] int32, positions in `OPS`;
        strengths: [num_ops, batch] float32, ±`magnitude` / 10.
    """
    seeds = tf.random.split(seed, 2, alg="philox")
    shape = [num_ops, batch_size]
    positions = tf.constant([OPS.index(name) for name in RANDAUGMENT_OPS])
    ops = tf.gather(positions, random.integers(shape, seeds[0], len(RANDAUGMENT_OPS)))
    return ops, magnitude / MAX_RANDAUGMENT_MAGNITUDE * _signs(shape, seeds[1])


def draw_centres(batch_size, seed, height, width):
    """Draws a pixel of each image, uniformly.

    Args:
        batch_size: how many images.
        seed: [2] integers.
        height: rows of an image.
        width: columns of an image.

    Returns:
        rows, columns: [batch] int32.
    """
    seeds = tf.random.split(seed, 2, alg="philox")
    rows = random.integers([batch_size], seeds[0], height)
    return rows, random.integers([batch_size], seeds[1], width)


def _apply_steps(pixels, ops, strengths, fill):
    for step in range(ops.shape[0]):
        pixels = apply_ops(pixels, ops[step], strengths[step], fill)
    return pixels


def _to_255(images, fill, pixel_max):
    check_number(pixel_max, "pixel_max", above=0)
    channels = images.shape[3]
    if np.shape(fill) != (channels,):
        raise ValueError(f"fill must have {channels} entries, one a channel; got {fill!r}")
    scale = 255.0 / pixel_max
    return tf.cast(images, tf.float32) * scale, tf.constant(fill, tf.float32) * scale


def _from_255(pixels, dtype, pixel_max):
    pixels = pixels * (pixel_max / 255.0)
    return tf.cast(tf.round(pixels) if dtype.is_integer else pixels, dtype)


def _signs(shape, seed):
    return 2.0 * tf.cast(random.integers(shape, seed, 2), tf.float32) - 1.0
