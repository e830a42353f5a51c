"""Checks what a data set has on disk, and says what is missing and where to get it.

    python experiments/prepare.py --dataset=places_lt --data_dir=PATH

Every list is verified: its form, its number of images and classes, images named twice in it or in
two lists, missing files, classes without a test image. `--decode` decodes every image too, which is
the default for a folder of few. Nothing is ever downloaded.

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
import pathlib

import numpy as np
from absl import flags
from reproduction import cli, prepared, recipes, tfds_images
from reproduction.config import RunConfig

import lade_tf
from lade_tf.data.files import duplicates, exif, image_decoding, image_lists, records
from lade_tf.data.sets import folder, imagenet, inaturalist, places
from lade_tf.metrics.accuracy import shot_groups

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

READERS = {
    "places_lt": places,
    "imagenet_lt": imagenet,
    "inaturalist2018": inaturalist,
    "folder": folder,
}
LISTS = "lists: the links in https://github.com/zhmiao/OpenLongTailRecognition-OLTR"
WHERE = {
    "places_lt": "images: train_256_places365standard.tar and val_256.tar (small images), "
    f"http://places2.csail.mit.edu/download.html; {LISTS} (Places_LT_v2)",
    "imagenet_lt": "images: ILSVRC 2012 train and val, https://www.image-net.org/download.php, "
    f"after registration; {LISTS} (ImageNet_LT)",
    "inaturalist2018": "train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz: "
    "https://github.com/visipedia/inat_comp/tree/master/2018",
}
FEW = 10_000  # images; decoding them takes a minute or so
COLUMNS = ("split", "images", "classes", "largest", "smallest", "many", "medium", "few")


def table(labels, num_classes):
    """Returns a line for each split: its size, its largest and smallest class, shot groups."""
    rows = [COLUMNS]
    for split, split_labels in labels.items():
        counts = np.bincount(split_labels, minlength=num_classes)
        groups = shot_groups(counts).values() if split == "train" else ()
        numbers = (len(split_labels), (counts > 0).sum(), counts.max(), counts.min())
        cells = [f"{number:,}" for number in (*numbers, *(group.sum() for group in groups))]
        rows.append((split, *cells, *[""] * (len(COLUMNS) - 1 - len(cells))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def wrong_sizes(reader, class_names, splits):
    """Returns what differs from the published lists."""
    published = getattr(reader, "SIZES", {})
    problems = [
        f"{splits[split].source} has {len(splits[split].paths):,} images, as published {size:,}"
        for split, size in published.items()
        if len(splits[split].paths) != size
    ]
    if published and len(class_names) != reader.CLASSES:
        problems.append(f"there are {len(class_names):,} classes, as published {reader.CLASSES:,}")
    return problems


def small_batch(images):
    """Returns what train.py needs to be told about few training images, None if nothing."""
    small = folder.LARGEST_IN_MEMORY
    for size, where in ((recipes.IMAGE_SIZE, ""), (small, f" with --image_size={small} or less")):
        batch_size = RunConfig.resolve("folder", "softmax", image_size=size).batch_size
        if images < batch_size:
            return (
                f"train.py needs --batch_size={images} or less{where}: the recipe's batches have "
                f"{batch_size} images, and there are {images} for training"
            )
    return None


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
    print(table({split: images.labels for split, images in splits.items()}, len(class_names)))
    if dataset == "folder":
        deep = image_decoding.highest_of_16_bits([f for s in splits.values() for f in s.files])
        if deep:
            print(sixteen_bits(max(deep.values()), len(deep)))
        rotated = sum((exif.orientations(images.files) > 1).sum() for images in splits.values())
        print(f"{rotated:,} images are turned upright as their EXIF orientation says")
        passed_over = folder.ignored(data_dir)
        if passed_over and os.path.isdir(splits["train"].source):
            few = ", ".join(map(image_lists.printable, passed_over[: image_lists.SHOWN]))
            print(f"{len(passed_over):,} files have other endings than images: {few}")
    # Of a folder, what is there twice is found by content, and is no reason to stop.
    allow = True if dataset == "folder" else None
    problems = image_lists.find_problems(splits, len(class_names), allow)
    try:
        tested = splits.get("test", splits.get("val"))
        cli.check_tested(dataset, class_names, tested.labels)
    except ValueError as error:
        problems.append(str(error))
    decode = wants_decoding(dataset, splits)
    if decode and not problems:  # A missing image is named already.
        bad = image_lists.undecodable(splits)
        problems = [f"{records.described(file)} can't be decoded: {why}" for file, why in bad]
    problems = wrong_sizes(reader, class_names, splits) + problems
    if problems:
        raise ValueError("\n- ".join(["what is wrong:", *problems]))
    if dataset == "folder":
        tell_duplicates(splits)
        if advice := small_batch(len(splits["train"].paths)):
            print(advice)
    if FLAGS.tfrecords:
        pack(data_dir, splits)
    return decode


def sixteen_bits(highest, images):
    """Returns what there is to say of images of 16 bits: how many, and what of it they use."""
    deepest = image_decoding.DEEPEST
    text = (
        f"{images:,} images have 16 bits a channel; their highest value is {highest:,}, "
        f"{highest / deepest:.1%} of the range"
    )
    white = max(255, 2 ** int(highest).bit_length() - 1)
    return text + (f": train.py --max_pixel={white} makes that white" if white < deepest else "")


def tell_duplicates(splits):
    """Says which images are there twice, and writes it down for train.py."""
    groups = duplicates.find(splits)
    if groups:
        print("\n".join([*duplicates.table(duplicates.counts(groups)), *prepared.pairs(groups)]))
        if image_lists.find_problems(splits, 2**31, allow_duplicates=False):
            print("some are one file, by links: train.py needs --allow_duplicates to take them")
    else:
        print("no image is there twice")
    path = pathlib.Path(splits["train"].folder, prepared.DUPLICATES)
    try:
        prepared.write(path, splits, groups)
    except OSError as error:
        print(f"{path} can't be written: {error.strerror}")


def pack(data_dir, splits):
    """Writes the images into TFRecords and says so."""
    # Without lists it's the files that tell what images there are.
    if os.path.isdir(splits["train"].source):
        raise ValueError("--tfrecords needs train.csv and test.csv (or val.csv) in --data_dir")
    content = {split: (images.paths, images.labels.tolist()) for split, images in splits.items()}
    shards = records.write(splits["train"].folder, content)
    images = sum(len(images.paths) for images in splits.values())
    print(f"{images:,} images packed into {shards:,} TFRecords; their files aren't needed any more")


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
        print(table(splits, data.num_classes))
    but = "" if decoded else ", but images weren't decoded; --decode does"
    print(f"{dataset} is ready: nothing is missing{but}")


if __name__ == "__main__":
    cli.run(main)
