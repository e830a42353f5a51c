"""Files that are replaced in one step, so that a kill leaves the old one or the new one."""

import contextlib
import hashlib
import json
import os
import pathlib
import re

TEMPORARY = "tmp-"

# As json indents a list in which nothing else is nested.
NUMBERS = re.compile(r"\[\n\s+([^\[\]{}\"]+?)\n\s+\]")


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary name beside `path`; on success it takes the place of `path`."""
    path = pathlib.Path(path)
    # Keras looks at the file's endings, so they stay.
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, content):
    """Writes `content` in one step, lists of numbers on a line; the folder must exist."""
    text = json.dumps(content, indent=2)
    text = NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def read_json(path):
    """Returns the JSON object in a file."""
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object; it holds a {type(content).__name__}")
    return content


def hash_of(path):
    """Returns the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def alone(folder):
    """Keeps other processes from training into a folder, which is made if there is none.

    Raises:
        ValueError: another process is inside.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            import fcntl  # late: Windows has none, and can't open a folder either

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is training in {folder}: wait for it or end it, or give another "
                "folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
