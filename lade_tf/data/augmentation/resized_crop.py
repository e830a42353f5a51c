"""The random resized crop of training and the central crop of evaluation.

Resizing is bilinear with antialiasing where it shrinks, as Pillow's, which the published recipes
use; the results differ by Pillow's rounding. `tf.image.resize` without antialiasing would save
0.2 ms an image of 1.9, and puts photographs 3 of 255 off in the mean.
"""

import math

import tensorflow as tf

from lade_tf.data import random

MIN_AREA, MAX_AREA = 0.08, 1.0
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3
ATTEMPTS = 10


def draw_crops(batch_size, seed):
    """Draws what `random_window` needs, as far as it can be had without the image's size.

    Args:
        batch_size: how many images.
        seed: [2] integers.

    Returns:
        [batch, attempts, 4] float32: the window's height and width, divided by the geometric mean
        of the image's, and in [0, 1) where it lies, from top to bottom and from left to right.
    """
    draws = random.uniform([batch_size, ATTEMPTS, 4], seed)
    areas = MIN_AREA + (MAX_AREA - MIN_AREA) * draws[..., 0]
    log_aspects = math.log(MIN_ASPECT) + math.log(MAX_ASPECT / MIN_ASPECT) * draws[..., 1]
    sides = tf.sqrt(tf.stack([areas / tf.exp(log_aspects), areas * tf.exp(log_aspects)], axis=-1))
    return tf.concat([sides, draws[..., 2:]], axis=-1)


def random_window(height, width, draws):
    """Chooses the window of a random resized crop.

    Torchvision's RandomResizedCrop, after Szegedy et al., Going Deeper with Convolutions, CVPR
    2015: the area is uniform in 0.08 to 1 of the image's, the aspect ratio width / height
    log-uniform in 3/4 to 4/3, the position uniform. The first of 10 attempts that fits into the
    image counts. If none does, it is the central window of full height or width, its aspect ratio
    the nearest to the image's in 3/4 to 4/3. (`tf.image.sample_distorted_bounding_box` has
    another distribution.)

    Args:
        height: scalar int32, of the image.
        width: scalar int32, of the image.
        draws: [attempts, 4] float32, one image's of `draw_crops`.

    Returns:
        [4] int32: top, left, height, width.
    """
    # Every operation here runs for every image: few of them, each on heights and widths alike.
    image = tf.cast(tf.stack([height, width]), tf.float32)
    sides = tf.round(tf.sqrt(image[0] * image[1]) * draws[:, :2])
    fits = tf.reduce_all((sides > 0) & (sides <= image), axis=1)
    first = tf.argmax(fits)
    corner = tf.floor(draws[first, 2:] * (image - sides[first] + 1))
    # 4/3 bounds both sides, because the bounds of the aspect ratio are 3/4 and 4/3.
    largest = tf.minimum(image, tf.round(MAX_ASPECT * image[::-1]))
    central = tf.concat([tf.floor((image - largest) / 2), largest], axis=0)
    window = tf.where(fits[first], tf.concat([corner, sides[first]], axis=0), central)
    return tf.cast(window, tf.int32)


def resize(image, size):
    """Resizes an image to a square, whatever its shape.

    Args:
        image: [height, width, 3] uint8.
        size: height and width of the result.

    Returns:
        [size, 3, size] float32: columns, channels, rows; `upright` gives the usual order.
    """
    scales = size / tf.cast(tf.shape(image)[:2], tf.float32)
    return _resample(image, size, scales, tf.zeros([2]))


def shorter_side(size):
    """Returns to what evaluation resizes the shorter side of an image: 256 for 224."""
    return round(size * 8 / 7)


def resize_centre(image, size, shorter=None):
    """Resizes an image with its aspect ratio and takes the centre.

    Args:
        image: [height, width, 3] uint8.
        size: height and width of the result.
        shorter: to what the shorter side is resized; None for `shorter_side`(size).

    Returns:
        [size, 3, size] float32: columns, channels, rows; `upright` gives the usual order.
    """
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    # The longer side is rounded down, the margin to the nearest integer, as torchvision does.
    resized = tf.floor((shorter or shorter_side(size)) * shape / tf.reduce_min(shape))
    return _resample(image, size, resized / shape, tf.round((resized - size) / 2))


def upright(image, orientation):
    """Undoes an EXIF orientation.

    Args:
        image: [size, 3, size]: columns, channels, rows, as stored.
        orientation: scalar int32, 1 to 8.

    Returns:
        [size, size, 3]: rows, columns, channels, as to be shown.
    """
    size = image.shape[0]
    turned = orientation >= 5  # The stored columns are the rows to be shown.
    left_to_right, top_to_bottom = orientation % 4 >= 2, (orientation - 1) % 4 >= 2
    columns = tf.where(turned, top_to_bottom, left_to_right)
    rows = tf.where(turned, left_to_right, top_to_bottom)
    image = tf.raw_ops.Reverse(tensor=image, dims=tf.stack([columns, False, rows]))
    image = tf.transpose(image, tf.where(turned, [0, 2, 1], [2, 0, 1]))
    return tf.ensure_shape(image, [size, size, 3])


def mirrored(orientation, mirror):
    """Returns the EXIF orientation whose undoing also mirrors left to right where asked.

    Args:
        orientation: int32, 1 to 8.
        mirror: bool.
    """
    # Orientations come in mirrored pairs: 1 and 2, 3 and 4, 5 and 6, 7 and 8.
    return tf.bitwise.bitwise_xor(orientation - 1, tf.cast(mirror, tf.int32)) + 1


def _resample(image, size, scales, offsets):
    # TensorFlow's kernel is slow along any axis but the first, where it works on whole rows. With
    # two transpositions both passes are along the first: half the time of tf.image.resize.
    height, width, channels = tf.unstack(tf.shape(image))
    rows = _resample_first_axis(tf.reshape(image, [height, -1]), size, scales[0], offsets[0])
    turned = tf.reshape(tf.transpose(rows), [width, channels * size])
    columns = _resample_first_axis(turned, size, scales[1], offsets[1])
    return tf.reshape(columns, [size, 3, size])


def _resample_first_axis(rows, size, scale, offset):
    length, width = tf.unstack(tf.shape(rows))
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(rows, [1, length, 1, width]),
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([-offset, 0.0]),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(resampled, [size, width])
