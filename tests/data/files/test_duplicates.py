"""Images that are there twice, by content."""

import os

import numpy as np

from lade_tf.data.files import duplicates
from lade_tf.data.files.image_lists import ImageList

CONTENTS = {
    "train/a/1": b"x" * 9000,
    "train/a/2": b"x" * 9000,  # a copy
    "train/b/3": b"x" * 9000,  # in another class
    "train/b/4": b"x" * 8999 + b"y",  # differs in its last byte
    "train/b/5": b"x" * 8999,  # and in its size
    "test/a/6": b"x" * 9000,
    "test/b/7": b"z" * 9000,
}


def make(folder):
    splits = {}
    for split in ("train", "test"):
        paths = tuple(path for path in CONTENTS if path.startswith(split))
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(CONTENTS[path])
        labels = np.array(["/b/" in path for path in paths], np.int32)
        splits[split] = ImageList(split, str(folder), paths, labels)
    return splits


def test_copies_are_found_and_counted(tmp_path):
    splits = make(tmp_path)
    [group] = duplicates.find(splits)
    assert [path for _, _, path in group] == ["train/a/1", "train/a/2", "train/b/3", "test/a/6"]
    # 2 repeats 1; 3 is in another class; 6 is in training, in its own class and in another.
    assert duplicates.counts([group]) == {("train", "train"): [1, 1], ("test", "train"): [1, 1]}
    table = duplicates.table(duplicates.counts([group]))
    assert table[1].split() == ["of", "test,", "in", "train", "too", "1", "1"]


def test_links_are_found_by_content_too(tmp_path):
    splits = make(tmp_path)
    for path, link in (("test/b/7", os.symlink), ("test/a/6", os.link)):
        (tmp_path / path).unlink()
        link(tmp_path / "train/b/4", tmp_path / path)
    groups = [[path for _, _, path in group] for group in duplicates.find(splits)]
    assert groups == [
        ["train/a/1", "train/a/2", "train/b/3"],
        ["train/b/4", "test/a/6", "test/b/7"],
    ]


def test_a_change_of_any_file_is_seen(tmp_path):
    splits = make(tmp_path)
    before = duplicates.fingerprint(splits)
    assert duplicates.fingerprint(splits) == before
    (tmp_path / "test/b/7").write_bytes(b"longer" * 9000)
    assert duplicates.fingerprint(splits) != before
