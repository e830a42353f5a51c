"""The image operations of AutoAugment and RandAugment on batches, every image its own.

An image takes one operation at a strength in [−1, 1]: its size is the share of the operation's
greatest effect, its sign the direction where there is one. A batch is split by operation, so that
each image is worked on once and a step of a policy costs about one operation.

Meanings follow Pillow, which the published policies were searched and trained with: contrast
blends with the mean grey level, brightness multiplies, shears keep the top left corner.
Interpolation is bilinear and pixels stay float between operations, where Pillow rounds.

keras-cv's layers are other operations: contrast works on each channel, brightness adds, and one
number fills all channels. `keras_layers` has them for those who want them. On images of 32 × 32
pixels, with two operations each, the RandAugment made of the operations here gives 3 to 4 times as
many images a second as keras-cv's, 4 to 6 times as many as the same layer with seeds and 13 to 20
times as many as Keras'; at 224 × 224 it gives as many as keras-cv's. (Measured in turns on two busy
cores, one call at a time.) Only the warping is Keras'.
"""

import keras
import numpy as np
import tensorflow as tf

MAX_SHEAR = 0.3  # pixels a row or column
MAX_SHIFT = 150 / 331  # of the width or height
MAX_ANGLE = np.pi / 6
MAX_ENHANCEMENT = 0.9  # of the difference between the image and what it is blended with
MAX_BITS_LOST = 4


def identity(images, strengths):
    """Leaves the images as they are."""
    del strengths
    return images


def auto_contrast(images, strengths):
    """Stretches every channel to 0..255; a channel of one value stays."""
    del strengths
    low = tf.reduce_min(images, axis=[1, 2], keepdims=True)
    high = tf.reduce_max(images, axis=[1, 2], keepdims=True)
    stretched = (images - low) * tf.math.divide_no_nan(255.0, high - low)
    return tf.where(high > low, stretched, images)


def equalize(images, strengths):
    """Equalises the histogram of every channel with Pillow's integer arithmetic.

    A grey level goes to (pixels darker than it + step // 2) // step, at most 255, where step is
    1/255 of the pixels that are not of the brightest level, rounded down. A channel stays where
    the step is 0: so do images of fewer than 256 pixels.
    """
    del strengths
    shape = tf.shape(images)
    num_histograms = shape[0] * shape[3]
    levels = tf.cast(tf.round(images), tf.int32)
    offsets = tf.reshape(256 * tf.range(num_histograms), [shape[0], 1, 1, shape[3]])
    bins = levels + offsets
    counts = tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, 256 * num_histograms)
    counts = tf.reshape(counts, [num_histograms, 256])
    brightest = tf.reshape(tf.reduce_max(levels, axis=[1, 2]), [num_histograms])
    steps = (shape[1] * shape[2] - tf.gather(counts, brightest, batch_dims=1)) // 255
    divisors = tf.maximum(steps, 1)[:, None]
    table = (tf.cumsum(counts, axis=1, exclusive=True) + divisors // 2) // divisors
    table = tf.where(steps[:, None] > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), bins), tf.float32)


def invert(images, strengths):
    """Turns black into white."""
    del strengths
    return 255.0 - images


def solarize(images, strengths):
    """Inverts pixels of 256·(1 − |strength|) or more."""
    return tf.where(images < 256.0 * (1.0 - _pixelwise(tf.abs(strengths))), images, 255.0 - images)


def posterize(images, strengths):
    """Clears the last 4·|strength| bits of every pixel, rounded to a whole number of bits."""
    steps = 2.0 ** tf.round(MAX_BITS_LOST * _pixelwise(tf.abs(strengths)))
    return tf.floor(images / steps) * steps


def brightness(images, strengths):
    """Multiplies by 1 + 0.9·strength."""
    return _enhance(images, images, strengths)


def contrast(images, strengths):
    """Scales the distance from the image's mean grey level by 1 + 0.9·strength."""
    means = tf.reduce_mean(_grey(images), axis=[1, 2], keepdims=True)
    return _enhance(images, images - means, strengths)


def color(images, strengths):
    """Scales the distance from the grey image by 1 + 0.9·strength."""
    return _enhance(images, images - _grey(images), strengths)


def sharpness(images, strengths):
    """Scales the distance from the smoothed image by 1 + 0.9·strength; the border stays."""
    # Pillow's smoothing kernel weighs the centre 5 and its eight neighbours 1.
    inner = images[:, 1:-1, 1:-1]
    smooth = (9.0 * tf.nn.avg_pool2d(images, 3, 1, "VALID") + 4.0 * inner) / 13.0
    details = tf.pad(inner - smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return _enhance(images, details, strengths)


def shear_x(strengths, height, width):
    """Shifts row y by 0.3·strength·y pixels."""
    del height, width
    return _matrix(strengths, a1=MAX_SHEAR * strengths)


def shear_y(strengths, height, width):
    """Shifts column x by 0.3·strength·x pixels."""
    del height, width
    return _matrix(strengths, b0=MAX_SHEAR * strengths)


def translate_x(strengths, height, width):
    """Shifts by 150/331·strength of the width."""
    del height
    return _matrix(strengths, a2=MAX_SHIFT * width * strengths)


def translate_y(strengths, height, width):
    """Shifts by 150/331·strength of the height."""
    del width
    return _matrix(strengths, b2=MAX_SHIFT * height * strengths)


def rotate(strengths, height, width):
    """Turns by 30·strength degrees around the centre."""
    cosines, sines = tf.cos(MAX_ANGLE * strengths), tf.sin(MAX_ANGLE * strengths)
    x, y = (width - 1) / 2, (height - 1) / 2
    a2, b2 = x - cosines * x + sines * y, y - sines * x - cosines * y
    return _matrix(strengths, a0=cosines, a1=-sines, a2=a2, b0=sines, b1=cosines, b2=b2)


# Functions of images [images, height, width, channels] float32 in 0..255 and strengths [images].
PIXEL_OPS = {
    "identity": identity,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "invert": invert,
    "solarize": solarize,
    "posterize": posterize,
    "brightness": brightness,
    "contrast": contrast,
    "color": color,
    "sharpness": sharpness,
}

# Functions of strengths [images], height and width to matrices [images, 8] for `warp`.
GEOMETRIC_OPS = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
}

OPS = (*PIXEL_OPS, *GEOMETRIC_OPS)


def apply_ops(images, ops, strengths, fill):
    """Applies one operation to each image.

    Args:
        images: [batch, height, width, channels] float32 in 0..255, with 1 or 3 channels.
        ops: [batch] int32, positions in `OPS`.
        strengths: [batch] float32 in −1..1.
        fill: [channels] float32, the pixel that comes in from outside the image.

    Returns:
        [batch, height, width, channels] float32 in 0..255.
    """

    def apply_op(name, rows):
        chosen, chosen_strengths = tf.gather(images, rows), tf.gather(strengths, rows)
        if name in PIXEL_OPS:
            return PIXEL_OPS[name](chosen, chosen_strengths)
        return warp(chosen, GEOMETRIC_OPS[name](chosen_strengths, *images.shape[1:3]), fill)

    rows = tf.dynamic_partition(tf.range(tf.shape(images)[0]), ops, len(OPS))
    changed = [apply_op(name, chosen) for name, chosen in zip(OPS, rows, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(rows, changed), images.shape)


def warp(images, matrices, fill):
    """Moves pixels along one affine map an image, with bilinear interpolation.

    Args:
        images: [images, height, width, channels] float32.
        matrices: [images, 8] float32, (a0, a1, a2, b0, b1, b2, 0, 0): pixel (x, y) of the result
            is pixel (a0·x + a1·y + a2, b0·x + b1·y + b2) of the image.
        fill: [channels] float32, the pixel outside the image.

    Returns:
        [images, height, width, channels] float32.
    """
    # The kernel fills every channel with the same number, so fill becomes that number.
    warped = keras.ops.image.affine_transform(
        images - fill,
        matrices,
        interpolation="bilinear",
        fill_mode="constant",
        fill_value=0.0,
        data_format="channels_last",
    )
    return warped + fill


def cutout(images, rows, columns, size, fill):
    """Covers one square of every image; what of it lies outside the image is lost.

    Args:
        images: [batch, height, width, channels] float32.
        rows: [batch] int32, the row of the square's centre.
        columns: [batch] int32, the column of the square's centre.
        size: pixels on a side of the square.
        fill: [channels] float32, the pixel to cover with.

    Returns:
        [batch, height, width, channels] float32.
    """
    height, width = images.shape[1:3]
    tops, lefts = rows[:, None] - size // 2, columns[:, None] - size // 2
    covered_rows = (tf.range(height) >= tops) & (tf.range(height) < tops + size)
    covered_columns = (tf.range(width) >= lefts) & (tf.range(width) < lefts + size)
    covered = covered_rows[:, :, None] & covered_columns[:, None, :]
    return tf.where(covered[..., None], fill, images)


def _pixelwise(strengths):
    return strengths[:, None, None, None]


def _enhance(images, details, strengths):
    enhanced = images + MAX_ENHANCEMENT * _pixelwise(strengths) * details
    return tf.clip_by_value(enhanced, 0.0, 255.0)


def _grey(images):
    return images if images.shape[3] == 1 else tf.image.rgb_to_grayscale(images)


def _matrix(strengths, a0=1.0, a1=0.0, a2=0.0, b0=0.0, b1=1.0, b2=0.0):
    zeros = tf.zeros_like(strengths)
    return tf.stack([zeros + entry for entry in (a0, a1, a2, b0, b1, b2, 0.0, 0.0)], axis=1)
