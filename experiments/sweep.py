"""Runs what is missing of a suite of trainings, one after the other.

    python experiments/sweep.py --suite=cifar100_lt --list
    python experiments/sweep.py --suite=cifar100_lt --data_dir=PATH

A suite (paper/suites.py) is a list of calls of train.py. One whose result lies in its run
folder or below --results isn't run again; one that was broken off goes on from its checkpoint.
Without --precision a result below --results counts whatever its precision, and what is missing is
trained in float32: the tables' means take both, their paired comparisons only runs of one
precision. With --precision only results in it count. The committed runs of the full recipe are in
bfloat16: --precision=bfloat16 goes on with them.

result.json and history.csv of finished runs are copied to --results, with a predictions.npz in the
place of their test logits (reproduction/predictions.py; a few keep their logits, in float16), those
of fewer epochs than the recipe's to its folder short; another run's result is never replaced. The
run folders keep everything. A run that fails doesn't stop the others: the end names it, with exit
code 1. Ctrl-C and SIGTERM stop the training with a checkpoint; the same command goes on from there.

A second stage needs the weights of its softmax run, which aren't among the results that are
copied. Where they are missing it fails, or, with --repeat_first_stages, softmax is trained again.
"""

import pathlib
import signal
import sys

from absl import flags
from paper import suites, sweeps
from reproduction import cli, methods

FLAGS = flags.FLAGS
RESULTS = pathlib.Path(__file__).with_name("results")


def chosen_suite():
    """Returns the suite that the flags name."""
    if FLAGS.grid == bool(FLAGS.suite):
        raise ValueError("give either --suite or --grid")
    if FLAGS.imbalance_ratio and not FLAGS.grid:
        raise ValueError("--imbalance_ratio is for --grid")
    if not all(seed.isdecimal() for seed in FLAGS.seeds or ()):
        raise ValueError(f"--seeds must be integers like 0,1,2; got {','.join(FLAGS.seeds)}")
    options = {"seeds": tuple(map(int, FLAGS.seeds))} if FLAGS.seeds else {}
    if FLAGS.imbalance_ratio:
        options["imbalance_ratio"] = FLAGS.imbalance_ratio
    return (suites.grid if FLAGS.grid else suites.SUITES[FLAGS.suite])(**options)


def main():
    common = {"precision": FLAGS.precision, "epochs": FLAGS.epochs}
    planned = sweeps.plan(chosen_suite(), common, FLAGS.runs_dir, FLAGS.results)
    results = sweeps.FinishedResults(FLAGS.results, any_precision=FLAGS.precision is None)
    if FLAGS.list:
        print(sweeps.format_list(planned, results))
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        failed = sweeps.carry_out(planned, results, FLAGS.data_dir, FLAGS.repeat_first_stages)
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from there")
    print(sweeps.format_list(planned, results))
    if failed:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        raise ValueError(f"{len(failed)} of {len(planned)} runs failed: {reasons}")


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_enum("suite", None, list(suites.SUITES), "What to run.")
    flags.DEFINE_bool("grid", False, "Run LADE's grid of alpha and lambda instead of a suite.")
    flags.DEFINE_float("imbalance_ratio", None, "Of --grid; default 100.", lower_bound=1)
    flags.DEFINE_bool("list", False, "Show what is done and what is missing, and run nothing.")
    flags.DEFINE_list("seeds", None, "Training seeds; default the suite's.")
    flags.DEFINE_integer("epochs", None, "Epochs; default the suite's.", lower_bound=1)
    flags.DEFINE_enum(
        "precision",
        None,
        list(methods.POLICIES),
        "Compute precision, and the only one whose results count; default float32, and all count.",
    )
    flags.DEFINE_string(
        "data_dir", None, "Prepared tensorflow-datasets folder; default TFDS_DATA_DIR."
    )
    flags.DEFINE_string("runs_dir", "runs", "Folder of the run folders.")
    flags.DEFINE_string("results", str(RESULTS), "Folder of finished results.")
    flags.DEFINE_bool(
        "repeat_first_stages", False, "Train softmax again where a second stage needs its weights."
    )
    cli.run(main)
