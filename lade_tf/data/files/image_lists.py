"""Lists of image files: reading them and checking them."""

import collections
import csv
import dataclasses
import functools
import io
import os
import pathlib
import stat

import numpy as np

from lade_tf.data.files import records
from lade_tf.data.files.image_decoding import find_bad_images

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


def image_list(source, folder, paths, labels, image_root=None):
    """Returns an `ImageList` whose paths can't lead out of its folder.

    A symbolic link inside the folder may point anywhere: whoever put it there meant it.

    Args:
        source: the list or folder, for messages.
        folder: of the data set.
        paths: file names, relative to `folder`.
        labels: an integer for each.
        image_root: folder below which paths may lie too, absolute or with "..", or None.

    Raises:
        ValueError: for no path at all, one that isn't UTF-8, or one that is absolute or has a part
            ".." and doesn't lie below `image_root`.
    """
    if not paths:
        raise ValueError(f"{source} must name at least one image; got none")
    folder = os.path.abspath(folder)
    roots = []
    if image_root is not None:
        roots = [os.path.abspath(image_root), os.path.realpath(image_root)]
    inside = [_inside(check_utf8(path, source), folder, roots) for path in paths]
    if None in inside:
        path = paths[inside.index(None)]
        allowed = f"{folder} or image_root={image_root}" if roots else folder
        more = "" if roots else ": image_root=FOLDER allows those below it"
        raise ValueError(
            f"{source} must name files inside {allowed}; got {path!r}, which may lead out of "
            f"it{more}"
        )
    return ImageList(str(source), folder, tuple(inside), np.fromiter(labels, np.int32, len(paths)))


def _inside(path, folder, roots):
    """Returns a path relative to `folder`, absolute if below one of `roots`, or else None."""
    if not (os.path.isabs(path) or ".." in path.replace(os.sep, "/").split("/")):
        return os.path.normpath(path)
    whole = os.path.normpath(os.path.join(folder, path))
    for root in [folder, *roots] if roots else ():
        if os.path.commonpath([root, whole]) == root and whole != root:
            return os.path.relpath(whole, folder) if root == folder else whole
    return None


def check_utf8(path, source=None):
    """Returns a file's name, whose bytes must be UTF-8.

    Raises:
        ValueError: if they aren't: neither TensorFlow nor a JSON file could hold it.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        where = f"{source}: " if source else ""
        raise ValueError(
            f"{where}names of files must be UTF-8; got {printable(path)}: rename it"
        ) from error
    return path


def printable(path):
    """Returns a file's name with bytes that aren't UTF-8 as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


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
    header = rows.fieldnames or []
    if not {"path", "label"} <= set(header):
        raise ValueError(f"{path} must start with the header path,label; got {rows.fieldnames}")
    columns = [column.strip() for column in header]
    for name in ("path", "label"):
        if columns.count(name) > 1:
            raise ValueError(f"{path} must have one column {name}; got the header {header}")
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
    check_utf8(str(folder), "data_dir")
    if not folder.is_dir():
        raise ValueError(f"data_dir must be an existing folder; got {str(data_dir)!r}")
    if tfds_name and any(folder.glob(f"{tfds_name}/*/dataset_info.json")):
        raise ValueError(
            f"data_dir must be a folder of image files: {content}; got {folder}, where "
            f"tensorflow-datasets keeps {tfds_name} inside TFRecords: the images must be "
            "written to files first"
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


def find_problems(splits, num_classes, allow_duplicates=None):
    """Checks labels, duplicates within and across splits, and that every file is there.

    A duplicate is a file that is named a second time, or whose link is; copies aren't found.

    Args:
        splits: {split: `ImageList`}.
        num_classes: labels must be below this.
        allow_duplicates: whether there may be any; None where nobody can say so.

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
        for path, real in zip(images.paths, real_files(images.files), strict=True):
            if real in seen:
                other, source = seen[real]
                also = "also" if other == path else f"which is {other}"
                twice.append(f"{path} ({also} in {source})")
            seen.setdefault(real, (path, images.source))
        if twice and not allow_duplicates:
            more = "" if allow_duplicates is None else "; with allow_duplicates they are accepted"
            problems.append(f"{images.source} names images a second time: {_few(twice)}{more}")
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


def real_files(files):
    """Returns by what files are the same: links lead to one file, and hard links are one.

    Args:
        files: absolute names, or places in TFRecords.
    """
    real_folder = functools.cache(os.path.realpath)

    def identity(file):
        try:
            status = os.lstat(file)
            if stat.S_ISLNK(status.st_mode):
                file, status = os.path.realpath(file), os.stat(file)
        except (OSError, ValueError):  # missing, or a place
            return file
        if status.st_nlink > 1:  # other numbers aren't reliable everywhere
            return status.st_dev, status.st_ino
        folder, name = os.path.split(file)
        return os.path.join(real_folder(folder), name)

    return [identity(file) for file in files]


def undecodable(splits, max_pixel=None):
    """Decodes every image; returns [(file or place, reason)] of those that can't be."""
    files = [file for images in splits.values() for file in images.files]
    return find_bad_images(files, max_pixel)


def _few(items):
    return ", ".join(items[:SHOWN]) + (", …" if len(items) > SHOWN else "")
