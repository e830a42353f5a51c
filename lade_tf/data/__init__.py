"""Long-tailed image data sets; `load` knows them by name."""

from lade_tf.data.augmentation.policies import AUGMENTATIONS
from lade_tf.data.file_data import FileData, FileSplit
from lade_tf.data.image_data import ImageData, Split
from lade_tf.data.samplers import SAMPLERS, class_probabilities
from lade_tf.data.sets import NAMES, ON_BAD_IMAGE, load

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "ON_BAD_IMAGE",
    "SAMPLERS",
    "FileData",
    "FileSplit",
    "ImageData",
    "Split",
    "class_probabilities",
    "load",
]
