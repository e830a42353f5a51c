"""Image files of any format decoded to RGB as Pillow does, and no more of a JPEG than is needed.

The format is recognised by content, never by the file's name: JPEG (colour, grey, CMYK,
progressive), PNG (grey, palette, alpha, 16 bits), GIF (the first frame), BMP (not compressed) and
WebP (not animated). Alpha is dropped, grey is repeated. Of 16 bits the upper 8 stay, unless the
value of white is given: many cameras and scanners write 10 to 14 bits into files of 16.
"""

import functools
import os
import re

import numpy as np
import tensorflow as tf

from lade_tf.data.batch_streams import graph_function
from lade_tf.data.files import bmp, gif, records
from lade_tf.data.files.file_bytes import byte, checked

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
PNG = b"\x89PNG\r\n\x1a\n"
GREY_WEIGHTS = (19595, 38470, 7471)  # of red, green and blue; they sum to 2¹⁶
DEEPEST = 65_535  # the highest value of 16 bits
PNG_BITS = 24  # The byte of a PNG that tells the bits of a channel.
WEBP_FLAGS, WEBP_ANIMATION = 20, 2  # A byte of the extended header, and its bit.


def decode_window(contents, choose_window, target, max_pixel=None):
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
        max_pixel: as of `decode`.

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
        image = _decode_other(contents, max_pixel)
        top, left, height, width = tf.unstack(choose_window(*tf.unstack(tf.shape(image)[:2])))
        return image[top : top + height, left : left + width]

    return tf.cond(tf.io.is_jpeg(contents), jpeg, other)


def decode(contents, max_pixel=None):
    """Decodes a whole image.

    Args:
        contents: scalar string, the file.
        max_pixel: the value of white in PNGs of 16 bits, which becomes 255; None for 65,535, of
            which the upper 8 bits stay. Has no effect on other files.

    Returns:
        [height, width, 3] uint8.

    Raises:
        tf.errors.InvalidArgumentError: if the file is no image, is damaged, or has a pixel above
            `max_pixel`.
    """
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: _decode_other(contents, max_pixel),
    )


def decode_channels(contents, channels, max_pixel=None):
    """Decodes an image for a network that takes `channels` of them, 1, 3 or 4.

    One is Pillow's grey of the colours, (299 R + 587 G + 114 B) / 1000; four are as TensorFlow
    decodes them. The rest is as of `decode`.

    Returns:
        [height, width, channels] uint8.
    """
    if channels not in (1, 3):
        return tf.io.decode_image(contents, channels=channels, expand_animations=False)
    image = decode(contents, max_pixel)
    if channels == 3:
        return image
    weighted = tf.cast(image, tf.int32) * tf.constant(GREY_WEIGHTS)
    grey = tf.bitwise.right_shift(tf.reduce_sum(weighted, -1, keepdims=True) + 2**15, 16)
    return tf.cast(grey, tf.uint8)


def path_tensor(paths):
    """Returns file names as TensorFlow takes them, [files] strings, in the system's encoding."""
    return tf.constant([os.fsencode(path) for path in paths], tf.string)


def find_bad_images(paths, max_pixel=None):
    """Decodes every file and says which ones can't be.

    Args:
        paths: names of files or places in TFRecords.
        max_pixel: as of `decode`.

    Returns:
        [(path, reason)], in the order of `paths`.
    """
    names = path_tensor(paths)

    @graph_function
    def try_file(position):
        # The size is returned because TensorFlow would leave out a decoding without a use.
        return position, tf.size(_decode_whole(names[position], max_pixel))

    good = tf.data.Dataset.range(len(paths)).map(try_file, PARALLEL_FILES, deterministic=False)
    good = good.ignore_errors().batch(1024)
    found = np.zeros(len(paths), bool)
    for positions, _ in good.as_numpy_iterator():
        found[positions] = True
    return [
        (paths[position], bad_image_reason(paths[position], max_pixel))
        for position in np.flatnonzero(~found)
    ]


def highest_of_16_bits(paths):
    """Returns {path: highest value but of alpha} of those files that are PNGs of 16 bits.

    Args:
        paths: names of files or places in TFRecords; what can't be read is left out.
    """
    deep = [path for path in paths if _has_16_bits(path)]
    names = path_tensor(deep)

    @graph_function
    def highest(position):
        # Three channels, whatever there are: without alpha.
        image = tf.io.decode_png(records.read(names[position]), channels=3, dtype=tf.uint16)
        return position, tf.reduce_max(tf.cast(image, tf.int32))

    found = tf.data.Dataset.range(len(deep)).map(highest, PARALLEL_FILES, deterministic=False)
    values = dict(map(tuple, found.ignore_errors().as_numpy_iterator())) if deep else {}
    return {path: int(values[index]) for index, path in enumerate(deep) if index in values}


def _has_16_bits(path):
    try:
        with records.open_image(path) as file:
            header = file.read(PNG_BITS + 1)
    except Exception:  # a bad image is reported when it is decoded
        return False
    return header.startswith(PNG) and header[PNG_BITS:] == b"\x10"


def bad_image_reason(path, max_pixel=None):
    """Returns why a file can't be decoded, mostly in TensorFlow's words."""
    try:
        _decode_whole(os.fsencode(path), max_pixel)
    except tf.errors.NotFoundError:
        return "no such file"
    except tf.errors.OpError as error:
        # Of an assertion only what it says.
        message = re.sub(r".*assertion failed: \[(.*?)\].*", r"\1", error.message, flags=re.DOTALL)
        return re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", message)
    if max_pixel is None and _has_16_bits(path):
        return "an image of 16 bits with values above max_pixel"
    return "could not be decoded, but can be now"


def _decode_whole(path, max_pixel):
    contents = records.read(path)
    # At 1/8 of its size a JPEG is read as thoroughly, in 2/3 of the time and little memory.
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, ratio=JPEG_RATIOS[-1]),
        lambda: _decode_other(contents, max_pixel),
    )


def _jpeg_window(contents, window, ratio):
    # The fast transform, TensorFlow's default, saves less than 1 % and puts the result 1.1 of 255
    # off. Plain upsampling of colours, `fancy_upscaling=False`, saves no more.
    return tf.io.decode_and_crop_jpeg(
        contents, window // ratio, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
    )


def _decode_other(contents, max_pixel):
    """Decodes what isn't a JPEG, [height, width, 3] uint8."""
    return tf.ensure_shape(_decoder(max_pixel)(contents), [None, None, 3])


@functools.cache
def _decoder(max_pixel):
    """Returns `_decode_any` as one node of the graph that calls it, traced once.

    Inlined, its hundreds of nodes would be passed over one by one for each JPEG.
    """
    return tf.function(
        lambda contents: _decode_any(contents, max_pixel),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def _decode_any(contents, max_pixel):
    formats = [
        (bmp.is_bmp(contents), lambda: bmp.decode(contents)),
        (gif.is_gif(contents), lambda: _by_tensorflow(gif.opaque(contents))),
        (_is_webp(contents), lambda: _webp(contents)),
    ]
    if max_pixel is not None:
        formats.append((_is_deep_png(contents), lambda: _deep_png(contents, max_pixel)))
    return tf.case(formats, default=lambda: _by_tensorflow(contents))


def _by_tensorflow(contents):
    return tf.io.decode_image(contents, channels=3, expand_animations=False)


def _is_webp(contents):
    kind = tf.strings.substr(contents + " " * 12, 8, 4)
    return (tf.strings.substr(contents, 0, 4) == "RIFF") & (kind == "WEBP")


def _webp(contents):
    # TensorFlow's decoder writes beyond its memory when it is asked for a frame of an animation.
    is_extended = tf.strings.substr(contents + " " * 16, 12, 4) == "VP8X"
    animated = is_extended & (byte(contents, WEBP_FLAGS) & WEBP_ANIMATION > 0)
    contents = checked(contents, (~animated, "an animated WebP"))
    # It gives the channels that there are, 3 or 4, and no others.
    return tf.io.decode_image(contents, channels=0, expand_animations=False)[..., :3]


def _is_deep_png(contents):
    return (tf.strings.substr(contents, 0, len(PNG)) == PNG) & (byte(contents, PNG_BITS) == 16)


def _deep_png(contents, max_pixel):
    image = tf.cast(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), tf.int32)
    above = f"an image of 16 bits with values above max_pixel={max_pixel}"
    image = checked(image, (tf.reduce_max(image) <= max_pixel, above))
    return tf.cast((255 * image + max_pixel // 2) // max_pixel, tf.uint8)
