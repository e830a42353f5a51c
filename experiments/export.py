"""Exports a finished run as a SavedModel that TensorFlow alone can serve.

    python experiments/export.py --run=runs/NAME --output=FOLDER --target_prior=backward:50 \\
        --calibrate=VALIDATION

`lade_tf.models.export` describes the signatures. The target prior can still be changed when the
model is served; the flag sets the one it starts with. --calibrate is a labelled sample that the
model wasn't trained on, of any label distribution, as the --source of estimate_prior.py: a
temperature, fitted to it, makes the served probabilities right. Where the sample contradicts the
prior that the run's logits carry, a warning says so.
"""

import pathlib

import numpy as np
from absl import flags
from reproduction import classifiers, cli, image_files
from reproduction.run_folder import RunFolder

from lade_tf import evaluation, label_shift
from lade_tf.label_shift.carried_prior import find_contradiction
from lade_tf.models.export import TRAINING_PRIOR_ASSET

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "Run folder of experiments/train.py.", required=True)
flags.DEFINE_string("output", None, "Folder to write; default RUN/saved_model.")
flags.DEFINE_string("target_prior", "uniform", f"What it starts with: {evaluation.PRIOR_NAMES}.")
flags.DEFINE_string("calibrate", None, "Labelled images, unseen in training: a folder or .npz.")
flags.DEFINE_bool("overwrite", False, "Replace the exported model that --output holds.")


def check_output(output):
    """Raises a ValueError if `output` holds anything that the flags don't allow to replace."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "assets" / TRAINING_PRIOR_ASSET).exists():
        raise ValueError(f"--output={output} holds other things than an exported model")
    cli.check_new(output, "--output=", FLAGS.overwrite, kind="folder")


def calibrate(model, run, class_names):
    """Sets the model's temperature to that of the labelled images that --calibrate names."""
    classifier = classifiers.of_model(model, class_names)
    form = image_files.Format.of_run(run, classifier.image_shape)
    images, labels = image_files.read_labelled_images(
        FLAGS.calibrate, class_names, form, "--calibrate"
    )
    logits = np.concatenate([*map(classifier.logits, images)])
    temperature = label_shift.fit_temperature(logits, labels, classifier.source_prior)
    model.prior_adapt.set_temperature(temperature)
    print(f"temperature {temperature:.3f}, from {len(labels):,} labelled images")
    contradiction = find_contradiction(
        logits, labels, model.training_prior, classifier.source_prior
    )
    if contradiction:
        print(f"Warning: {contradiction}")


def main():
    run = RunFolder(FLAGS.run)
    output = pathlib.Path(FLAGS.output or run.file("saved_model"))
    check_output(output)
    saved = run.test_logits()
    # Of all classes, those without a test image too.
    per_class, names = evaluation.tested_counts(saved), saved.class_names.tolist()
    prior = evaluation.named_prior(FLAGS.target_prior, saved.counts, per_class, class_names=names)
    model = run.load_model()
    model.set_target_prior(prior)
    if FLAGS.calibrate:
        calibrate(model, run, names)
    run.write_export(model, output, names)
    print(f"{output}: target prior {FLAGS.target_prior}")


if __name__ == "__main__":
    cli.run(main)
