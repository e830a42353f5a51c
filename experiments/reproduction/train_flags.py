"""The flags of train.py, and the configuration, the data and the folder that they name."""

import pathlib

from absl import flags

import lade_tf
from lade_tf.data.files import image_decoding, records
from lade_tf.data.sets import folder
from reproduction import config as configuration
from reproduction import prepared, strategies
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder

FLAGS = flags.FLAGS

RunConfig.define_flags()
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the images and their lists (prepare.py); for the CIFARs a prepared "
    "tensorflow-datasets folder, default TFDS_DATA_DIR.",
)
flags.DEFINE_string("run_dir", None, "Run folder; default runs/ and a name made of the flags.")
flags.DEFINE_enum(
    "on_bad_image",
    "error",
    lade_tf.data.ON_BAD_IMAGE,
    "What to do about an image that can't be read; to skip them every image is read once before.",
)
flags.DEFINE_bool("overwrite", False, "Delete what the run folder holds and start again.")
flags.DEFINE_bool("export", False, "Also write a SavedModel, RUN_DIR/saved_model.")
flags.DEFINE_enum("strategy", "auto", strategies.STRATEGIES, "Devices to train on.")
flags.DEFINE_integer("replicas", None, "How many devices; default all GPUs.", lower_bound=1)
flags.DEFINE_enum(
    "loop", "steps", ["steps", "device"], "Step by step, or each epoch as one XLA program."
)
flags.DEFINE_integer("keep_every", 0, "Keep the checkpoint of every so manieth epoch.", 0)
flags.DEFINE_bool("deterministic", False, "Only operations that always give the same bits.")
flags.adopt_module_key_flags(configuration)


def run_folder(config):
    """Returns the `RunFolder` that --run_dir names, or the configuration."""
    if FLAGS.run_dir:
        return RunFolder(FLAGS.run_dir)
    name = config.run_name
    if config.dataset == "folder" and FLAGS.data_dir:
        # Every user's folder is another data set.
        name = f"{pathlib.Path(FLAGS.data_dir).resolve().name}-{name}"
    return RunFolder(pathlib.Path("runs", name))


def load_data(config):
    """Returns the data set of a configuration."""
    data = lade_tf.data.load(
        config.dataset,
        config.imbalance_ratio,
        config.data_seed,
        FLAGS.data_dir,
        FLAGS.on_bad_image,
        config.image_size,
        max_pixel=config.max_pixel,
        image_root=config.image_root,
        allow_duplicates=bool(config.allow_duplicates),
    )
    if config.num_epochs:
        check_batch_size(config.batch_size, len(data.train.labels))
    return data


def check_batch_size(batch_size, images):
    """Refuses a batch of more than the training images in the words of the flag."""
    if batch_size > images:
        origin = "" if FLAGS.batch_size else ", from the recipe,"
        raise ValueError(
            f"--batch_size={batch_size}{origin} is more than the {images} training images: give "
            f"--batch_size={images} or less"
        )


def resolve_config():
    """Returns the `RunConfig` that the flags mean; a second stage has its first one's epochs."""
    if not FLAGS.init_from or FLAGS.epochs is not None:
        return RunConfig.from_flags()
    first = RunFolder(FLAGS.init_from)
    first.test_logits()  # refuses what isn't a finished run
    return RunConfig.from_flags(epochs=first.config.epochs)


def tell_duplicates(config):
    """Prints what prepare.py found to be there twice, if no image has changed since."""
    if config.dataset != "folder":
        return
    path = pathlib.Path(FLAGS.data_dir).expanduser() / prepared.DUPLICATES
    if path.exists():
        _, splits = folder.read(FLAGS.data_dir, config.image_root)
        print(prepared.summary(path, splits), end="")


def check_images(data):
    """Reads what is else read after an epoch, or after them all: an error then comes too late."""
    if FLAGS.on_bad_image == "skip" or not isinstance(data, lade_tf.data.FileData):
        return  # all images have been read
    paths = [path for split in data.splits[1:] for path in getattr(data, split).paths]
    bad = image_decoding.find_bad_images(paths, data.max_pixel)
    if bad:
        path, reason = bad[0]
        raise ValueError(
            f"{records.described(path)}: {reason}. {len(bad)} of the {len(paths)} images that "
            "aren't for training can't be read: --on_bad_image=skip leaves them out"
        )
