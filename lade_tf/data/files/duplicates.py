"""Images that a data set holds more than once, found by the content of their files."""

import collections
import hashlib
import json
import os

from lade_tf.data.files import records
from lade_tf.text_tables import align

HEAD = 4096  # bytes that are compared before whole files are


def find(splits):
    """Finds the images whose files have the same content: links, hard links and copies.

    Files of one size are compared by their first 4 KB, and what agrees by a hash of the whole.

    Args:
        splits: {split: `ImageList`}.

    Returns:
        Lists of (split, label, path), those of one content each, in the order of `splits`.
    """
    images = [
        (file, (split, int(label), path))
        for split, part in splits.items()
        for file, label, path in zip(part.files, part.labels, part.paths, strict=True)
    ]
    groups = [images]
    for key in (_size, _head, _digest):
        groups = [part for group in groups for part in _split(group, key)]
    return [[image for _, image in group] for group in groups]


def _split(group, key):
    """Returns the parts of a group that agree in `key`, without those of one image."""
    parts = collections.defaultdict(list)
    for file, image in group:
        parts[key(file)].append((file, image))
    return [part for part in parts.values() if len(part) > 1]


def _size(file):
    with records.open_image(file) as content:
        return content.seek(0, os.SEEK_END)


def _head(file):
    with records.open_image(file) as content:
        return content.read(HEAD)


def _digest(file):
    with records.open_image(file) as content:
        return hashlib.file_digest(content, "sha256").digest()


def counts(groups):
    """Counts images that are there a second time.

    Args:
        groups: what `find` returns.

    Returns:
        {(split, other split): [of the same class, of another class]}: how many images of the split
        are in the other, or earlier in the same one, as well.
    """
    found = {}
    for group in groups:
        seen = {}
        for split, label, _ in group:
            for other, labels in seen.items():
                entry = found.setdefault((split, other), [0, 0])
                entry[0] += label in labels
                entry[1] += bool(labels - {label})
            seen.setdefault(split, set()).add(label)
    return found


def table(found):
    """Returns the lines of a table of what `counts` returns."""
    rows = [("images that are there twice", "in the same class", "in another class")]
    for (split, other), numbers in sorted(found.items()):
        where = f"twice in {split}" if split == other else f"of {split}, in {other} too"
        rows.append((where, *(f"{number:,}" for number in numbers)))
    return align(rows)


def fingerprint(splits):
    """Returns by what is known whether files have changed: names, labels, sizes and times."""
    digest = hashlib.sha256()
    for split, part in splits.items():
        for file, label, path in zip(part.files, part.labels, part.paths, strict=True):
            status = os.stat(records.file_of(file))
            entry = [split, path, int(label), status.st_size, status.st_mtime_ns]
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()
