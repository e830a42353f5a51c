"""ImageNet-LT (Liu et al., CVPR 2019): 1,000 classes with 1,280 to 5 training images."""

import dataclasses
import os

from lade_tf.data.files import image_lists, records
from lade_tf.data.sets import from_lists

CLASSES = 1000
SIZES = {"train": 115846, "val": 20000, "test": 50000}
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def load(data_dir=None, on_bad_image="error", image_size=224):
    """Loads imagenet_lt from the extracted ImageNet (ILSVRC 2012).

    `data_dir` holds train/WNID/*.JPEG, val/ (its images side by side or in a folder for each WNID,
    whatever the list says) and ImageNet_LT_train.txt, ImageNet_LT_val.txt and
    ImageNet_LT_test.txt, here or in ImageNet_LT/. ImageNet-LT's validation images come from train/,
    its test images from val/. tensorflow-datasets' imagenet_lt keeps its images inside TFRecords,
    from which they must be written to files first.

    Args:
        data_dir: that folder.
        on_bad_image: "error", or "skip" to leave out what can't be decoded.
        image_size: height and width of what the network sees.

    Returns:
        `FileData` with training, validation and test images; classes are named by WNID.

    Raises:
        ValueError: if a list or an image is missing, or for anything wrong in a list.
    """
    return from_lists.build(
        "imagenet_lt",
        *read(data_dir),
        on_bad_image,
        mean=MEAN,
        std=STD,
        jitter=0.4,
        size=image_size,
    )


def read(data_dir):
    """Returns the class names and {split: `ImageList`}, without looking for the training images."""
    folder = image_lists.data_folder(
        data_dir, "train/, val/ and the lists of ImageNet-LT", "imagenet_lt"
    )
    splits = {
        split: image_lists.read_list(
            image_lists.find_file(folder, "ImageNet_LT", f"ImageNet_LT_{split}.txt"), folder
        )
        for split in SIZES
    }
    class_names = image_lists.folder_class_names(splits["train"], skip=1)
    return class_names, {**splits, "test": _as_laid_out(splits["test"], class_names)}


def _as_laid_out(test, class_names):
    """Returns `test` with the paths on disk: as listed, side by side, or in a folder a class."""
    names = [os.path.basename(path) for path in test.paths]
    wnids = dict(enumerate(class_names))
    side_by_side = [os.path.join("val", name) for name in names]
    by_class = [
        os.path.join("val", wnids.get(label, ""), name)
        for label, name in zip(test.labels.tolist(), names, strict=True)
    ]
    for paths in (test.paths, side_by_side, by_class):
        laid_out = dataclasses.replace(test, paths=tuple(paths))
        if records.exists(laid_out.files[0]):
            return laid_out
    return test
