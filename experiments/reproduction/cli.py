"""How every binary here starts and how it says what is wrong."""

import os
import pathlib
import re
import sys

import tensorflow as tf
from absl import app, flags, logging


def check_new_file(path, flag="--output", overwrite=None):
    """Raises a ValueError unless `path` is None or a new file in an existing folder.

    `overwrite`: whether an old file will do as well; None for a binary without that flag.
    """
    if path is None:
        return
    path = pathlib.Path(path)
    check_new(path, f"{flag}=", overwrite and not path.is_dir())
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path} must lie in an existing folder")


def check_new(path, prefix="", overwrite=None, kind="file"):
    """Raises a ValueError if something is there already, unless it is to be overwritten."""
    if pathlib.Path(path).exists() and not overwrite:
        way_out = f"give a new {kind}" + (" or --overwrite" if overwrite is False else "")
        raise ValueError(f"{prefix}{path} exists already: {way_out}")


def check_run(path, more=""):
    """Raises a ValueError with the right flag, and `more`, if `path`, of --run, is a SavedModel."""
    if path and pathlib.Path(path, "saved_model.pb").exists():
        raise ValueError(
            f"--run={path} must be a run folder, it is a SavedModel: give --model={path}{more}"
        )


def _message(error):
    """Returns what an error says; of an assertion in a graph no more than its own words."""
    # Imported late: not every binary reads images, and each starts with this file.
    from lade_tf.data.files.file_reading import explained

    if isinstance(error, tf.errors.OpError) and (text := explained(error.message)):
        return text
    asserted = re.search(r"assertion failed: \[(.*)\]", str(error))
    if asserted:
        return asserted.group(1)
    if isinstance(error, (OSError, tf.errors.OpError)):  # not in the words of this project
        return f"{error} (--verbosity=1 shows where)"
    return in_shell_terms(str(error))


def in_shell_terms(text):
    """Returns what the library says of an argument as it is said of the flag of that name."""
    name, *rest = text.split(" must ", 1)
    if not rest or name not in flags.FLAGS:
        return text
    said = re.sub("; got None$", "; it isn't given", f"--{name} must {rest[0]}", flags=re.MULTILINE)
    return re.sub(r"^(\S+) must be None", r"leave out \1", said)


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
            sys.exit(f"{os.path.basename(sys.argv[0])}: {_message(error)}")

    app.run(guarded)
