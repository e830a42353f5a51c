"""A user's own images: a folder with one subfolder for each class, or CSVs of path,label."""

import os

from lade_tf.data import exif, image_lists
from lade_tf.data.small_images import in_memory

SPLITS = ("train", "val", "test")
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp")
# ImageNet's statistics.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LARGEST_IN_MEMORY = 64


def load(data_dir=None, on_bad_image="error", image_size=224):
    """Loads a user's own images.

    Either `data_dir` holds train/CLASS/*, val/CLASS/* and test/CLASS/*, or, if there is a
    train.csv, the lists train.csv, val.csv and test.csv with the header path,label; paths are
    relative to `data_dir`, labels are names of classes. A test set or a validation set is needed
    beside the training set. Without a test set the validation set is the test set, and there is no
    validation set.

    Classes are those of the training set, sorted by name as text ("10" comes before "2"). Files
    with other endings than `ENDINGS` and hidden files aren't images. EXIF orientations are undone.
    Mean, standard deviation and colour jitter are those of Places-LT. Small images are decoded
    once, kept in memory and augmented as CIFAR's are.

    Args:
        data_dir: that folder.
        on_bad_image: "error", or "skip" to leave out what can't be decoded.
        image_size: height and width of what the network sees.

    Returns:
        `FileData`, or `ImageData` for an image_size of at most `LARGEST_IN_MEMORY`.

    Raises:
        ValueError: if a part is missing, a class has no image, a class of the validation or test
            set has no training images, or for anything wrong in a CSV.
    """
    data = image_lists.build(
        "folder",
        *read(data_dir),
        on_bad_image,
        orientations=exif.orientations,
        mean=MEAN,
        std=STD,
        jitter=0.4,
        size=image_size,
    )
    return in_memory(data) if image_size <= LARGEST_IN_MEMORY else data


def read(data_dir):
    """Returns the class names and {split: `ImageList`}."""
    folder = image_lists.data_folder(data_dir, "train/ and test/, or train.csv and test.csv")
    uses_csv = (folder / "train.csv").exists()
    sources = {split: folder / f"{split}{'.csv' if uses_csv else ''}" for split in SPLITS}
    sources = {split: source for split, source in sources.items() if source.exists()}
    if "train" not in sources or len(sources) == 1:
        raise ValueError(
            f"data_dir={folder} must hold train/ and test/ (or val/), each with a subfolder of "
            "images for each class, or train.csv and test.csv (or val.csv) with the header "
            f"path,label; got only {', '.join(s.name for s in sources.values()) or 'other things'}"
        )
    read_split = image_lists.read_csv if uses_csv else _read_folder
    rows = {split: read_split(source) for split, source in sources.items()}
    class_names = tuple(sorted(set(rows["train"][1])))
    splits = {
        split: image_lists.image_list(
            sources[split], folder, paths, _labels(names, class_names, sources[split])
        )
        for split, (paths, names) in rows.items()
    }
    if "test" not in splits:
        splits["test"] = splits.pop("val")
    return class_names, splits


def _labels(names, class_names, source):
    labels = {name: label for label, name in enumerate(class_names)}
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise ValueError(
            f"{source} must have classes of the training set only; got {unknown[0]!r}, "
            "which has no training image"
        )
    return [labels[name] for name in names]


def _read_folder(path):
    """Finds the images below each subfolder of a split.

    Returns:
        paths relative to the data set's folder, class names: one entry for each image.
    """
    paths, names = [], []
    for class_folder in sorted(entry for entry in path.iterdir() if _is_class(entry)):
        images = image_files(class_folder)
        if not images:
            raise ValueError(
                f"{class_folder} must hold an image ({', '.join(ENDINGS)}); got none: a class "
                "needs one, and a folder that isn't a class doesn't belong here"
            )
        paths += [os.path.relpath(image, path.parent) for image in images]
        names += [class_folder.name] * len(images)
    if not paths:
        raise ValueError(f"{path} must hold a subfolder of images for each class; got none")
    return paths, names


def _is_class(entry):
    return entry.is_dir() and not entry.name.startswith(".")


def image_files(folder):
    """Returns the image files of any depth below a folder, sorted, without hidden ones."""
    return [file for file in _files(folder) if file.lower().endswith(ENDINGS)]


def ignored(data_dir):
    """Returns the files that `read` passes over, hidden ones aside, because of their endings.

    Args:
        data_dir: the data set's folder, with train/, val/ and test/ and no train.csv.
    """
    splits = (os.path.join(data_dir, split) for split in SPLITS)
    return [
        file for split in splits for file in _files(split) if not file.lower().endswith(ENDINGS)
    ]


def _files(folder):
    """Files of any depth below a folder, sorted, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)
