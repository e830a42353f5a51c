"""Writes one HTML page that shows runs under any label distribution.

    python experiments/report.py --runs=DIR,DIR --output=report.html

A DIR is a finished run folder or one of those under experiments/results that keep their logits. The
page embeds the test logits and computes every number from them in the browser, under the target
prior that its reader sets: it loads nothing, so it can be mailed or archived. Its layout and its
script are lade_tf's (`lade_tf.evaluation.write_page`).
"""

import pathlib

from absl import flags
from reproduction import cli, finished_runs

from lade_tf import evaluation
from lade_tf.files import read_json

FLAGS = flags.FLAGS


def write_report(paths, output, overwrite=False):
    """Writes the page of the runs in the folders `paths` to the file `output`."""
    if not paths:
        raise ValueError("--runs must name at least one run folder")
    output = pathlib.Path(output)
    cli.check_new_file(output, overwrite=overwrite)
    loaded = [finished_runs.load_run(path) for path in paths]
    names = _names(loaded)
    evaluation.write_page(
        {name: run.saved for name, run in zip(names, loaded, strict=True)},
        output,
        {name: _description(run) for name, run in zip(names, loaded, strict=True)},
        overwrite,
    )


def _names(loaded):
    """Returns the folders' names, or the paths where two folders share one."""
    names = [run.path.resolve().name for run in loaded]
    return names if len(set(names)) == len(names) else [str(run.path) for run in loaded]


def _description(run):
    """Returns {heading: text} of what there is to say of a run."""
    result = read_json(run.path / "result.json")
    facts = {
        "data set": run.config.dataset,
        "loss": run.config.loss,
        "estimator": run.config.estimator,
        "epochs": run.config.epochs,
        "seed": run.config.seed,
        **evaluation.describe(run.saved),
        "command": result.get("command"),
        "commit": result.get("commit"),
    }
    return {heading: str(value) for heading, value in facts.items() if value is not None}


def main():
    if FLAGS.output is None:
        raise ValueError("give --output, the HTML file to write")
    write_report(FLAGS.runs, FLAGS.output, FLAGS.overwrite)


if __name__ == "__main__":
    flags.DEFINE_list("runs", [], "Finished run folders, tested on the same images.")
    flags.DEFINE_string("output", None, "HTML file to write; must be new.")
    flags.DEFINE_bool("overwrite", False, "Replace --output if it exists.")
    cli.run(main)
