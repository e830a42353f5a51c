"""Kills training runs at random moments and counts how many end as if nothing had happened.

    cd experiments && python -m studies.kill_runs --kills=25 --output=FILE.json

A run of digits_lt is trained once without a kill. Then others of the same command are killed with
SIGKILL again and again, every second time while a checkpoint is being written, and restarted until
they end. A run's kills are survived if its weights, optimizer, history and test logits are those of
the first run, bit for bit. What remains at the end is printed: survived / tried.

Runs are forked from a process that has imported TensorFlow: that takes longer than a kill's epochs.
"""

import multiprocessing
import os
import pathlib
import random
import runpy
import sys
import tempfile
import time

import h5py
import numpy as np
from absl import flags
from reproduction import cli, provenance
from reproduction.run_folder import RunFolder

FLAGS = flags.FLAGS
LONGEST_WAIT = 1.0  # seconds from a checkpoint to the kill
CLOCKS = ("seconds", "cpu_seconds", "images_per_second")


server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["tensorflow", "keras", "lade_tf", "sklearn.datasets", "h5py"])


def start(folder):
    """Starts the training of a run folder, or goes on with it, and returns its process."""
    flags_of_run = ("--dataset=digits_lt", "--loss=lade", f"--epochs={FLAGS.epochs}")
    process = server.Process(target=_train, args=(*flags_of_run, f"--run_dir={folder}"))
    process.start()
    return process


def _train(*given):
    """Does in a forked process what `python train.py FLAGS` does, without its output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    script = str(pathlib.Path(__file__).parents[1] / "train.py")
    sys.argv = [script, *given]
    runpy.run_path(script, run_name="__main__")


def finish(folder):
    """Trains a run to its end."""
    process = start(folder)
    process.join()
    if process.exitcode:
        raise ValueError(f"training in {folder} ended with exit code {process.exitcode}")


def kill_once(folder, moment, in_a_write):
    """Starts the run and kills it; returns whether it was still running."""
    checkpoint = folder / "last.weights.h5"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    process = start(folder)
    while process.is_alive() and _modified(checkpoint) == before:
        time.sleep(0.005)
    time.sleep(moment)
    while in_a_write and process.is_alive() and not any(folder.glob("tmp-*last.weights.h5")):
        pass
    process.kill()
    process.join()
    return process.exitcode < 0


def _modified(path):
    return path.stat().st_mtime_ns if path.exists() else None


def state(folder):
    """Returns {name: array or rows} of everything that a run computes, clocks aside."""
    run = RunFolder(folder)
    arrays = {"logits": run.test_logits().logits}
    with h5py.File(run.file("last.weights.h5")) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    for number, row in enumerate(run.read_history()):
        values = [value for name, value in sorted(row.items()) if name not in CLOCKS]
        arrays[f"history {number}"] = np.array(values)
    return arrays


def is_same(folder, expected):
    actual = state(folder)
    return actual.keys() == expected.keys() and all(
        np.array_equal(actual[name], array) for name, array in expected.items()
    )


def main():
    cli.check_new_file(FLAGS.output)
    started, moments = time.monotonic(), random.Random(FLAGS.seed)
    tried = survived = 0
    with tempfile.TemporaryDirectory() as parent:
        parent = pathlib.Path(parent)
        finish(parent / "whole")
        expected = state(parent / "whole")
        while tried < FLAGS.kills:
            folder = parent / f"killed-at-{tried}"
            kills = 0
            while kills < FLAGS.kills_per_run and tried + kills < FLAGS.kills:
                if not kill_once(folder, moments.uniform(0, LONGEST_WAIT), kills % 2 == 1):
                    break  # it ended before
                kills += 1
            finish(folder)
            tried += kills
            survived += kills if is_same(folder, expected) else 0
            print(f"survived / tried: {survived} / {tried}", flush=True)
            if not kills:
                raise ValueError(f"--epochs={FLAGS.epochs} end before a kill: give more")
    if FLAGS.output:
        result = {"survived": survived, "tried": tried, "seed": FLAGS.seed}
        provenance.write_measured(FLAGS.output, result, started)
    if survived < tried:
        raise ValueError(f"{tried - survived} of {tried} kills changed what the run ended with")


if __name__ == "__main__":  # not where a run is forked: train.py has flags of these names too
    flags.DEFINE_integer("kills", 25, "How many kills.", lower_bound=1)
    flags.DEFINE_integer("kills_per_run", 5, "Kills of one run before it may end.", lower_bound=1)
    flags.DEFINE_integer("epochs", 60, "Epochs of a run.", lower_bound=2)
    flags.DEFINE_integer("seed", 0, "Seed of the moments.")
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
