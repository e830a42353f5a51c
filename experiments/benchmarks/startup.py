"""How long the library and a binary take to start, as ratios measured in one run.

    cd experiments && python -m benchmarks.startup --output=FILE.json

Fresh processes take turns: `import tensorflow, keras`, which nobody here can do without, then
`import lade_tf` and `train.py --help`. Shown are the medians of the turns' ratios to the first.
"""

import functools
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
from absl import flags
from reproduction import cli, provenance

from benchmarks.turns import ratio, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 9, "Processes of each that are timed.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

ROOT = pathlib.Path(__file__).parents[2]
BASE = "import tensorflow, keras"
COMMANDS = {
    BASE: ("-c", BASE),
    "import lade_tf": ("-c", "import lade_tf"),
    "train.py --help": (str(ROOT / "experiments" / "train.py"), "--help"),
}


def start(*arguments):
    """Runs Python to its end, quietly."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    # absl ends --help with 1.
    if process.returncode and "--help" not in arguments:
        raise OSError(f"python {' '.join(arguments)} failed: {process.stderr}")


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    work = {name: functools.partial(start, *command) for name, command in COMMANDS.items()}
    seconds = take_turns(work, FLAGS.turns)
    result = {}
    for name in list(COMMANDS)[1:]:
        result[f"{name} / {BASE}"] = ratio(seconds, name, BASE)
    result["median_seconds"] = {n: round(float(np.median(s)), 2) for n, s in seconds.items()}
    for name, value in result.items():
        print(f"{name:48}{value}")
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, result, started)


if __name__ == "__main__":
    cli.run(main)
