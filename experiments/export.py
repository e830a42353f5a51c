"""Exports a finished run as a SavedModel that TensorFlow alone can serve.

    python experiments/export.py --run=runs/NAME --output=FOLDER --target_prior=backward:50

`lade_tf.models.export` describes the signatures. The target prior can still be changed when the
model is served; the flag sets the one it starts with.
"""

import pathlib

import binary
import evaluation
import runs
from absl import flags

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "Run folder of experiments/train.py.", required=True)
flags.DEFINE_string("output", None, "Folder to write, new or empty; default RUN/saved_model.")
flags.DEFINE_string("target_prior", "uniform", f"What it starts with: {evaluation.PRIOR_NAMES}.")


def main():
    run = runs.RunFolder(FLAGS.run)
    output = pathlib.Path(FLAGS.output or run.file("saved_model"))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output={output} must be a new or empty folder")
    saved = run.test_logits()
    prior = evaluation.resolve_prior(FLAGS.target_prior, saved.counts, evaluation.per_class(saved))
    model = runs.load_model(run.file("best.keras"))
    model.set_target_prior(prior)
    model.export(output, class_names=saved.class_names.tolist())
    print(f"{output}: target prior {FLAGS.target_prior}")


if __name__ == "__main__":
    binary.run(main)
