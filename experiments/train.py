"""Trains a classifier on a long-tailed data set and measures it under any label distribution.

    python experiments/train.py --dataset=cifar100_lt --loss=lade --data_dir=PATH

Without further flags this is the published recipe for the data set and the loss
(experiments/recipes.py). The run folder (experiments/runs.py) gets everything; calling the same
command again goes on where it stopped, and a finished run is shown, not repeated.

Deviations from the authors' code: the long-tailed subset is drawn from --data_seed, and the order
of the data and its augmentation from (--seed, epoch) alone.
"""

import contextlib
import pathlib
import sys

import binary
import checkpoints
import device_loop
import evaluation
import keras
import methods
import prepared
import recipes
import runs
import strategies
import tensorflow as tf
import trainees
from absl import flags
from callbacks import Checkpoint, StopOnNaN, StopOnSignal

import lade_tf
from lade_tf import priors
from lade_tf.data.files import image_decoding, records
from lade_tf.data.sets import folder

FLAGS = flags.FLAGS

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
flags.DEFINE_enum("backbone", None, list(trainees.BACKBONES), "Network in front of the classifier.")
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

PROBE_IMAGES = 32
OVERRIDE_FLAGS = (
    *("seed", "data_seed", "precision", "recipe", "init_from", "imbalance_ratio", "epochs"),
    *("batch_size", "learning_rate", "l2", "schedule", "sampler", "augment", "mixup", "ema"),
    *("synchronized_batchnorm", "backbone", "weights", "backbone_learning_rate"),
    *("freeze_backbone", "image_size", *recipes.OWN_IMAGES),
    *methods.PARAMETERS,
)


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
    evaluation.check_tested(config["dataset"], data.class_names, data.test.labels)
    if methods.num_epochs(config):
        check_batch_size(config["batch_size"], len(data.train.labels))
    return data


def tell_duplicates(config):
    """Prints what prepare.py found to be there twice, if no image has changed since."""
    if config["dataset"] != "folder":
        return
    path = pathlib.Path(FLAGS.data_dir).expanduser() / prepared.DUPLICATES
    if path.exists():
        _, splits = folder.read(FLAGS.data_dir, config.get("image_root"))
        print(prepared.summary(path, splits), end="")


def check_batch_size(batch_size, images):
    """Refuses a batch of more than the training images in the words of the flag."""
    if batch_size > images:
        origin = "" if FLAGS.batch_size else ", from the recipe,"
        raise ValueError(
            f"--batch_size={batch_size}{origin} is more than the {images} training images: give "
            f"--batch_size={images} or less"
        )


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


def train(config, data, run, model, strategy):
    """Trains from the last checkpoint, or the start, to the last epoch."""
    epochs = methods.num_epochs(config)
    while (progress := restore(run, model, strategy)).epoch < epochs:
        # An epoch that was broken off comes to its end on its own, then the rest.
        until = progress.epoch + 1 if progress.step else epochs
        fit(config, data, run, model, strategy, progress, until)


def restore(run, model, strategy):
    progress = checkpoints.restore(run, model)
    done = progress.epoch
    if len(run.read_history()) < done:
        raise ValueError(f"{run.file('history.csv')} must have a row for each of {done} epochs")
    strategies.check_agreed(strategy, [done, progress.step], "checkpoint (epoch, step)")
    return progress


def fit(config, data, run, model, strategy, progress, epochs):
    """Trains from `progress` until `epochs` are done."""
    steps = data.steps_per_epoch(config["batch_size"])
    probe, _ = next(iter(data.test_batches(PROBE_IMAGES)))
    is_chief = strategies.is_chief(strategy)
    checkpoint = Checkpoint(
        run if is_chief else None, steps, config["batch_size"], probe, progress, FLAGS.keep_every
    )
    callbacks = [
        *methods.callbacks(config),
        StopOnNaN(run, steps, progress),
        checkpoint,
        StopOnSignal(checkpoint, inside_epochs=not strategies.is_multi_worker(strategy)),
    ]
    if is_chief:
        callbacks.append(keras.callbacks.TensorBoard(run.file("tensorboard"), write_graph=False))
    validation = validation_batches(config, data)
    verbose = (1 if sys.stdout.isatty() else 2) if is_chief else 0
    # What is left of an epoch that was broken off goes step by step.
    if FLAGS.loop == "device" and not progress.step:
        start = progress.epoch
        device_loop.fit(config, data, run, model, start, epochs, callbacks, validation, verbose)
        return
    model.fit(
        methods.train_batches(config, data, progress.epoch).skip(progress.step),
        initial_epoch=progress.epoch,
        epochs=epochs,
        steps_per_epoch=steps - progress.step,
        validation_data=validation,
        shuffle=False,
        verbose=verbose,
        callbacks=callbacks,
    )
    strategies.wait_for_all(strategy)  # for the last checkpoint


def validation_batches(config, data):
    """Returns the validation images, None where there are none: then the last epoch is selected.

    Averaged weights are selected at the end too: they aren't what an epoch is validated with.
    """
    if data.val is None or config["ema"]:
        return None
    return data.plain_batches("val", config["batch_size"])


def finish(config, data, run, trainee, provenance):
    """Writes the model, its test logits and, last of all, the result; returns the result."""
    model, history = trainee.model, run.read_history()
    selected = {}
    if run.file(checkpoints.BEST).exists():
        best = checkpoints.load(run.file(checkpoints.BEST), model)
        selected = {"selected_epoch": best.epoch}
    if config["ema"]:
        # The averages take the weights' place; a second time changes nothing.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        methods.recompute_statistics(model, config, data)
    with runs.replacing(run.file("best.keras")) as temporary:
        model.save(temporary)
    saved = trainee.test_logits(model, data)
    saved.save(run.file("test_logits.npz"))
    bad_images = [(records.described(path), reason) for path, reason in data.bad_images]
    result = {
        "config": config,
        **selected,
        **({"trained_on": run.trained_on()} if run.trained_on() else {}),
        **({"bad_images": bad_images} if FLAGS.on_bad_image == "skip" else {}),
        **({"chosen": trainee.chosen} if trainee.chosen else {}),
        **summarise(saved),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in history), 1),
        "hashes": run.hashes(),
        **provenance,
    }
    runs.write_json(run.file("result.json"), result)
    return result


def summarise(saved):
    """Returns the metrics at the uniform prior, those of the unadapted logits, and all shifts."""
    uniform = priors.uniform_prior(len(saved.counts))
    return {
        "metrics": evaluation.evaluate(saved, uniform, uniform),
        "metrics_unadapted": evaluation.evaluate(saved, saved.source_prior, uniform),
        "metrics_shifted": evaluation.evaluate_priors(
            saved, evaluation.feasible(evaluation.SHIFTS, evaluation.per_class(saved))
        ),
    }


def report(result, run):
    """Prints what a person wants to know of a finished run."""
    config = result["config"]
    print(f"\n{config['dataset']}, {config['loss']}, {config['epochs']} epochs in {run.path}")
    print("The model is told the label distribution and tested under it:\n")
    print(evaluation.format_table(result["metrics_shifted"]))
    if result["metrics_unadapted"] != result["metrics"]:
        unadapted = {"uniform, not told": result["metrics_unadapted"]}
        print("\n" + evaluation.format_table(unadapted))


def carry_out(config, run, provenance, strategy):
    """Trains a run to its end, from where it stopped; returns its result, None if not the chief."""
    data = load_data(config)
    if not FLAGS.overwrite:
        run.check_data(data)
    if FLAGS.overwrite or not run.read_history():
        check_images(data)
        tell_duplicates(config)
    # What the configuration can't do is refused here, before anything is written or deleted.
    with strategy.scope():
        trainee = methods.build_trainee(config, data)
    if FLAGS.loop == "device":
        device_loop.check(config, data, trainee.model)
    is_chief = strategies.is_chief(strategy)
    if FLAGS.overwrite and is_chief:
        run.delete()
    with run.alone() if is_chief else contextlib.nullcontext():
        if is_chief:
            run.claim(config, data)
        strategies.wait_for_all(strategy)
        train(config, data, run, trainee.model, strategy)
        result = finish(config, data, run, trainee, provenance) if is_chief else None
        strategies.wait_for_all(strategy)
    return result


def resolve_config():
    """Returns the configuration that the flags mean."""
    overrides = {name: FLAGS[name].value for name in OVERRIDE_FLAGS}
    if overrides["image_root"] is not None:
        overrides["image_root"] = str(pathlib.Path(overrides["image_root"]).expanduser().absolute())
    if FLAGS.init_from and overrides["epochs"] is None:
        overrides["epochs"] = trainees.first_stage_epochs(FLAGS.init_from)
    return recipes.resolve(FLAGS.dataset, FLAGS.loss, overrides)


def main():
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategies.make(FLAGS.strategy, FLAGS.replicas)
    provenance = runs.provenance()
    config = resolve_config()
    run = runs.RunFolder(FLAGS.run_dir or default_run_dir(config))
    if FLAGS.init_from and run.path.resolve() == pathlib.Path(FLAGS.init_from).resolve():
        raise ValueError(f"--run_dir={run.path} must be another folder than --init_from")
    if not FLAGS.overwrite:
        run.check(config)
        if FLAGS.export:
            run.check_exportable()
    if run.finished and not FLAGS.overwrite:
        if config["dataset"] == "folder":
            run.check_data(load_data(config))
        print(f"{run.path} is finished: shown as it is. --overwrite deletes it and starts again.")
        result = run.result(needed=("config", *runs.METRICS))
    else:
        try:
            result = carry_out(config, run, provenance, strategy)
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            raise ValueError(
                "another worker is gone. Start all of them again, with the same commands: the run "
                f"goes on from its last checkpoint ({error.message.splitlines()[0]})"
            ) from error
    if strategies.is_chief(strategy):
        report(result, run)
        if FLAGS.export:
            run.export()
            print(f"\nThe SavedModel is in {run.file('saved_model')}")


if __name__ == "__main__":
    binary.run(main)
