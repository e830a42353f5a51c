"""Binaries are run as a user runs them: another process, real flags, small real data."""

import os
import pathlib
import subprocess
import sys

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
TINY = ("--dataset=digits_lt", "--epochs=3", "--batch_size=64")


def start(script, *flags, cwd, **kwargs):
    """Starts a binary and returns the process; its output is captured as text."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, flags)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        **kwargs,
    )


def run(script, *flags, cwd, fails=False):
    """Runs a binary to its end; returns its output, or its error output if it is to fail."""
    process = start(script, *flags, cwd=cwd)
    output, errors = process.communicate()
    assert (process.returncode != 0) == fails, output + errors
    return errors if fails else output
