"""Estimates the label distribution of unlabelled images: a prior.json for --target_prior.

    python experiments/estimate_prior.py --run=runs/NAME --source=VALIDATION --target=NEW_IMAGES \\
        --output=prior.json --plot=prior.png

--source is a labelled sample that the model wasn't trained on, of any label distribution: a folder
with one subfolder a class, or an .npz of `images` and `labels`. --target is a folder of images, or
an .npz of `images`. A run of image files has them resized as its test images were; another model
takes them as they are. The assumption is label shift: classes look the same in both, only their
frequencies differ; with --bootstrap this is tested, and a warning says when it doesn't hold.
"""

import dataclasses
import importlib.util
import pathlib
import warnings

import numpy as np
from absl import flags
from reproduction import classifiers, cli, image_files, prior_report, provenance
from reproduction.run_folder import RunFolder

from lade_tf import evaluation, label_shift
from lade_tf.files import write_json

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "Run folder of experiments/train.py.")
flags.DEFINE_string("model", None, "SavedModel folder or .keras file, instead of --run.")
flags.DEFINE_integer("max_pixel", None, "With --model: as it was trained with.", 1, 65_535)
flags.DEFINE_string("source", None, "Labelled images, unseen in training.", required=True)
flags.DEFINE_string("target", None, "Unlabelled images.", required=True)
flags.DEFINE_enum("method", "hierarchical", label_shift.METHODS, "Estimator (lade_tf.label_shift).")
flags.DEFINE_integer(
    "bootstrap", 50, "Resamples for label shift test and intervals; 0: none.", lower_bound=0
)
flags.DEFINE_float(
    "pseudo_count", None, "Images of every class to add; by default 1.", lower_bound=0
)
flags.DEFINE_bool("shrink", False, "Shrink towards the training prior by the bootstrap's width.")
flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.", lower_bound=0)
flags.DEFINE_string("output", "prior.json", "File to write.")
flags.DEFINE_string("plot", None, "Bar plot to write, .png or .pdf.")
flags.DEFINE_bool("overwrite", False, "Replace --output and --plot where they exist.")


def check_flags():
    """Refuses what can be refused before any work."""
    cli.check_new_file(FLAGS.output, overwrite=FLAGS.overwrite)
    cli.check_new_file(FLAGS.plot, "--plot", overwrite=FLAGS.overwrite)
    if FLAGS.plot and pathlib.Path(FLAGS.plot).suffix not in (".png", ".pdf"):
        raise ValueError(f"--plot={FLAGS.plot} must end in .png or .pdf")
    if FLAGS.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError('--plot needs matplotlib: pip install "lade-tf[plots]"')
    if FLAGS.max_pixel is not None and FLAGS.run is not None:
        raise ValueError("--max_pixel is for --model: a run knows its own")
    if FLAGS.shrink and FLAGS.bootstrap < 2:
        raise ValueError(f"--shrink needs --bootstrap of at least 2; got {FLAGS.bootstrap}")
    if FLAGS.method == "hierarchical" and (FLAGS.shrink or FLAGS.pseudo_count is not None):
        raise ValueError(
            "--shrink and --pseudo_count are for --method=em, rlls and bbse: the hierarchical "
            "estimate is drawn to the training prior's curve as far as the images allow"
        )


def image_format(model):
    """Returns the `image_files.Format` of what the model takes."""
    if FLAGS.run is None:
        return image_files.Format(model.image_shape, max_pixel=FLAGS.max_pixel)
    return image_files.Format.of_run(RunFolder(FLAGS.run), model.image_shape)


def estimate(model, training_prior, class_names):
    """Returns the `PriorEstimate` of what the flags name."""
    form = image_format(model)
    source, labels = image_files.read_labelled_images(FLAGS.source, class_names, form, "--source")
    target = image_files.read_images(FLAGS.target, form, "--target")
    source, target = (np.concatenate([*map(model.probabilities, b)]) for b in (source, target))
    print(f"{len(source):,} labelled and {len(target):,} unlabelled images")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = label_shift.estimate(
            FLAGS.method,
            source,
            labels,
            target,
            bootstrap=FLAGS.bootstrap,
            seed=FLAGS.seed,
            shrink_to=training_prior if FLAGS.shrink else None,
            pseudo_count=FLAGS.pseudo_count,
            training_prior=training_prior,
        )
    for warning in caught:
        print(f"Warning: {warning.message}")
    return result


def report(result, training_prior, class_names):
    """Prints the classes whose share changes most, and how far to trust the numbers."""
    print("\n" + prior_report.table(result, training_prior, class_names))
    print(f"\neffective sample size of the source: {result.effective_sample_size:.0f}")
    print(f"condition number of the confusion matrix: {result.condition_number:.3g}")
    if FLAGS.bootstrap and (result.pseudo_count or FLAGS.shrink):
        print("the intervals don't cover what --pseudo_count and --shrink draw the estimate to")
    if result.p_value is not None:
        print(f"label shift test: p = {result.p_value:.3g} (small: it is no mere label shift)")
    print(f"\n{result.verdict}")
    if len(result.prior) > prior_report.LISTED:
        print(f"All {len(result.prior)} classes are in {FLAGS.output}.")


def main():
    check_flags()
    cli.check_run(FLAGS.run)
    model = classifiers.load(FLAGS.run, FLAGS.model)
    training_prior = evaluation.named_prior("train", model.counts, per_class=1)
    class_names = model.class_names or [str(c) for c in range(len(model.counts))]
    result = estimate(model, training_prior, class_names)
    content = prior_report.plain(dataclasses.asdict(result))
    told = {"class_names": model.class_names, "method": FLAGS.method, **provenance.gather()}
    write_json(pathlib.Path(FLAGS.output), {**content, **told})
    report(result, training_prior, class_names)
    print(f"\n{FLAGS.output} is written: evaluate.py --target_prior={FLAGS.output} uses it")
    if FLAGS.plot:
        prior_report.draw(FLAGS.plot, result, training_prior, class_names)
        print(f"{FLAGS.plot} is written")


if __name__ == "__main__":
    cli.run(main)
