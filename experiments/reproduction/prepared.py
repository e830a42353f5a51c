"""What prepare.py leaves in a data set's folder for train.py."""

from lade_tf.data.files import duplicates
from lade_tf.files import read_json, write_json

DUPLICATES = "duplicates.json"
SHOWN = 10


def write(path, splits, groups):
    """Writes which images are there more than once, and of which files that was found."""
    found = [
        {"split": split, "other": other, "same_class": same, "another_class": another}
        for (split, other), (same, another) in sorted(duplicates.counts(groups).items())
    ]
    content = {
        "files": duplicates.fingerprint(splits),
        "counts": found,
        "images": [[path for _, _, path in group] for group in groups],
    }
    write_json(path, content)


def pairs(groups):
    """Returns lines that name the first pairs of images that are the same."""
    lines = [
        f"  {path} ({split}) is {group[0][2]} ({group[0][0]})"
        for group in groups
        for split, _, path in group[1:]
    ]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"  and {more:,} more, see {DUPLICATES}"] if more > 0 else [])


def summary(path, splits):
    """Returns the table of what prepare.py found, "" if nothing or if files have changed since."""
    try:
        content = read_json(path)
        found = {
            (row["split"], row["other"]): [row["same_class"], row["another_class"]]
            for row in content["counts"]
        }
        is_current = content["files"] == duplicates.fingerprint(splits)
        lines = duplicates.table(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be as prepare.py writes it: delete it, or call prepare.py again"
        ) from error
    return "".join(f"{line}\n" for line in lines) if found and is_current else ""
