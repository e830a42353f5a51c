"""Checks what a data set has on disk, and says what is missing and where to get it.

    python experiments/prepare.py --dataset=places_lt --data_dir=PATH

Every list is verified: its form, its number of images and classes, images named twice in it or in
two lists, missing files. Classes with few test images are named. `--decode` decodes every image
too, which is the default for a folder of few. Nothing is ever downloaded.

Of a folder, images that are there twice are found by content, whatever their names: a table and the
first pairs are shown, all of them stand in PATH/duplicates.json. Of PNGs of 16 bits it says how
much of their range they use.

Where tensorflow-datasets has prepared a set, `--unpack` writes its images, byte for byte, as the
files that the lists name, which then lie in PATH beside them:

    python experiments/prepare.py --dataset=places_lt --data_dir=PATH --unpack=TFDS_FOLDER

Where many small files are slow, `--tfrecords` packs the images that the lists name into a few large
ones in PATH/tfrecords, if all of them can be decoded. The data set is then read from there, in the
same order, and with the lists that is all it needs.
"""

import os

import numpy as np
from absl import flags
from reproduction import cli, image_sets, tfds_images
from reproduction.image_sets import FEW, READERS, WHERE

import lade_tf
from lade_tf import evaluation
from lade_tf.data.files import exif, image_decoding, image_lists, records
from lade_tf.data.sets import folder

FLAGS = flags.FLAGS

flags.DEFINE_enum("dataset", None, lade_tf.data.NAMES, "Data set.", required=True)
flags.DEFINE_string("data_dir", None, "Its folder; what lies there, `load` in lade_tf/data says.")
flags.DEFINE_bool(
    "decode",
    None,
    "Decode every image and list those that can't be; by default of a folder of few images.",
)
flags.DEFINE_string("unpack", None, "Prepared tensorflow-datasets folder to take images from.")
flags.DEFINE_string("image_root", None, "Folder below which CSVs may name images elsewhere.")
flags.DEFINE_bool("tfrecords", False, "Pack the images into TFRecords in --data_dir.")


def wants_decoding(dataset, splits):
    """Returns whether to decode every image."""
    if FLAGS.tfrecords or FLAGS.decode is not None:
        return FLAGS.tfrecords or FLAGS.decode
    return dataset == "folder" and sum(len(images.paths) for images in splits.values()) <= FEW


def check_files(dataset, data_dir):
    """Checks a set of image files and prints what it has; a ValueError says all that is wrong.

    Returns whether every image was decoded.
    """
    reader = READERS[dataset]
    root = {"image_root": FLAGS.image_root} if dataset == "folder" else {}
    class_names, splits = reader.read(data_dir, **root)
    if FLAGS.unpack:
        print(f"{tfds_images.unpack(dataset, splits, FLAGS.unpack):,} images written")
    labels = {split: images.labels for split, images in splits.items()}
    print(image_sets.table(labels, len(class_names)))
    if dataset == "folder":
        deep = image_decoding.highest_of_16_bits([f for s in splits.values() for f in s.files])
        if deep:
            print(image_sets.sixteen_bits(max(deep.values()), len(deep)))
        rotated = sum((exif.orientations(images.files) > 1).sum() for images in splits.values())
        print(f"{rotated:,} images are turned upright as their EXIF orientation says")
        passed_over = folder.ignored(data_dir)
        if passed_over and os.path.isdir(splits["train"].source):
            few = ", ".join(map(image_lists.printable, passed_over[: image_lists.SHOWN]))
            print(f"{len(passed_over):,} files have other endings than images: {few}")
    # Of a folder, what is there twice is found by content, and is no reason to stop.
    allow = True if dataset == "folder" else None
    problems = image_lists.find_problems(splits, len(class_names), allow)
    decode = wants_decoding(dataset, splits)
    if decode and not problems:  # A missing image is named already.
        bad = image_lists.undecodable(splits)
        problems = [f"{records.described(file)} can't be decoded: {why}" for file, why in bad]
    problems = image_sets.wrong_sizes(reader, class_names, splits) + problems
    if problems:
        raise ValueError("\n- ".join(["what is wrong:", *problems]))
    tested = splits.get("test", splits.get("val"))
    per_class = np.bincount(tested.labels, minlength=len(class_names))
    for remark in evaluation.remarks(per_class, class_names):
        print(remark)
    if dataset == "folder":
        image_sets.tell_duplicates(splits)
        if advice := image_sets.small_batch(len(splits["train"].paths)):
            print(advice)
    if FLAGS.tfrecords:
        image_sets.pack(data_dir, splits)
    return decode


def main():
    dataset, data_dir = FLAGS.dataset, FLAGS.data_dir
    if FLAGS.unpack and dataset not in tfds_images.SETS:
        raise ValueError(f"--unpack is for {', '.join(tfds_images.SETS)}; got --dataset={dataset}")
    if FLAGS.image_root and dataset != "folder":
        raise ValueError(f"--image_root is for folder; got --dataset={dataset}")
    if FLAGS.tfrecords and dataset not in READERS:
        raise ValueError(f"--tfrecords is for {', '.join(READERS)}; got --dataset={dataset}")
    decoded = True
    if dataset in READERS:
        try:
            decoded = check_files(dataset, data_dir)
        except ValueError as error:
            where = f"\nWhere to get {dataset}: {WHERE[dataset]}" if dataset in WHERE else ""
            raise ValueError(f"{error}{where}") from error
    else:
        data = lade_tf.data.load(dataset, data_dir=data_dir)
        splits = {"train": data.train.labels, "test": data.test.labels}
        print(image_sets.table(splits, data.num_classes))
    but = "" if decoded else ", but images weren't decoded; --decode does"
    print(f"{dataset} is ready: nothing is missing{but}")


if __name__ == "__main__":
    cli.run(main)
