"""Writes one HTML page that shows runs under any label distribution.

    python experiments/report.py --runs=DIR,DIR --output=report.html

A DIR is a finished run folder or one of those under experiments/results that keep their logits. The
page embeds the test logits and computes every number from them in the browser, under the target
prior that its reader sets: it loads nothing, so it can be mailed or archived. Its layout and its
script are report_page.html.
"""

import base64
import gzip
import html
import json
import pathlib
import re

import numpy as np
from absl import flags
from reproduction import cli, comparison, evaluation
from reproduction.files import read_json, replacing

from lade_tf.metrics.accuracy import shot_groups
from lade_tf.metrics.calibration import NUM_BINS, SMALLEST_PROBABILITY

FLAGS = flags.FLAGS
TEMPLATE = pathlib.Path(__file__).with_name("report_page.html")


def write_report(paths, output, overwrite=False):
    """Writes the page of the runs in the folders `paths` to the file `output`."""
    output = pathlib.Path(output)
    if not paths:
        raise ValueError("--runs must name at least one run folder")
    if output.exists() and not overwrite:
        raise ValueError(f"--output={output} exists already: give a new file or --overwrite")
    if not output.parent.is_dir():
        raise ValueError(f"--output={output} must lie in an existing folder")
    text = page([comparison.load_run(path) for path in paths])
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(loaded):
    """Returns the HTML of `comparison.Run`s that were tested on the same images."""
    parts = {
        "DATA": json.dumps(page_data(loaded), allow_nan=False).replace("<", "\\u003c"),
        "TABLE": html.escape(_uniform_table(loaded)),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template)


def page_data(loaded):
    """Returns what the page computes from, as JSON-able values."""
    first = loaded[0].saved
    stops = _stops(first)
    for run in loaded[1:]:
        same_images = np.array_equal(run.saved.labels, first.labels)
        if not (same_images and _class_names(run) == _class_names(loaded[0])):
            raise ValueError(
                f"--runs must be tested on the same images; {run.path} and {loaded[0].path} aren't"
            )
        if _stops(run.saved) != stops:
            raise ValueError(
                f"--runs must rank the classes alike; {run.path} and {loaded[0].path} don't"
            )
    return {
        "class_names": _class_names(loaded[0]),
        "labels": first.labels.tolist(),
        "stops": stops,
        "num_bins": NUM_BINS,
        "smallest_probability": SMALLEST_PROBABILITY,
        "runs": [
            {
                "name": name,
                "description": _description(run),
                "counts": run.saved.counts.tolist(),
                "groups": _groups(run.saved.counts),
                "source_prior": run.saved.source_prior.tolist(),
                "logits": _compressed(run.saved.logits),
            }
            for name, run in zip(_names(loaded), loaded, strict=True)
        ],
    }


def _stops(saved):
    """Returns the priors of section 4.3, backward to forward, that leave every class an image."""
    per_class = evaluation.per_class(saved)
    if per_class == 0:
        raise ValueError("the test set must hold every class")
    return [
        {
            "name": name.replace(":", " "),
            "prior": evaluation.prior_for(saved, name).tolist(),
        }
        for name in reversed(evaluation.feasible(evaluation.PROTOCOL, per_class))
    ]


def _groups(counts):
    """Returns the shot group of every class: 0 for many, 1 for medium, 2 for few."""
    return np.argmax(list(shot_groups(counts).values()), axis=0).tolist()


def _compressed(logits):
    """Returns [samples, classes] logits as base64 of gzip of little-endian float32."""
    return base64.b64encode(gzip.compress(logits.astype("<f4").tobytes(), mtime=0)).decode()


def _class_names(run):
    return [str(name) for name in run.saved.class_names]


def _names(loaded):
    """Returns the folders' names, or the paths where two folders share one."""
    names = [run.path.resolve().name for run in loaded]
    return names if len(set(names)) == len(names) else [str(run.path) for run in loaded]


def _description(run):
    """Returns {heading: text} of what there is to say of a run."""
    result, counts = read_json(run.path / "result.json"), run.saved.counts
    facts = {
        "data set": run.config.get("dataset"),
        "loss": run.config.get("loss"),
        "estimator": run.config.get("estimator"),
        "epochs": run.config.get("epochs"),
        "seed": run.config.get("seed"),
        "training images": f"{counts.max()} to {counts.min()} a class, {counts.sum()} in all",
        "test images": f"{evaluation.per_class(run.saved)} a class, {len(run.saved.labels)} in all",
        "logits carry": _carried(run.saved),
        "command": result.get("command"),
        "commit": result.get("commit"),
    }
    return {heading: str(value) for heading, value in facts.items() if value is not None}


def _carried(saved):
    """Returns in words which prior the logits carry."""
    if np.ptp(saved.source_prior) < 1e-9:
        return "the uniform prior"
    training = np.allclose(saved.source_prior, saved.counts / saved.counts.sum())
    return "the training prior" if training else "a prior of their own"


def _uniform_table(loaded):
    """Returns what a reader without JavaScript sees."""
    results = {
        name: evaluation.evaluate_priors(run.saved, ["uniform"])["uniform"]
        for name, run in zip(_names(loaded), loaded, strict=True)
    }
    return evaluation.format_table(results, first_column="run")


def main():
    if FLAGS.output is None:
        raise ValueError("give --output, the HTML file to write")
    write_report(FLAGS.runs, FLAGS.output, FLAGS.overwrite)


if __name__ == "__main__":
    flags.DEFINE_list("runs", [], "Finished run folders, tested on the same images.")
    flags.DEFINE_string("output", None, "HTML file to write; must be new.")
    flags.DEFINE_bool("overwrite", False, "Replace --output if it exists.")
    cli.run(main)
