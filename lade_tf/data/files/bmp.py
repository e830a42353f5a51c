"""BMP files decoded in a graph, every layout that isn't compressed.

TensorFlow's own decoder takes the indices of a palette for grey levels, knows no 16 bits and, of
32 bits, only channels in the order BGRA, whatever masks the file gives. Layouts, and how 5 and 6
bits become 8, are those of Pillow; of other masks than Pillow's, those are read whose meaning is
plain.
"""

import tensorflow as tf

from lade_tf.data.files.file_bytes import checked, read

CORE_HEADER = 12  # OS/2's, with sizes of 16 bits and palettes of 3 bytes an entry
HEADERS = (CORE_HEADER, 40, 52, 56, 64, 108, 124)
FILE_HEADER = 14
HEADER_BYTES = FILE_HEADER + max(HEADERS)
PALETTE_BITS = (1, 4, 8)
COLOR_BITS = (16, 24, 32)
PLAIN, MASKS = 0, 3  # of the field "compression"
MASKS_AT = 54  # behind a header of 40 bytes, inside of longer ones
DEFAULT_MASKS = {
    16: (0x7C00, 0x3E0, 0x1F),
    24: (0xFF0000, 0xFF00, 0xFF),
    32: (0xFF0000, 0xFF00, 0xFF),
}


def is_bmp(contents):
    """Returns whether a file, scalar string, is a BMP."""
    return tf.strings.substr(contents, 0, 2) == "BM"


def decode(contents):
    """Decodes a BMP: 1, 4 or 8 bits with a palette, or 16, 24 or 32 bits; alpha is dropped.

    Args:
        contents: scalar string, the file.

    Returns:
        [height, width, 3] uint8.

    Raises:
        tf.errors.InvalidArgumentError: if it is damaged, compressed (RLE), or its channels aren't
            whole bytes of 24 or 32 bits, or consecutive bits of 16.
    """
    header = read(contents, 0, HEADER_BYTES)
    header_size, offset = _number(header, FILE_HEADER, 4), _number(header, 10, 4)
    is_core = header_size == CORE_HEADER

    def field(core, other):
        """Reads a field of 2 bytes in the short header and of `other`[1] bytes in the others."""
        short = _number(header, core, 2) if core else tf.constant(0, tf.int64)
        return tf.where(is_core, short, _number(header, *other))

    width, height = field(18, (18, 4)), field(20, (22, 4))
    bits, compression, colors = field(24, (28, 2)), field(None, (30, 4)), field(None, (46, 4))
    # A negative height, of 32 bits with a sign, means that the first row is the upper one.
    from_top = ~is_core & (header[25] == 0xFF)
    height = tf.where(from_top, 2**32 - height, height)
    has_palette = _is_one_of(bits, PALETTE_BITS)
    colors = tf.where(
        has_palette & (colors == 0), tf.bitwise.left_shift(tf.ones_like(bits), bits % 16), colors
    )
    entry = tf.where(is_core, 3, 4)
    palette_at = FILE_HEADER + header_size
    palette_end = palette_at + tf.where(has_palette, colors * tf.cast(entry, tf.int64), 0)
    offset = tf.where(offset <= tf.where(has_palette, palette_at, 0), palette_end, offset)
    stride = (width * bits + 31) // 32 * 4
    used = (width * bits + 7) // 8  # the padding of the last row may be missing
    size = tf.cast(tf.strings.length(contents), tf.int64)
    is_compressed = (compression != PLAIN) & ~((compression == MASKS) & ~has_palette)
    contents = checked(
        contents,
        (_is_one_of(header_size, HEADERS), "a BMP with an unknown header"),
        (_is_one_of(bits, PALETTE_BITS + COLOR_BITS), "a BMP with an unknown number of bits"),
        (~is_compressed, "a compressed BMP (RLE)"),
        ((width > 0) & (height > 0), "a BMP without pixels"),
        # The first two so that nothing overflows in the third.
        ((width <= 8 * size) & (height <= 8 * size), "a BMP that is cut short"),
        (offset + stride * (height - 1) + used <= size, "a BMP that is cut short"),
    )
    rows = tf.reshape(read(contents, offset, stride * height), tf.stack([height, stride]))
    masks = _masks(header, bits, compression == MASKS)

    def indexed(bits):
        def of_layout():
            palette = read(contents, palette_at, tf.minimum(colors, 256) * tf.cast(entry, tf.int64))
            palette = tf.reshape(palette, tf.stack([-1, entry]))[:, 2::-1]
            palette = tf.pad(palette, [[0, 256 - tf.shape(palette)[0]], [0, 0]])
            shifts = tf.range(8 - bits, -1, -bits)
            indices = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts)
            indices = tf.bitwise.bitwise_and(indices, 2**bits - 1)
            indices = tf.reshape(indices, tf.stack([height, stride * (8 // bits)]))[:, :width]
            return tf.gather(palette, indices)

        return of_layout

    def whole_bytes(bits):
        def of_layout():
            size = bits // 8
            positions = tf.stack([_byte_of(mask, size) for mask in masks])
            whole = tf.reduce_all(positions >= 0)
            kept = checked(rows, (whole, "a BMP with channel masks that are not whole bytes"))
            pixels = tf.reshape(kept[:, : width * size], tf.stack([height, width, size]))
            return tf.gather(pixels, positions, axis=2)

        return of_layout

    def packed():
        pairs = tf.cast(tf.reshape(rows[:, : 2 * width], tf.stack([height, width, 2])), tf.int32)
        pixels = pairs[..., 0] + 256 * pairs[..., 1]
        return tf.stack([_channel(pixels, mask) for mask in masks], axis=2)

    readers = [*map(indexed, PALETTE_BITS), packed, whole_bytes(24), whole_bytes(32)]
    kind = tf.argmax(tf.constant(PALETTE_BITS + COLOR_BITS, tf.int64) == bits, output_type=tf.int32)
    image = tf.switch_case(kind, readers)
    return tf.cond(from_top, lambda: image, lambda: tf.reverse(image, [0]))


def _is_one_of(value, choices):
    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def _number(header, position, size):
    """Returns an unsigned number of `size` bytes, the lowest first, int64."""
    parts = tf.cast(header[position : position + size], tf.int64)
    return tf.reduce_sum(parts * tf.constant([256**place for place in range(size)], tf.int64))


def _masks(header, bits, given):
    """Returns the masks of red, green and blue, three int64 scalars."""
    own = [_number(header, MASKS_AT + 4 * channel, 4) for channel in range(3)]
    row = tf.argmax(tf.constant([*DEFAULT_MASKS], tf.int64) == bits)
    default = tf.unstack(tf.constant([*DEFAULT_MASKS.values()], tf.int64)[row])
    given &= tf.reduce_any(tf.stack(own) != 0)
    return [tf.where(given, *pair) for pair in zip(own, default, strict=True)]


def _byte_of(mask, size):
    """Returns which byte of a pixel a mask selects, −1 if it isn't one whole byte."""
    matches = mask == tf.constant([0xFF << (8 * place) for place in range(size)], tf.int64)
    return tf.where(tf.reduce_any(matches), tf.argmax(matches, output_type=tf.int32), -1)


def _channel(pixels, mask):
    """Returns the channel that a mask of consecutive bits selects, spread over 0 to 255."""
    mask = tf.cast(mask, tf.int32)
    lowest = tf.bitwise.bitwise_and(mask, -mask)
    highest = mask // tf.maximum(lowest, 1)
    is_run = (mask > 0) & (tf.bitwise.bitwise_and(highest, highest + 1) == 0) & (highest < 256)
    mask = checked(mask, (is_run, "a BMP with channel masks that are not consecutive bits"))
    values = tf.bitwise.bitwise_and(pixels, mask) // lowest
    return tf.cast(values * 255 // highest, tf.uint8)
