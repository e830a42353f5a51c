"""Writes a whole training as one portable XLA program, and brings its results back into a run.

    cd experiments
    python -m studies.export_program FLAGS OF train.py --output=FOLDER
    # elsewhere: run FOLDER/program.hlo, from arguments.npz on, and write FOLDER/results.npz
    python -m studies.export_program THE SAME FLAGS --import=FOLDER --seconds=60 --device=TEXT
    python train.py THE SAME FLAGS

The program trains as `--loop=device` does, with the data and all random numbers on the device. It
needs an accelerator with a PJRT client (JAX, say) and nothing of TensorFlow, Keras or lade_tf.
After the import train.py tests the model and writes the result, or trains on if epochs are left.
The result's `hardware` is the machine that does this; `trained_on` has the --device of the program.

    program.hlo      serialized HLO module; it trains --epochs_per_call epochs
    arguments.npz    arr_0, arr_1, …: its arguments, in order
    program.json     the run's config, `calls`, `carry`, and what arguments and results are
    results.npz      to be written there: arr_0, arr_1, …: the results of the last call, in order

The first `carry` results of a call are the first `carry` arguments of the next; `calls` make the
run. The program starts from the last checkpoint of the run folder, --run_dir or train.py's default.
"""

import pathlib
import zipfile

import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, device_loop, provenance, train_flags, training
from reproduction.config import RunConfig

from lade_tf.files import read_json, write_json
from lade_tf.training import checkpoints

FLAGS = flags.FLAGS

PROGRAM, ARGUMENTS, RESULTS = "program.hlo", "arguments.npz", "results.npz"
MANIFEST = "program.json"


def export(folder, config, program, initial_epoch, epochs_per_call, data):
    """Writes the program that trains from `initial_epoch` to the end into a new folder.

    Args:
        folder: path, must not exist.
        config: of the run.
        program: its `device_loop.EpochProgram`; its variables are where the training starts.
        initial_epoch: epochs already done.
        epochs_per_call: epochs that a call trains, or None for all that are left.
        data: `lade_tf.data.ImageData`.

    Returns:
        The manifest.
    """
    left = config.num_epochs - initial_epoch
    per_call = epochs_per_call or left
    if not left or left % per_call:
        raise ValueError(
            f"--epochs_per_call={per_call} must divide the {left} epochs left to train"
        )
    columns = [*program.metrics, "learning_rate"]
    names = [variable.path for variable in program.variables]
    history = tf.zeros([config.num_epochs, len(columns)])
    carried = [*program.values(), tf.constant(initial_epoch), history]
    resident = [tf.constant(data.train.images), tf.constant(data.train.labels)]
    compiled = tf.function(
        lambda carried, images, labels: run_epochs(program, per_call, carried, images, labels),
        jit_compile=True,
        autograph=False,
    )
    module = compiled.experimental_get_compiler_ir(carried, *resident)(stage="hlo_serialized")
    manifest = {
        "config": config.to_json(),
        "initial_epoch": initial_epoch,
        "calls": left // per_call,
        "carry": len(carried),
        "history_columns": columns,
        "results": [*names, "epoch", "history"],
        "arguments": [*names, "epoch", "history", "images", "labels"],
        **provenance.gather(),
    }
    folder.mkdir()
    (folder / PROGRAM).write_bytes(module)
    np.savez(folder / ARGUMENTS, *(value.numpy() for value in [*carried, *resident]))
    write_json(folder / MANIFEST, manifest)
    return manifest


def run_epochs(program, count, carried, images, labels):
    """Trains `count` epochs: the state, the epoch and the history go in and come out."""

    def epoch(number, values, epoch, history):
        values, metrics, learning_rate = program.epoch(values, epoch, images, labels)
        row = tf.concat([metrics, [learning_rate]], axis=0)
        history = tf.tensor_scatter_nd_update(history, [[epoch]], row[None])
        return number + 1, values, epoch + 1, history

    *values, first, history = carried
    _, values, last, history = tf.while_loop(
        lambda number, *_: number < count, epoch, (0, values, first, history)
    )
    return [*values, last, history]


def import_results(folder, config, data, run, model, program, seconds, device):
    """Writes the results of a program as history and last checkpoint of its run.

    Args:
        folder: of the program and its results.
        config: of the run; that of the program.
        data: the data set of `config`.
        run: `RunFolder`.
        model: built from `config`; it gets the trained weights.
        program: `device_loop.EpochProgram` of the model.
        seconds: what the epochs took.
        device: what they were trained on, for the result.

    Returns:
        Epochs done.
    """
    manifest = read_json(folder / MANIFEST)
    first = manifest["initial_epoch"]
    if wrong := sorted(RunConfig.from_json(manifest["config"]).differing(config)):
        raise ValueError(
            f"--import={folder} is of another configuration: {', '.join(wrong)} differ"
        )
    values, done, rows = _read_results(folder / RESULTS, program, manifest["history_columns"])
    for epoch in range(first, done):
        device_loop.check_finite(rows[epoch]["loss"], epoch, run)
    run.claim(config, data)
    found = checkpoints.restore(run, model)
    if (found.epoch, found.step) != (first, 0):
        raise ValueError(
            f"the program starts after epoch {first}; the last checkpoint in {run.path} is of "
            f"epoch {found.epoch}, step {found.step}: give another --run_dir"
        )
    program.assign(values)
    share = seconds / (done - first)
    speed = program.steps * config.batch_size / share
    clocks = {"seconds": share, "cpu_seconds": 0.0, "images_per_second": round(speed, 1)}
    new = [{"epoch": epoch + 1, **rows[epoch], **clocks} for epoch in range(first, done)]
    run.write_history([*run.read_history()[:first], *new])
    run.note_trained_on(device, first + 1, done)
    checkpoints.save(run, model, checkpoints.Progress(done))
    return done


def _read_results(path, program, columns):
    """Returns (values, epochs done, history as dicts), or refuses another program's results."""
    try:
        with np.load(path) as archive:
            *values, done, history = [archive[f"arr_{i}"] for i in range(len(archive.files))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} can't be read as the results of a program: {error}") from error
    if [v.shape for v in values] != [tuple(v.shape) for v in program.variables]:
        raise ValueError(f"{path} must hold what {MANIFEST} lists under results; shapes differ")
    rows = [dict(zip(columns, map(float, row), strict=True)) for row in history]
    return values, int(done), rows


def main():
    source = FLAGS["import"].value
    if (FLAGS.output is None) == (source is None):
        raise ValueError("give either --output or --import")
    if source and (FLAGS.seconds is None or not FLAGS.device):
        raise ValueError("--import needs --seconds and --device: how long it took, and on what")
    if FLAGS.overwrite:
        raise ValueError("--overwrite means nothing here: give another --run_dir")
    cli.check_new_file(FLAGS.output)
    config = train_flags.resolve_config()
    data = train_flags.load_data(config)
    if training.validation_batches(config, data) is not None:
        raise ValueError(
            f"--dataset={config.dataset} has validation images, which an exported program can't "
            "select the best epoch on: use --loop=device"
        )
    model = training.build_trainee(config, data).model
    program = device_loop.EpochProgram(config, data, model)
    run = train_flags.run_folder(config)
    if source:
        done = import_results(
            pathlib.Path(source), config, data, run, model, program, FLAGS.seconds, FLAGS.device
        )
        print(f"{run.path}: {done} epochs done. train.py with the same flags goes on from there")
        return
    run.check(config)
    progress = checkpoints.restore(run, model)
    if progress.step:
        raise ValueError(f"{run.path} stopped inside an epoch: end that with train.py")
    if progress.epoch == config.num_epochs:
        raise ValueError(f"{run.path} has no epoch left to train: give another --run_dir")
    folder = pathlib.Path(FLAGS.output)
    manifest = export(folder, config, program, progress.epoch, FLAGS.epochs_per_call, data)
    paths = " ".join(str(folder / name) for name in (PROGRAM, ARGUMENTS, RESULTS))
    print(f"{paths} --calls={manifest['calls']} --carry={manifest['carry']}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder to write the program to; must be new.")
    flags.DEFINE_string("import", None, "Folder of a program, with its results.npz.")
    flags.DEFINE_integer(
        "epochs_per_call", None, "Epochs that a call trains; default all.", lower_bound=1
    )
    flags.DEFINE_float("seconds", None, "With --import: what the calls took.", lower_bound=1e-3)
    flags.DEFINE_string("device", None, "With --import: what it ran on, NVIDIA H100 for example.")
    flags.adopt_module_key_flags(train_flags)
    cli.run(main)
