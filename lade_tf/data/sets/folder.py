"""A user's own images: a folder with one subfolder for each class, or CSVs of path,label."""

import os
import re
import warnings

from lade_tf.data.files import exif, image_lists
from lade_tf.data.sets import from_lists
from lade_tf.data.sets.imagenet import MEAN, STD
from lade_tf.data.sets.small_images import in_memory

SPLITS = ("train", "val", "test")
# What else people call them: to be renamed, never passed over.
MISNAMED = {
    **dict.fromkeys(("training", "trains"), "train"),
    **dict.fromkeys(("valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "tests"), "test"),
    **{split: split for split in SPLITS},
}
# With these before or behind it, and whatever isn't a letter, such a name means a split as well.
_FILLER = r"(?:data|sets?|splits?|images?|imgs?|pictures?|photos?|files?|lists?|labels?|folders?)*"
_MEANS_SPLIT = re.compile(f"{_FILLER}({'|'.join(sorted(MISNAMED, key=len)[::-1])}){_FILLER}")
# Lists in forms that aren't read.
LIST_ENDINGS = (".tsv", ".txt", ".json", ".jsonl", ".parquet", ".xls", ".xlsx")
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp")
# Images of other kinds: a class that loses its own would have another count.
UNREAD = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".dng")
# What systems leave in folders; names that begin with a dot are passed over too.
LEFT_BY_SYSTEMS = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db"),
    "desktop.ini",
}
LARGEST_IN_MEMORY = 64


def load(
    data_dir=None,
    on_bad_image="error",
    image_size=224,
    max_pixel=None,
    image_root=None,
    allow_duplicates=False,
):
    """Loads a user's own images.

    Either `data_dir` holds train/CLASS/*, val/CLASS/* and test/CLASS/*, or, if there is a
    train.csv, the lists train.csv, val.csv and test.csv with the header path,label; paths are
    relative to `data_dir`, labels are names of classes. A test set or a validation set is needed
    beside the training set. Without a test set the validation set is the test set, and there is no
    validation set.

    Classes are those of the training set, sorted by name as text ("10" comes before "2"). Files
    with other endings than `ENDINGS`, hidden files and what systems leave aren't images. A link to
    a folder is followed, but not back up, nor to a folder of the same class that is read already:
    a `UserWarning` names it. EXIF orientations are undone. Mean, standard deviation and colour
    jitter are those of Places-LT. Small images are decoded once, kept in memory and augmented as
    CIFAR's are.

    Args:
        data_dir: that folder.
        on_bad_image: "error", or "skip" to leave out what can't be decoded.
        image_size: height and width of what the network sees.
        max_pixel: the value of white in PNGs of 16 bits, 1 to 65,535: 4095 where a camera of 12
            bits wrote them. None for 65,535.
        image_root: folder below which paths of the CSVs may lie outside `data_dir`, absolute or
            with "..", or None.
        allow_duplicates: whether a file may be there more than once, by a link or named twice.

    Returns:
        `FileData`, or `ImageData` for an image_size of at most `LARGEST_IN_MEMORY`.

    Raises:
        ValueError: if a part is missing or has another name, there is but one class, a class has
            no image, a class of the validation or test set has no training images, an image lies
            in no class, a file is there twice, its name isn't UTF-8, or for anything wrong in a
            CSV.
    """
    data = from_lists.build(
        "folder",
        *read(data_dir, image_root),
        on_bad_image,
        orientations=exif.orientations,
        allow_duplicates=allow_duplicates,
        mean=MEAN,
        std=STD,
        jitter=0.4,
        size=image_size,
        max_pixel=max_pixel,
    )
    return in_memory(data) if image_size <= LARGEST_IN_MEMORY else data


def read(data_dir, image_root=None):
    """Returns the class names and {split: `ImageList`}; the rest is as of `load`."""
    folder = image_lists.data_folder(data_dir, "train/ and test/, or train.csv and test.csv")
    uses_csv = (folder / "train.csv").exists()
    if image_root is not None:
        image_root = _existing_root(image_root, uses_csv)
    _check_names(folder, uses_csv)
    sources = {split: folder / f"{split}{'.csv' if uses_csv else ''}" for split in SPLITS}
    sources = {split: source for split, source in sources.items() if source.exists()}
    _check_lists(folder, sources, uses_csv)
    if not uses_csv:
        _check_passed_over(folder, sources)
    if "train" not in sources or len(sources) == 1:
        raise ValueError(
            f"data_dir={folder} must hold train/ and test/ (or val/), each with a subfolder of "
            "images for each class, or train.csv and test.csv (or val.csv) with the header "
            f"path,label; got only {', '.join(s.name for s in sources.values()) or 'other things'}"
        )
    read_split = image_lists.read_csv if uses_csv else _read_folder
    rows = {split: read_split(source) for split, source in sources.items()}
    class_names = tuple(sorted(set(rows["train"][1])))
    if len(class_names) == 1:
        raise ValueError(
            f"{sources['train']} must hold at least two classes; got only {class_names[0]!r}"
        )
    splits = {
        split: image_lists.image_list(
            sources[split], folder, paths, _labels(names, class_names, sources[split]), image_root
        )
        for split, (paths, names) in rows.items()
    }
    if uses_csv:
        _check_listed(folder, splits)
    if "test" not in splits:
        splits["test"] = splits.pop("val")
    return class_names, splits


def _existing_root(image_root, uses_csv):
    if not uses_csv:
        raise ValueError(f"image_root must be None where there is no train.csv; got {image_root!r}")
    if not os.path.isdir(image_root):
        raise ValueError(f"image_root must be an existing folder; got {str(image_root)!r}")
    return image_root


def _check_names(folder, uses_csv):
    """Refuses folders and lists that look like a split and would be passed over."""
    for name in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(name)
        is_list = ending.lower() == ".csv"
        split = MISNAMED.get((stem if is_list else name).lower())
        path = folder / name
        if split is None or not (is_list or path.is_dir()):
            continue
        if is_list and not uses_csv and split != "train":
            raise ValueError(
                f"{path} must have a train.csv beside it, or go elsewhere: without one the images "
                "are those of train/, val/ and test/"
            )
        # Beside lists a folder may have any name: `_check_listed` looks at what is in it.
        wanted = f"{split}.csv" if is_list else split
        if name != wanted and (is_list or not uses_csv):
            raise ValueError(f"{path} must be renamed to {wanted}, or go elsewhere; got {name!r}")


def _split_meant(name):
    """Returns the split that a name means, "val" of "Val_set" or "images-dev2", or None."""
    match = _MEANS_SPLIT.fullmatch(re.sub("[^a-z]", "", name.lower()))
    return MISNAMED[match[1]] if match else None


def _check_lists(folder, sources, uses_csv):
    """Refuses lists of a missing split that aren't read, and warns of those of others."""
    used = {source.name for source in sources.values()}
    for name in _entries(folder):
        stem, ending = os.path.splitext(name)
        split = _split_meant(stem)
        if split is None or name in used or ending.lower() not in (".csv", *LIST_ENDINGS):
            continue
        read = "lists of images are CSVs" if uses_csv else "without a train.csv no list is read"
        if split in sources:
            warnings.warn(
                f"{folder / name} is passed over: {read}, and {sources[split].name} is there",
                stacklevel=4,
            )
            continue
        is_list = uses_csv or split == "train"
        wanted = f"be {split}.csv with the header path,label, or " if is_list else ""
        raise ValueError(f"{folder / name} must {wanted}go elsewhere: {read}; got {name!r}")


def _check_passed_over(folder, sources):
    """Refuses a folder of images that means a missing split, and warns of others beside splits."""
    passed_over = []
    for name in _entries(folder):
        path = folder / name
        if path in sources.values() or not (_is_image(name) or _holds_image(path)):
            continue
        split = _split_meant(name)
        if path.is_dir() and split is not None and split not in sources:
            raise ValueError(
                f"{path} must be renamed to {split}, or go elsewhere; got {name!r}, which holds "
                "images"
            )
        passed_over.append(image_lists.printable(name))
    if passed_over and sources:
        shown = ", ".join(passed_over[: image_lists.SHOWN])
        warnings.warn(
            f"images of {folder} are passed over, for they lie beside "
            f"{' and '.join(s.name for s in sources.values())}: in {len(passed_over)} places, "
            f"{shown}",
            stacklevel=4,
        )


def _holds_image(folder):
    """Whether an image lies at any depth below a folder; it is looked for until there is one."""
    for _, folders, names in os.walk(folder):
        folders[:] = _visible(folders)
        if any(map(_is_image, _visible(names))):
            return True
    return False


def _check_listed(folder, splits):
    """Refuses a folder of a split's name, beside lists, with images of which none is listed."""
    listed = {path.split(os.sep)[0] for images in splits.values() for path in images.paths}
    for name in _entries(folder):
        split = _split_meant(name)
        # The images of a split that has its list are what the list says.
        if split is None or split in splits or name in listed:
            continue
        if _holds_image(folder / name):
            raise ValueError(
                f"{folder / name} must be listed in {split}.csv, or go elsewhere: where there is a "
                "train.csv, images are those that the lists name"
            )


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
    seen = _way_to(path)
    for name in _entries(path):
        entry = path / name
        if not entry.is_dir():
            if _is_image(name):
                raise ValueError(f"{entry} must lie in the folder of a class, {path}/CLASS")
            continue
        if os.path.realpath(entry) in seen:
            _warn_of_link(entry)
            continue
        files = _files(entry)
        images = _images(files)
        _warn_of_unread(entry, files)
        if not images:
            raise ValueError(
                f"{entry} must hold an image ({', '.join(ENDINGS)}); got none: a class "
                "needs one, and a folder that isn't a class doesn't belong here"
            )
        paths += [os.path.relpath(image, path.parent) for image in images]
        names += [name] * len(images)
    if not paths:
        raise ValueError(f"{path} must hold a subfolder of images for each class; got none")
    return paths, names


def _warn_of_unread(folder, files):
    unread = [file for file in files if file.lower().endswith(UNREAD)]
    if unread:
        warnings.warn(
            f"files of {folder} that are passed over: {len(unread)}, {unread[0]} first; what is "
            f"read ends in {', '.join(ENDINGS)}",
            stacklevel=5,
        )


def image_files(folder):
    """Returns the image files of any depth below a folder, sorted.

    Without hidden ones and those that systems leave. Every real folder is read once; a
    `UserWarning` names a link that leads to one again, or back up.

    Raises:
        ValueError: for an image whose name isn't UTF-8.
    """
    return _images(_files(folder))


def _images(files):
    return [image_lists.check_utf8(file) for file in files if _is_image(file)]


def ignored(data_dir):
    """Returns the files that `read` passes over, hidden ones aside, because of their endings.

    Args:
        data_dir: the data set's folder, with train/, val/ and test/ and no train.csv.
    """
    splits = (os.path.join(data_dir, split) for split in SPLITS)
    return [file for split in splits for file in _files(split, warn=False) if not _is_image(file)]


def _is_image(name):
    return name.lower().endswith(ENDINGS)


def _entries(folder):
    """Returns the names in a folder, sorted, without hidden ones and those that systems leave."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return _visible(names)


def _visible(names):
    return [name for name in names if name[0] != "." and name.lower() not in LEFT_BY_SYSTEMS]


def _files(folder, warn=True):
    """Returns the files of any depth below a folder, sorted, each real folder's once."""
    seen, found = _way_to(folder, below=True), []
    # Links last: a folder is known by the name that it really has.
    waiting, links = [str(folder)], []
    while waiting or links:
        parent = (waiting or links).pop()
        real = os.path.realpath(parent)
        if real in seen:
            if warn:
                _warn_of_link(parent)
            continue
        seen.add(real)
        paths = [os.path.join(parent, name) for name in _entries(parent)]
        for path in paths:
            if os.path.isdir(path):
                (links if os.path.islink(path) else waiting).append(path)
            else:
                found.append(path)
    return sorted(found)


def _way_to(folder, below=False):
    """Returns the real folders on the way to a folder, both as it is named and as it lies.

    `below`: without the folder itself.
    """
    named, real = os.path.abspath(folder), os.path.realpath(folder)
    way = {real}
    for path in (named, real):
        while (parent := os.path.dirname(path)) != path:
            way.add(os.path.realpath(parent))
            path = parent
    return way - {real} if below else way


def _warn_of_link(path):
    real = os.path.realpath(path)
    warnings.warn(
        f"{image_lists.printable(path)} is passed over: it leads to {image_lists.printable(real)}, "
        "which holds it or is read already",
        stacklevel=2,
    )
