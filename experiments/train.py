"""Trains a classifier on a long-tailed data set and measures it under any label distribution.

    python experiments/train.py --dataset=cifar100_lt --loss=lade --data_dir=PATH

Without further flags this is the published recipe for the data set and the loss
(reproduction/recipes.py). The run folder (reproduction/run_folder.py) gets everything; calling the
same command again goes on where it stopped, and a finished run is shown, not repeated.

Deviations from the authors' code: the long-tailed subset is drawn from --data_seed, and the order
of the data and its augmentation from (--seed, epoch) alone.
"""

import contextlib
import pathlib

import tensorflow as tf
from absl import flags
from reproduction import cli, device_loop, prepared, provenance, strategies, train_flags, training
from reproduction.run_folder import METRICS

import lade_tf
from lade_tf import evaluation, priors
from lade_tf.data.files import image_decoding, records
from lade_tf.data.sets import folder
from lade_tf.files import replacing, write_json
from lade_tf.training import checkpoints

FLAGS = flags.FLAGS
REPORTED_SHIFTS = ("forward:50", "forward:10", "uniform", "backward:10", "backward:50")


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


def finish(config, data, run, trainee, origin):
    """Writes the model, its test logits and, last of all, the result; returns the result."""
    model, history = trainee.model, run.read_history()
    selected = {}
    if run.file(checkpoints.BEST).exists():
        best = checkpoints.load(run.file(checkpoints.BEST), model)
        selected = {"selected_epoch": best.epoch}
    if config.ema:
        # The averages take the weights' place; a second time changes nothing.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        training.recompute_statistics(model, config, data)
    with replacing(run.file("best.keras")) as temporary:
        model.save(temporary)
    saved = trainee.test_logits(model, data)
    saved.save(run.file("test_logits.npz"))
    bad_images = [(records.described(path), reason) for path, reason in data.bad_images]
    result = {
        "config": config.to_json(),
        **selected,
        **({"trained_on": run.trained_on()} if run.trained_on() else {}),
        **({"bad_images": bad_images} if FLAGS.on_bad_image == "skip" else {}),
        **({"chosen": trainee.chosen} if trainee.chosen else {}),
        **summarise(saved),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in history), 1),
        "hashes": run.hashes(),
        **origin,
    }
    write_json(run.file("result.json"), result)
    return result


def summarise(saved):
    """Returns the metrics at the uniform prior, those of the unadapted logits, and all shifts."""
    uniform = priors.uniform_prior(len(saved.counts))
    return {
        "metrics": evaluation.evaluate(saved, uniform, uniform),
        "metrics_unadapted": evaluation.evaluate(saved, saved.source_prior, uniform),
        "metrics_shifted": evaluation.evaluate_shifts(
            saved, evaluation.feasible(REPORTED_SHIFTS, saved.per_class)
        ),
    }


def report(config, result, run):
    """Prints what a person wants to know of a finished run."""
    print(f"\n{config.dataset}, {config.loss}, {config.epochs} epochs in {run.path}")
    print("The model is told the label distribution and tested under it:\n")
    print(evaluation.format_table(result["metrics_shifted"]))
    if result["metrics_unadapted"] != result["metrics"]:
        unadapted = {"uniform, not told": result["metrics_unadapted"]}
        print("\n" + evaluation.format_table(unadapted))


def carry_out(config, run, origin, strategy):
    """Trains a run to its end, from where it stopped; returns its result, None if not the chief."""
    data = train_flags.load_data(config)
    if not FLAGS.overwrite:
        run.check_data(data)
    if FLAGS.overwrite or not run.read_history():
        check_images(data)
        tell_duplicates(config)
    # What the configuration can't do is refused here, before anything is written or deleted.
    with strategy.scope():
        trainee = training.build_trainee(config, data)
    if FLAGS.loop == "device":
        device_loop.check(config, data, trainee.model)
    is_chief = strategies.is_chief(strategy)
    if FLAGS.overwrite and is_chief:
        run.delete()
    with run.alone() if is_chief else contextlib.nullcontext():
        if is_chief:
            run.claim(config, data)
        strategies.wait_for_all(strategy)
        training.train(config, data, run, trainee.model, strategy, FLAGS.loop, FLAGS.keep_every)
        result = finish(config, data, run, trainee, origin) if is_chief else None
        strategies.wait_for_all(strategy)
    return result


def main():
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategies.make(FLAGS.strategy, FLAGS.replicas)
    origin = provenance.gather()
    config = train_flags.resolve_config()
    run = train_flags.run_folder(config)
    if FLAGS.init_from and run.path.resolve() == pathlib.Path(FLAGS.init_from).resolve():
        raise ValueError(f"--run_dir={run.path} must be another folder than --init_from")
    if not FLAGS.overwrite:
        run.check(config)
        if FLAGS.export:
            run.check_exportable()
    if run.finished and not FLAGS.overwrite:
        if config.dataset == "folder":
            run.check_data(train_flags.load_data(config))
        print(f"{run.path} is finished: shown as it is. --overwrite deletes it and starts again.")
        result = run.result(needed=("config", *METRICS))
    else:
        try:
            result = carry_out(config, run, origin, strategy)
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            raise ValueError(
                "another worker is gone. Start all of them again, with the same commands: the run "
                f"goes on from its last checkpoint ({error.message.splitlines()[0]})"
            ) from error
    if strategies.is_chief(strategy):
        report(config, result, run)
        if FLAGS.export:
            run.export()
            print(f"\nThe SavedModel is in {run.file('saved_model')}")


if __name__ == "__main__":
    flags.adopt_module_key_flags(train_flags)
    cli.run(main)
