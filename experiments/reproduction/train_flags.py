"""The flags of train.py, and the configuration, the data and the folder that they name."""

import pathlib

from absl import flags

import lade_tf
from lade_tf.files import read_json
from reproduction import builders, cli, methods, recipes, strategies
from reproduction.run_folder import RunFolder

FLAGS = flags.FLAGS

OVERRIDE_FLAGS = (
    *("seed", "data_seed", "precision", "recipe", "init_from", "imbalance_ratio", "epochs"),
    *("batch_size", "learning_rate", "l2", "schedule", "sampler", "augment", "mixup", "ema"),
    *("synchronized_batchnorm", "backbone", "weights", "backbone_learning_rate"),
    *("freeze_backbone", "image_size", *recipes.OWN_IMAGES),
    *methods.PARAMETERS,
)


flags.DEFINE_string("dataset", None, f"Data set: {', '.join(recipes.DATASETS)}.", required=True)
flags.DEFINE_string("loss", None, f"Method: {', '.join(recipes.LOSSES)}.", required=True)
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
flags.DEFINE_integer(
    "max_pixel", None, "White in PNGs of 16 bits: 4095 where they hold 12.", 1, 65_535
)
flags.DEFINE_string("image_root", None, "Folder below which CSVs may name images elsewhere.")
flags.DEFINE_bool("allow_duplicates", None, "Accept an image file that is there twice, by links.")
flags.DEFINE_bool("overwrite", False, "Delete what the run folder holds and start again.")
flags.DEFINE_bool("export", False, "Also write a SavedModel, RUN_DIR/saved_model.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the data order and the augmentation.")
flags.DEFINE_integer("data_seed", 0, "Seed of the draw of the long-tailed subset.")
flags.DEFINE_enum(
    "precision",
    "float32",
    list(methods.POLICIES),
    "Compute precision; the halves are for GPUs, and bfloat16 for CPUs with AVX-512 or AMX.",
)
flags.DEFINE_enum("strategy", "auto", strategies.STRATEGIES, "Devices to train on.")
flags.DEFINE_integer("replicas", None, "How many devices; default all GPUs.", lower_bound=1)
flags.DEFINE_enum(
    "loop", "steps", ["steps", "device"], "Step by step, or each epoch as one XLA program."
)
flags.DEFINE_integer("keep_every", 0, "Keep the checkpoint of every so manieth epoch.", 0)
flags.DEFINE_bool("deterministic", False, "Only operations that always give the same bits.")
flags.DEFINE_bool("synchronized_batchnorm", None, "Batch statistics of all replicas together.")
flags.DEFINE_enum("recipe", "2021", list(recipes.RECIPES), "As published then, or stronger.")
flags.DEFINE_string("init_from", None, "Run folder of softmax that a second stage starts from.")
# Without a value: the recipe's.
flags.DEFINE_float("imbalance_ratio", None, "Largest over smallest class.", lower_bound=1)
flags.DEFINE_integer("epochs", None, "Epochs; milestones are scaled along.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step.", lower_bound=1)
flags.DEFINE_enum("backbone", None, list(builders.BACKBONES), "Network in front of the classifier.")
flags.DEFINE_string("weights", None, "Of the backbone at the start: imagenet, none or a file.")
flags.DEFINE_bool("freeze_backbone", None, "Train the classifier alone.")
flags.DEFINE_integer("image_size", None, "Height and width of image files' pixels.", lower_bound=8)
flags.DEFINE_float("learning_rate", None, "Learning rate after warm-up.", lower_bound=0)
flags.DEFINE_float("backbone_learning_rate", None, "The backbone's own.", lower_bound=0)
flags.DEFINE_float("l2", None, "Factor of the weights in their gradient.", lower_bound=0)
flags.DEFINE_enum("schedule", None, ["step", "cosine"], "Schedule of the learning rate.")
flags.DEFINE_enum("sampler", None, lade_tf.data.SAMPLERS, "How training images are drawn.")
flags.DEFINE_enum("augment", None, lade_tf.data.AUGMENTATIONS, "Augmentation of training images.")
flags.DEFINE_float("mixup", None, "α of mixup.")
flags.DEFINE_float(
    "ema", None, "Momentum of the weights' average, 0 for none.", lower_bound=0, upper_bound=0.99999
)
methods.define_flags()
flags.adopt_module_key_flags(methods)


def default_run_dir(config):
    name = recipes.run_name(config)
    if config["dataset"] == "folder" and FLAGS.data_dir:
        # Every user's folder is another data set.
        name = f"{pathlib.Path(FLAGS.data_dir).resolve().name}-{name}"
    return pathlib.Path("runs", name)


def load_data(config):
    """Returns the data set of a configuration."""
    data = lade_tf.data.load(
        config["dataset"],
        config["imbalance_ratio"],
        config["data_seed"],
        FLAGS.data_dir,
        FLAGS.on_bad_image,
        config.get("image_size"),
        **{name: config.get(name, default) for name, default in recipes.OWN_IMAGES.items()},
    )
    cli.check_tested(config["dataset"], data.class_names, data.test.labels)
    if methods.num_epochs(config):
        check_batch_size(config["batch_size"], len(data.train.labels))
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
    """Returns the configuration that the flags mean."""
    overrides = {name: FLAGS[name].value for name in OVERRIDE_FLAGS}
    if overrides["image_root"] is not None:
        overrides["image_root"] = str(pathlib.Path(overrides["image_root"]).expanduser().absolute())
    if FLAGS.init_from and overrides["epochs"] is None:
        overrides["epochs"] = first_stage_epochs(FLAGS.init_from)
    return recipes.resolve(FLAGS.dataset, FLAGS.loss, overrides)


def first_stage_epochs(path):
    """Returns how many epochs the run trained that a second stage starts from."""
    run = RunFolder(path)
    run.test_logits()  # refuses what isn't a finished run
    return read_json(run.file("config.json"))["epochs"]
