"""One HTML page that shows classifiers under any label distribution.

It embeds the test logits and computes every number from them in the browser, under the target prior
that its reader sets. It loads nothing, so it can be mailed or archived. Layout and script are
page.html.
"""

import base64
import gzip
import html
import importlib.resources
import json
import pathlib
import re

import numpy as np

from lade_tf.evaluation.shifted_metrics import (
    evaluate_shifts,
    format_table,
    prior_for,
    tested_counts,
)
from lade_tf.evaluation.shifts import SHIFTS, remarks
from lade_tf.files import replacing
from lade_tf.metrics.accuracy import shot_groups
from lade_tf.metrics.calibration import NUM_BINS, SMALLEST_PROBABILITY

# What the page shows without JavaScript.
PLAIN = {"test": "The test set as it is:", "uniform": "All classes equally frequent:"}


def write_page(classifiers, path, descriptions=None, overwrite=False):
    """Writes the page of classifiers that were tested on the same images.

    >>> lade_tf.evaluation.write_page({"LADE": saved, "softmax": other}, "report.html")

    Args:
        classifiers: {name: `SavedLogits`}, at least one.
        path: the file to write, in a folder that exists.
        descriptions: {name: {heading: text}}, what the page says of a classifier; `describe` of
            those that it leaves out.
        overwrite: whether the file may exist; it is replaced in one step.

    Raises:
        ValueError: if the file may not be written, and as `page_html`.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise ValueError(f"path must be a new file, or overwrite=True given; {path} exists already")
    if not path.parent.is_dir():
        raise ValueError(f"path must lie in an existing folder; got {path}")
    text = page_html(classifiers, descriptions)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_html(classifiers, descriptions=None):
    """Returns the page as text.

    Args:
        classifiers, descriptions: as of `write_page`.

    Raises:
        ValueError: if there is no classifier, or if they were tested on other images or name or
            rank the classes otherwise.
    """
    content = json.dumps(_content(classifiers, descriptions or {}), allow_nan=False)
    found = {name: evaluate_shifts(saved, list(PLAIN)) for name, saved in classifiers.items()}
    tables = [
        f"{heading}\n\n{format_table({n: rows[prior] for n, rows in found.items()}, 'run')}"
        for prior, heading in PLAIN.items()
    ]
    first = next(iter(classifiers.values()))
    said = remarks(tested_counts(first), _class_names(first))
    parts = {
        "DATA": content.replace("<", "\\u003c"),
        "TABLE": html.escape("\n\n".join(tables)),
        "REMARKS": "".join(f'<p class="note">{html.escape(text)}</p>\n' for text in said),
    }
    template = importlib.resources.files("lade_tf.evaluation").joinpath("page.html")
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template.read_text(encoding="utf-8"))


def describe(saved):
    """Returns {heading: text} of what `SavedLogits` tell of a classifier."""
    counts, tested = saved.counts, tested_counts(saved)
    most, least = tested.max(), tested.min()
    per_class = f"{most} to {least}" if least < most else f"{least}"
    return {
        "training images": f"{counts.max()} to {counts.min()} a class, {counts.sum()} in all",
        "test images": f"{per_class} a class, {len(saved.labels)} in all",
        "logits carry": _carried_prior(saved),
    }


def _content(classifiers, descriptions):
    """Returns what the page computes from, as JSON-able values."""
    if not classifiers:
        raise ValueError("classifiers must hold at least one; got none")
    if unknown := set(descriptions) - set(classifiers):
        raise ValueError(f"descriptions must be of the classifiers; {min(unknown)!r} is none")
    (first_name, first), *others = classifiers.items()
    stops = _stops(first)
    for name, saved in others:
        same_images = np.array_equal(saved.labels, first.labels)
        if not (same_images and _class_names(saved) == _class_names(first)):
            raise ValueError(
                f"classifiers must be tested on the same images; {name!r} and {first_name!r} aren't"
            )
        if _stops(saved) != stops:
            raise ValueError(
                f"classifiers must rank the classes alike; {name!r} and {first_name!r} don't"
            )
    return {
        "class_names": _class_names(first),
        "labels": first.labels.tolist(),
        "stops": stops,
        "as_it_is": prior_for(first, "test").tolist(),
        "num_bins": NUM_BINS,
        "smallest_probability": SMALLEST_PROBABILITY,
        "runs": [
            {
                "name": name,
                "description": descriptions.get(name) or describe(saved),
                "counts": saved.counts.tolist(),
                "groups": _groups(saved.counts),
                "source_prior": saved.source_prior.tolist(),
                "logits": _compressed(saved.logits),
            }
            for name, saved in classifiers.items()
        ],
    }


def _stops(saved):
    """Returns the priors of section 4.3, backward to forward."""
    return [
        {"name": name.replace(":", " "), "prior": prior_for(saved, name).tolist()}
        for name in reversed(SHIFTS)
    ]


def _class_names(saved):
    if saved.class_names is None:
        return [f"class {c}" for c in range(len(saved.counts))]
    return [str(name) for name in saved.class_names]


def _groups(counts):
    """Returns the shot group of every class: 0 for many, 1 for medium, 2 for few."""
    return np.argmax(list(shot_groups(counts).values()), axis=0).tolist()


def _compressed(logits):
    """Returns [samples, classes] logits as base64 of gzip of little-endian float32."""
    return base64.b64encode(gzip.compress(logits.astype("<f4").tobytes(), mtime=0)).decode()


def _carried_prior(saved):
    """Returns in words which prior the logits carry."""
    if np.ptp(saved.source_prior) < 1e-9:
        return "the uniform prior"
    training = np.allclose(saved.source_prior, saved.counts / saved.counts.sum())
    return "the training prior" if training else "a prior of their own"
