"""Image files packed into TFRecords, from which any image can be read in any order.

In a data set's folder, `tfrecords/` holds shards of `tf.train.Example` with the features
image/filename, image/class/label and image/encoded, and index.csv, which tells where each image
lies. A place in a shard is written SHARD@OFFSET and stands wherever the name of a file would: a few
large files in place of many small ones, and the same batches.
"""

import csv
import io
import os
import re
import shutil

import tensorflow as tf

FOLDER = "tfrecords"
INDEX = "index.csv"
COLUMNS = ("path", "shard", "offset")
SHARD_BYTES = 256 * 2**20
FRAME_BYTES = 16  # A record's length and two checksums.
PLACE = r"(.*\.tfrecord)@(\d+)"


def read(name):
    """Reads an image, from its file or from its place in a shard.

    Args:
        name: scalar string.

    Returns:
        Scalar string, the file's content.

    Raises:
        tf.errors.OpError: if it can't be read or a record is damaged.
    """
    is_place = tf.strings.regex_full_match(name, PLACE)
    return tf.cond(is_place, lambda: _read_record(name), lambda: tf.io.read_file(name))


def _read_record(place):
    shard = tf.strings.regex_replace(place, PLACE, r"\1")
    offset = tf.strings.to_number(tf.strings.regex_replace(place, PLACE, r"\2"), tf.int64)
    # tf.data.TFRecordDataset takes no offsets. Without a buffer no more than the record is read.
    record = tf.raw_ops.DatasetToSingleElement(
        dataset=tf.raw_ops.TakeDataset(
            input_dataset=tf.raw_ops.TFRecordDatasetV2(
                filenames=shard, compression_type="", buffer_size=0, byte_offsets=offset
            ),
            count=1,
            output_types=[tf.string],
            output_shapes=[[]],
        ),
        output_types=[tf.string],
        output_shapes=[[]],
    )
    feature = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(record[0], feature)["image/encoded"]


def open_image(name):
    """Opens an image for reading in Python, as `read` reads it in a graph; checksums aren't read.

    Args:
        name: of a file, or a place in a shard.

    Raises:
        OSError: if it can't be opened.
        google.protobuf.message.DecodeError: if there is no record at that place.
    """
    feature = _features(name)
    return open(name, "rb") if feature is None else io.BytesIO(_bytes(feature["image/encoded"]))


def described(name):
    """Returns the name of a file, or for a place in a shard that of the image that lies there."""
    try:
        feature = _features(name)
        if feature is None:
            return name
        return f"{os.fsdecode(_bytes(feature['image/filename']))} ({name})"
    except Exception:  # a damaged record can be wrong in as many ways as there are bytes
        return name


def _features(name):
    """Returns the features of the record at a place, None for the name of a file."""
    place = re.fullmatch(PLACE, name)
    if not place:
        return None
    with open(place.group(1), "rb") as file:
        file.seek(int(place.group(2)))
        size = int.from_bytes(file.read(8), "little")
        file.seek(4, os.SEEK_CUR)  # the checksum of the size
        return tf.train.Example.FromString(file.read(size)).features.feature


def _bytes(feature):
    return feature.bytes_list.value[0]


def file_of(name):
    """Returns the name of a file, or for a place in a shard that of the shard."""
    place = re.fullmatch(PLACE, name)
    return place.group(1) if place else name


def exists(name):
    """Returns whether the file is there, or the shard of a place."""
    return os.path.isfile(file_of(name))


def read_index(folder):
    """Returns {path relative to `folder`: place}, empty where there are no TFRecords.

    Raises:
        ValueError: if the index isn't one.
    """
    index = os.path.join(folder, FOLDER, INDEX)
    if not os.path.exists(index):
        return {}
    try:
        with open(index, newline="", encoding="utf-8") as file:
            header, *rows = [*csv.reader(file)] or [[]]
    except csv.Error:
        header, rows = [], []
    if tuple(header) != COLUMNS or not all(_is_row(row) for row in rows):
        raise ValueError(
            f"{index} must have the columns {','.join(COLUMNS)}, a shard beside it and its offset "
            "in each row"
        )
    return {path: os.path.join(folder, FOLDER, f"{shard}@{offset}") for path, shard, offset in rows}


def _is_row(row):
    return len(row) == len(COLUMNS) and re.fullmatch(PLACE, "@".join(row[1:])) and "/" not in row[1]


def write(folder, splits):
    """Packs the images of a data set; either all of it is there afterwards or none.

    Args:
        folder: of the data set.
        splits: {split: (paths relative to `folder`, labels)}.

    Returns:
        The number of shards.

    Raises:
        ValueError: if there are TFRecords already.
    """
    target = os.path.join(folder, FOLDER)
    if os.path.exists(target):
        raise ValueError(f"{target} exists already: delete it to write it anew")
    part = target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    shards = set()
    with open(os.path.join(part, INDEX), "w", newline="", encoding="utf-8") as file:
        index = csv.writer(file)
        index.writerow(COLUMNS)
        for split, (paths, labels) in splits.items():
            for row in _write_shards(folder, part, split, zip(paths, labels, strict=True)):
                index.writerow(row)
                shards.add(row[1])
    os.replace(part, target)
    return len(shards)


def _write_shards(folder, part, split, images):
    """Writes the images of a split; yields a row of the index for each."""
    writer, number, offset = None, -1, SHARD_BYTES
    for path, label in images:
        if offset >= SHARD_BYTES:
            if writer:
                writer.close()
            number, offset = number + 1, 0
            shard = f"{split}-{number:05}.tfrecord"
            writer = tf.io.TFRecordWriter(os.path.join(part, shard))
        with open(os.path.join(folder, path), "rb") as file:
            record = _example(path, label, file.read())
        writer.write(record)
        yield path, shard, offset
        offset += len(record) + FRAME_BYTES
    if writer:
        writer.close()


def _example(path, label, content):
    def bytes_feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {
        "image/filename": bytes_feature(os.fsencode(path)),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/encoded": bytes_feature(content),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
