"""Lists of image files: reading them, checking them, and making a data set of them."""

import collections
import csv
import dataclasses
import functools
import io
import os
import pathlib

import numpy as np

from lade_tf.checks import check_choice
from lade_tf.data import records
from lade_tf.data.file_data import FileData, FileSplit
from lade_tf.data.image_decoding import find_bad_images

ON_BAD_IMAGE = ("error", "skip")
SHOWN = 3  # A message names so many of what may be thousands.
MAX_DIGITS = 9  # A label is an int32.


@dataclasses.dataclass(frozen=True, eq=False)
class ImageList:
    """The images of a split, as a list or a folder tells them; `image_list` makes one.

    Attributes:
        source: the list or folder, for messages.
        folder: absolute folder of the data set.
        paths: file names relative to `folder`.
        labels: [files] int32, not negative.
    """

    source: str
    folder: str
    paths: tuple[str, ...]
    labels: np.ndarray

    @functools.cached_property
    def files(self):
        """Absolute file names; of images in TFRecords their places there."""
        places = records.read_index(self.folder)
        return tuple(places.get(path) or os.path.join(self.folder, path) for path in self.paths)


def image_list(source, folder, paths, labels):
    """Returns an `ImageList` whose paths can't lead out of its folder.

    A symbolic link inside the folder may point anywhere: whoever put it there meant it.

    Raises:
        ValueError: for no path at all, or one that is absolute or has a part "..".
    """
    if not paths:
        raise ValueError(f"{source} must name at least one image; got none")
    for path in paths:
        if os.path.isabs(path) or ".." in path.replace(os.sep, "/").split("/"):
            raise ValueError(
                f"{source} must name files inside {folder}; got {path!r}, which may lead out of it"
            )
    paths = tuple(os.path.normpath(path) for path in paths)
    return ImageList(
        str(source), os.path.abspath(folder), paths, np.fromiter(labels, np.int32, len(paths))
    )


def read_list(path, folder):
    """Reads a list with a line "path label" for each image, as ImageNet-LT and Places-LT have them.

    Args:
        path: the list, UTF-8 text; labels are integers, empty lines are skipped.
        folder: what the paths in it are relative to.

    Returns:
        An `ImageList`.

    Raises:
        ValueError: if the file is missing or isn't text, for a line of another form, or as
            `image_list`.
    """
    paths, labels = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not (name and label.isdecimal() and len(label) <= MAX_DIGITS):
            raise ValueError(f"{path}, line {number}, must be 'path label'; got {line[:200]!r}")
        paths.append(name.strip())
        labels.append(int(label))
    return image_list(path, folder, paths, labels)


def read_csv(path):
    """Reads a CSV with the columns path and label; a label is the name of a class.

    Args:
        path: the CSV, UTF-8 text with a header; further columns are ignored.

    Returns:
        paths, class names: two lists of strings, one entry for each row.

    Raises:
        ValueError: if the file is missing or isn't text, lacks a column, or has a row without one
            of the two.
    """
    text = io.StringIO(read_text(path), newline="")
    rows = csv.DictReader(text, skipinitialspace=True, strict=True)
    try:
        return _columns(path, rows)
    except csv.Error as error:
        line = rows.reader.line_num
        raise ValueError(f"{path} can't be read as a CSV at line {line}: {error}") from error


def _columns(path, rows):
    """Returns the columns path and label of a `csv.DictReader`."""
    if not {"path", "label"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path} must start with the header path,label; got {rows.fieldnames}")
    paths, names = [], []
    for row in rows:
        name, label = ((row[column] or "").strip() for column in ("path", "label"))
        if not (name and label) or None in row:  # None holds what is beyond the header.
            raise ValueError(
                f"{path}, line {rows.line_num}, must have a path, a label and no more than the "
                f"header; got {list(row.values())}"
            )
        paths.append(name)
        names.append(label)
    return paths, names


def read_text(path):
    """Returns the text of an existing UTF-8 file, with or without byte-order mark.

    Raises:
        ValueError: if there is no such file or it isn't UTF-8.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error


def data_folder(data_dir, content, tfds_name=None):
    """Returns `data_dir` as a path.

    Args:
        data_dir: an existing folder.
        content: what should lie in it, for messages.
        tfds_name: tensorflow-datasets' name of the set, or None.

    Raises:
        ValueError: if there is no such folder, or tensorflow-datasets prepared it.
    """
    if data_dir is None:
        raise ValueError(f"data_dir must be the folder that holds {content}; got None")
    folder = pathlib.Path(data_dir).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data_dir must be an existing folder; got {str(data_dir)!r}")
    if tfds_name and any(folder.glob(f"{tfds_name}/*/dataset_info.json")):
        raise ValueError(
            f"data_dir must be a folder of image files: {content}; got {folder}, where "
            f"tensorflow-datasets keeps {tfds_name} inside TFRecords (experiments/prepare.py "
            "--unpack makes files of them)"
        )
    return folder


def find_file(folder, subfolder, name):
    """Returns the path of a list that lies in `folder/subfolder` or in `folder` itself."""
    below = folder / subfolder / name
    return below if below.exists() else folder / name


def folder_class_names(train, skip):
    """Names each class after the folder of its training images.

    Args:
        train: the training `ImageList`.
        skip: how many leading parts of a path don't belong to the name.

    Returns:
        One name a class, in label order.

    Raises:
        ValueError: as `check_training_classes`; if a class has two folders, or two share one.
    """
    check_training_classes(train, 1 + int(train.labels.max()))
    folders = ("/".join(path.split(os.sep)[skip:-1]) for path in train.paths)
    pairs = sorted(set(zip(train.labels.tolist(), folders, strict=True)))
    labels = collections.Counter(label for label, _ in pairs)
    names = collections.Counter(name for _, name in pairs)
    for label, name in pairs:
        if labels[label] > 1 or names[name] > 1:
            raise ValueError(
                f"{train.source} must have one folder for each label and one label for each "
                f"folder; it isn't so with label {label}, folder {name!r}"
            )
    return tuple(name for _, name in pairs)


def check_training_classes(train, num_classes):
    """Raises a ValueError unless every class 0..`num_classes` − 1 has a training image."""
    present = np.unique(train.labels)
    if len(present) < num_classes:
        # The first label that isn't where it would be without gaps.
        gap = int(np.append(present != np.arange(len(present)), True).argmax())
        raise ValueError(
            f"{train.source} must have an image of every class 0 to {num_classes - 1}; "
            f"got none of class {gap}"
        )


def find_problems(splits, num_classes):
    """Checks labels, duplicates within and across splits, and that every file is there.

    Args:
        splits: {split: `ImageList`}.
        num_classes: labels must be below this.

    Returns:
        A list of sentences, empty if all is well.
    """
    problems = []
    seen = {}
    for images in splits.values():
        outside = np.flatnonzero(images.labels >= num_classes)
        if outside.size:
            first = outside[0]
            problems.append(
                f"{images.source} must have labels 0 to {num_classes - 1}, those of the training "
                f"images; got {images.labels[first]} for {images.paths[first]!r}"
            )
        twice = []
        for path in images.paths:
            if path in seen:
                twice.append(f"{path} (also in {seen[path]})")
            seen[path] = images.source
        if twice:
            problems.append(f"{images.source} names images a second time: {_few(twice)}")
        missing = [
            path
            for path, file in zip(images.paths, images.files, strict=True)
            if not records.exists(file)
        ]
        if missing:
            problems.append(
                f"{len(missing):,} of the {len(images.paths):,} images of {images.source} are "
                f"missing in {images.folder}: {_few(missing)}"
            )
    return problems


def undecodable(splits):
    """Decodes every image; returns [(file or place, reason)] of those that can't be."""
    return find_bad_images([file for images in splits.values() for file in images.files])


def build(name, class_names, splits, on_bad_image, orientations=None, **recipe):
    """Checks the splits and makes a data set of them.

    Args:
        name: what `lade_tf.data.load` knows it by.
        class_names: one name a class, in label order.
        splits: {"train", "val", "test": `ImageList`}; of the last two one may be absent. Without
            a test set the validation set is both.
        on_bad_image: "error" leaves bad images to whoever reads them; "skip" decodes every image
            now and leaves out those that can't be.
        orientations: function of file names that gives their EXIF orientations, or None.
        **recipe: the other arguments of `FileData`.

    Returns:
        `FileData`.

    Raises:
        ValueError: for any problem that `find_problems` finds, an unknown `on_bad_image`, or a
            class or split without a good image.
    """
    check_choice(on_bad_image, ON_BAD_IMAGE, "on_bad_image")
    problems = find_problems(splits, len(class_names))
    if problems:
        raise ValueError("; ".join(problems))
    bad = undecodable(splits) if on_bad_image == "skip" else ()
    parts = {key: _split(images, dict(bad), orientations) for key, images in splits.items()}
    without = set(range(len(class_names))) - set(parts["train"].labels.tolist())
    if without:
        raise ValueError(f"{name}: no image of class {class_names[min(without)]!r} can be read")
    return FileData(
        name=name,
        class_names=tuple(class_names),
        train=parts["train"],
        test=parts["test"] if "test" in parts else parts["val"],
        val=parts.get("val"),
        bad_images=tuple(bad),
        **recipe,
    )


def _split(images, bad, orientations):
    kept = [index for index, file in enumerate(images.files) if file not in bad]
    if not kept:
        raise ValueError(f"{images.source}: none of its {len(images.paths)} images can be read")
    files = tuple(images.files[index] for index in kept)
    return FileSplit(files, images.labels[kept], orientations(files) if orientations else None)


def _few(items):
    return ", ".join(items[:SHOWN]) + (", …" if len(items) > SHOWN else "")
