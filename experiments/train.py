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

from absl import flags
from reproduction import cli, device_loop, provenance, strategies, train_flags, training
from reproduction.run_folder import METRICS

from lade_tf import evaluation
from lade_tf.data.files import records

FLAGS = flags.FLAGS


def bad_images(data):
    """Returns [(file, why)] of the images that were left out."""
    return [(records.described(path), reason) for path, reason in data.bad_images]


def report(config, result, run):
    """Prints what a person wants to know of a finished run."""
    print(f"\n{config.dataset}, {config.loss}, {config.epochs} epochs in {run.path}")
    print("The model is told the label distribution and tested under it:\n")
    print(evaluation.format_table(result["metrics_shifted"]))
    for remark in result.get("remarks", ()):
        print("\n" + remark)
    if result["metrics_unadapted"] != result["metrics"]:
        unadapted = {"uniform, not told": result["metrics_unadapted"]}
        print("\n" + evaluation.format_table(unadapted))


def carry_out(config, run, origin, strategy):
    """Trains a run to its end, from where it stopped; returns its result, None if not the chief."""
    data = train_flags.load_data(config)
    if not FLAGS.overwrite:
        run.check_data(data)
    if FLAGS.overwrite or not run.read_history():
        train_flags.check_images(data)
        train_flags.tell_duplicates(config)
    # What the configuration can't do is refused here, before anything is written or deleted.
    with strategy.scope():
        trainee = training.build_trainee(config, data)
    if FLAGS.loop == "device":
        device_loop.check(config, data, trainee.model)
    more = {"bad_images": bad_images(data), **origin} if FLAGS.on_bad_image == "skip" else origin
    is_chief = strategies.is_chief(strategy)
    if FLAGS.overwrite and is_chief:
        run.delete()
    with run.alone() if is_chief else contextlib.nullcontext():
        if is_chief:
            run.claim(config, data)
        strategies.wait_for_all(strategy)
        training.train(config, data, run, trainee.model, strategy, FLAGS.loop, FLAGS.keep_every)
        result = training.finish(config, data, run, trainee, more) if is_chief else None
        strategies.wait_for_all(strategy)
    return result


def main():
    if FLAGS.deterministic:
        strategies.make_deterministic()
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
        except strategies.WORKER_GONE as error:
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
