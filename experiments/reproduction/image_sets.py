"""What prepare.py says of a data set on disk: sizes, duplicates, depth, what is wrong with it."""

import os
import pathlib

import numpy as np

from lade_tf.data.files import duplicates, image_decoding, image_lists, records
from lade_tf.data.sets import folder, imagenet, inaturalist, places
from lade_tf.metrics.accuracy import shot_groups
from lade_tf.text_tables import align
from reproduction import prepared, recipes
from reproduction.config import RunConfig

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
    return "\n".join(align(rows, left=0))


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
