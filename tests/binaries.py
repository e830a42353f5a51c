"""Binaries are run as a user runs them: another process, real flags, small real data."""

import multiprocessing
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys
import tempfile

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
TINY = ("--dataset=digits_lt", "--epochs=3", "--batch_size=64")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}

# TensorFlow takes seconds to import: one process does it and forks for every run.
os.environ.update(QUIET)
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["tensorflow", "keras", "lade_tf", "sklearn.datasets", "h5py"])


def start(program, *flags, cwd, environment=None):
    """Starts a binary by its command and returns the process; its output is captured as text.

    `program` is a script, "train.py", or a module, "studies.gaussian_toy".
    """
    script = [str(EXPERIMENTS / program)] if program.endswith(".py") else ["-m", program]
    path = os.pathsep.join(filter(None, [str(EXPERIMENTS), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, *script, *map(str, flags)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET, "PYTHONPATH": path, **(environment or {})},
    )


def run(program, *flags, cwd, fails=False, largest_file=None):
    """Runs a binary to its end; returns its output, or its error output if it is to fail.

    `program`: as `start`.
    `largest_file`: bytes that no file that it writes may exceed.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("output", "errors")]
        arguments = (program, list(map(str, flags)), str(cwd), dict(os.environ))
        arguments += (largest_file,)
        process = server.Process(target=_run, args=(*arguments, *paths))
        process.start()
        process.join()
        output, errors = (pathlib.Path(path).read_text() for path in paths)
    assert (process.exitcode != 0) == fails, output + errors
    return errors if fails else output


def _run(program, flags, cwd, environment, largest_file, *paths):
    """Does in a forked process what `python program flags` does, or `python -m program flags`."""
    if largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    for descriptor, path in zip((1, 2), paths, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    script = str(EXPERIMENTS / program)
    sys.argv = [script, *flags]
    sys.path.insert(0, str(EXPERIMENTS))
    if program.endswith(".py"):
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
