"""How a result came about."""

import contextlib
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata

import tensorflow as tf

from lade_tf.files import write_json

# Environment variables that change the last bits of what is measured, or its speed.
NUMERICAL = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")


def write_measured(path, content, start):
    """Writes what was measured since `start`, of time.monotonic, with seconds and provenance."""
    seconds = round(time.monotonic() - start, 1)
    write_json(path, {**content, "seconds": seconds, **gather()})


def gather():
    """Returns how a result came about: command, environment, versions, hardware and git commit."""
    packages = ("tensorflow", "keras", "keras-cv", "tensorflow-datasets", "numpy")
    gpus = [
        tf.config.experimental.get_device_details(device).get("device_name", device.name)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return {
        "command": _command(),
        "environment": {name: os.environ[name] for name in NUMERICAL if name in os.environ},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "hardware": {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpus": gpus},
        "commit": _git_commit(),
    }


def _command():
    module = sys.modules["__main__"].__spec__  # of python -m
    script = ["-m", module.name] if module else sys.argv[:1]
    return shlex.join(["python", *script, *sys.argv[1:]])


def _cpu_name():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_commit():
    """Returns the commit of this checkout, with "-dirty" if tracked files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
