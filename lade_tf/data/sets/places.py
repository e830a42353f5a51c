"""Places-LT (Liu et al., CVPR 2019): scenes, 365 classes with 4,980 to 5 training images."""

from lade_tf.data.files import image_lists
from lade_tf.data.sets import from_lists
from lade_tf.data.sets.imagenet import MEAN, STD

CLASSES = 365
SIZES = {"train": 62500, "val": 7300, "test": 36500}


def load(data_dir=None, on_bad_image="error", image_size=224):
    """Loads places_lt from the extracted small images (256×256) of Places365.

    `data_dir` holds data_256/ and val_256/, as the archives have them, and Places_LT_train.txt,
    Places_LT_val.txt and Places_LT_test.txt, here or in Places_LT_v2/. tensorflow-datasets'
    places365_small keeps its images inside TFRecords, from which they must be written to files
    first.

    Args:
        data_dir: that folder.
        on_bad_image: "error", or "skip" to leave out what can't be decoded.
        image_size: height and width of what the network sees.

    Returns:
        `FileData` with training, validation and test images.

    Raises:
        ValueError: if a list or an image is missing, or for anything wrong in a list.
    """
    return from_lists.build(
        "places_lt", *read(data_dir), on_bad_image, mean=MEAN, std=STD, jitter=0.4, size=image_size
    )


def read(data_dir):
    """Returns the class names and {split: `ImageList`}, without looking for the images."""
    folder = image_lists.data_folder(
        data_dir, "data_256/, val_256/ and the lists of Places-LT", "places365_small"
    )
    splits = {
        split: image_lists.read_list(
            image_lists.find_file(folder, "Places_LT_v2", f"Places_LT_{split}.txt"), folder
        )
        for split in SIZES
    }
    # data_256/a/arena/hockey/00000001.jpg is of class arena/hockey.
    return image_lists.folder_class_names(splits["train"], skip=2), splits
