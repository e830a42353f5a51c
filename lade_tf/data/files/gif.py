"""What TensorFlow's GIF decoder needs to see the colours that Pillow sees."""

import tensorflow as tf

from lade_tf.data.files.file_bytes import byte

COLORS, HEADER_BYTES = 10, 13  # the byte that tells the global palette, and the first one after it
EXTENSION, GRAPHIC_CONTROL = 0x21, 0xF9
BYTES = tuple(bytes([value]) for value in range(256))


def is_gif(contents):
    """Returns whether a file, scalar string, is a GIF."""
    return tf.strings.substr(contents, 0, 4) == "GIF8"


def opaque(contents):
    """Returns a GIF without the transparency of its first frame, scalar string.

    TensorFlow makes transparent pixels black; their colour in the palette is what remains where
    alpha is dropped, as it is from every other format.
    """
    palette = byte(contents, COLORS)
    has_palette = tf.cast(palette >= 128, tf.int32)
    start = HEADER_BYTES + has_palette * 3 * tf.bitwise.left_shift(2, palette % 8)

    def is_extension(position, _):
        return byte(contents, position) == EXTENSION

    def skip(position, flags):
        """Goes to the next block; notes where the flags of a graphic control extension lie."""
        is_control = byte(contents, position + 1) == GRAPHIC_CONTROL
        end = tf.while_loop(
            lambda part: byte(contents, part) > 0,
            lambda part: (part + 1 + byte(contents, part),),
            [position + 2],
        )
        return end[0] + 1, tf.where(is_control, position + 3, flags)

    _, flags = tf.while_loop(is_extension, skip, [start, 0])

    def without_transparency():
        changed = tf.gather(tf.constant(BYTES), byte(contents, flags) // 2 * 2)
        before = tf.strings.substr(contents, 0, flags)
        return (
            before + changed + tf.strings.substr(contents, flags + 1, tf.strings.length(contents))
        )

    return tf.cond(flags > 0, without_transparency, lambda: contents)
