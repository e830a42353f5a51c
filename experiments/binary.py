"""How every binary here starts and how it says what is wrong.

Imported first: TensorFlow reads its log level when it is imported.
"""

import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, logging


def check_new_file(path, flag="--output"):
    """Raises a ValueError unless `path` is None or a new file in an existing folder."""
    if path is None:
        return
    path = pathlib.Path(path)
    if path.exists():
        raise ValueError(f"{flag}={path} exists already: give a new file")
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path} must lie in an existing folder")


def _message(error):
    """Returns what an error says; of an assertion in a graph no more than its own words."""
    # Imported late: not every binary reads images, and each starts with this file.
    from lade_tf.data.file_reading import explained

    if isinstance(error, tf.errors.OpError) and (text := explained(error.message)):
        return text
    asserted = re.search(r"assertion failed: \[(.*)\]", str(error))
    return asserted.group(1) if asserted else error


def run(main):
    """Runs `main()` with parsed flags; bad input ends it with one message and exit code 1.

    `--verbosity=1` shows the traceback as well.
    """

    def guarded(argv):
        debugging = logging.get_verbosity() >= logging.DEBUG
        if not debugging:
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise ValueError(f"unexpected argument {argv[1]!r}: flags look like --name=value")
            main()
        except (ValueError, OSError, FloatingPointError, tf.errors.OpError) as error:
            if debugging:
                raise
            text = _message(error)
            sys.exit(f"{os.path.basename(sys.argv[0])}: {text} (--verbosity=1 shows where)")

    app.run(guarded)
