"""Which way up a camera held its sensor."""

import numpy as np
from PIL import Image

from lade_tf.data.files import records

ORIENTATION = 0x0112  # The number of the tag.
UPRIGHT = 1


def orientations(files):
    """Reads the EXIF orientation of images from their headers; pixels aren't decoded.

    About 0.1 ms an image.

    Args:
        files: names of files or places in TFRecords.

    Returns:
        [files] uint8, 1 to 8; 1, upright, where there is none, it isn't one of these or the file
        can't be read.
    """
    # Pillow refuses large images, but none is decoded here.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return np.array([_orientation(file) for file in files], np.uint8)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _orientation(file):
    try:
        with records.open_image(str(file)) as content, Image.open(content) as image:
            # Without this, Pillow decodes a whole PNG in search of it.
            if "exif" not in image.info:
                return UPRIGHT
            value = image.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # Pillow raises anything; a bad image is reported when it is decoded.
        return UPRIGHT
    return value if value in range(1, 9) else UPRIGHT
