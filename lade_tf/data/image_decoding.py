"""Image files of any format decoded to RGB, and no more of a JPEG than is needed.

The format is recognised by content, never by the file's name: JPEG (colour, grey, CMYK,
progressive), PNG (grey, palette, alpha, 16 bits), GIF (the first frame), BMP (24 or 32 bits) and
WebP (not animated). Alpha is dropped, grey is repeated, of 16 bits the upper 8 stay. A BMP with a
palette is refused: TensorFlow would take its indices for grey levels.
"""

import os
import re

import numpy as np
import tensorflow as tf

from lade_tf.data import records
from lade_tf.data.streams import graph_function

# Files that are decoded at the same time, one on each core that this process may use: decoding
# keeps a core busy, and each may hold a large image.
PARALLEL_FILES = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size for less than the whole; a pixel then is about
# the mean of a block. Twice the size of the result, as in Pillow's `reducing_gap`, leaves the
# antialiasing to the resampling: 1,200 × 1,600 pixels at 224 change by 0.4 of 255 in the mean. With
# a gap of 1, 29 photographs of 448 to 895 pixels changed by 1.4.
JPEG_RATIOS = (1, 2, 4, 8)
REDUCING_GAP = 2
BMP_BITS = 28  # The byte of a BMP that tells the bits of a pixel.


def decode_window(contents, choose_window, target):
    """Decodes a part of an image, at reduced size where that is enough.

    Of a JPEG, rows below the part aren't read and the other pixels outside it aren't computed. If
    its shorter side has 2·r·`target` pixels or more, r = 2, 4 or 8, it comes at 1/r of its size,
    the edges rounded down to multiples of r; memory stays small however large the image. Other
    formats are decoded as a whole: a PNG of 10,000 × 10,000 takes 300 MB for a moment.

    Args:
        contents: scalar string, the file.
        choose_window: function of height and width, scalar int32, that returns the part as [4]
            int32 (top, left, height, width).
        target: pixels on a side that the part will be resized to.

    Returns:
        [height, width, 3] uint8.

    Raises:
        tf.errors.InvalidArgumentError: if the file is no image or is damaged. Damage of a JPEG
            below the part goes unnoticed.
    """

    def jpeg():
        shape = tf.io.extract_jpeg_shape(contents)
        window = choose_window(shape[0], shape[1])
        enough = [REDUCING_GAP * target * ratio for ratio in JPEG_RATIOS[1:]]
        position = tf.math.count_nonzero(tf.reduce_min(window[2:]) >= enough, dtype=tf.int32)
        branches = [
            lambda ratio=ratio: _jpeg_window(contents, window, ratio) for ratio in JPEG_RATIOS
        ]
        return tf.switch_case(position, branches)

    def other():
        image = _decode_other(contents)
        top, left, height, width = tf.unstack(choose_window(*tf.unstack(tf.shape(image)[:2])))
        return image[top : top + height, left : left + width]

    return tf.cond(tf.io.is_jpeg(contents), jpeg, other)


def path_tensor(paths):
    """Returns file names as TensorFlow takes them, [files] strings, in the system's encoding."""
    return tf.constant([os.fsencode(path) for path in paths], tf.string)


def find_bad_images(paths):
    """Decodes every file and says which ones can't be.

    Args:
        paths: names of files or places in TFRecords.

    Returns:
        [(path, reason)], in the order of `paths`.
    """
    names = path_tensor(paths)

    @graph_function
    def try_file(position):
        # The size is returned because TensorFlow would leave out a decoding without a use.
        return position, tf.size(_decode_whole(names[position]))

    good = tf.data.Dataset.range(len(paths)).map(try_file, PARALLEL_FILES, deterministic=False)
    good = good.ignore_errors().batch(1024)
    found = np.zeros(len(paths), bool)
    for positions, _ in good.as_numpy_iterator():
        found[positions] = True
    return [
        (paths[position], bad_image_reason(paths[position])) for position in np.flatnonzero(~found)
    ]


def bad_image_reason(path):
    """Returns why a file can't be decoded, mostly in TensorFlow's words."""
    try:
        _decode_whole(os.fsencode(path))
    except tf.errors.NotFoundError:
        return "no such file"
    except tf.errors.OpError as error:
        # Of an assertion only what it says.
        message = re.sub(r".*Summarized data: b'(.*)'", r"\1", error.message, flags=re.DOTALL)
        return re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", message)
    return "could not be decoded, but can be now"


def _decode_whole(path):
    contents = records.read(path)
    # At 1/8 of its size a JPEG is read as thoroughly, in 2/3 of the time and little memory.
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, ratio=JPEG_RATIOS[-1]),
        lambda: _decode_other(contents),
    )


def _jpeg_window(contents, window, ratio):
    # The fast transform, TensorFlow's default, saves less than 1 % and puts the result 1.1 of 255
    # off. Plain upsampling of colours, `fancy_upscaling=False`, saves no more.
    return tf.io.decode_and_crop_jpeg(
        contents, window // ratio, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
    )


def _decode_other(contents):
    is_bmp = tf.strings.substr(contents, 0, 2) == "BM"
    has_palette = is_bmp & (_byte(contents, BMP_BITS) <= 8)
    with tf.control_dependencies([tf.debugging.Assert(~has_palette, ["a BMP with a palette"])]):
        contents = tf.identity(contents)
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _byte(contents, position):
    """Returns a byte of a string as an integer, 0 beyond its end."""
    padded = tf.strings.substr(contents, 0, position + 1) + "\0" * (position + 1)
    return tf.cast(tf.io.decode_raw(padded, tf.uint8)[position], tf.int32)
