"""Measures a run or a saved model under any label distribution.

    python experiments/evaluate.py --run=runs/NAME --target_prior=uniform,backward:50
    python experiments/evaluate.py --model=SAVED_MODEL --dataset=cifar100_lt --data_dir=PATH

--target_prior is what the model is told, --test_prior what the test classes are weighted by; by
default each target prior is tested on its own: `test`, the test set as it is, and the eleven of
section 4.3. Accuracy is the exact expectation over all test sets of that label distribution, with
its standard error, and beside it that of one drawn test set, the largest that there is, if it has
100 images. A class without a test image is left out of every distribution. A run is measured from
its test_logits.npz, in seconds; a SavedModel of experiments/export.py or a .keras file is run over
the test set first. --compare=RUN adds how much better it is than another run, by a paired bootstrap
over the test images.

Of most committed results the logits aren't kept but what they predict under these: a "-" stands
for what can't be told from that, and another prior is refused.
"""

import pathlib

from absl import flags
from reproduction import classifiers, cli, finished_runs, predictions, provenance, recipes

import lade_tf
from lade_tf import evaluation, priors
from lade_tf.files import write_json

FLAGS = flags.FLAGS
PRIORS = evaluation.PRIOR_NAMES

flags.DEFINE_string("run", None, "Run folder of experiments/train.py.")
flags.DEFINE_string("model", None, "SavedModel folder or .keras file, instead of --run.")
flags.DEFINE_string("dataset", None, f"With --model: {', '.join(lade_tf.data.NAMES)}.")
flags.DEFINE_integer(
    "data_seed", None, "With --model: the data seed it was trained with, default 0."
)
flags.DEFINE_string("data_dir", None, "With --model: prepared tensorflow-datasets folder.")
flags.DEFINE_integer("max_pixel", None, "With --model: as it was trained with.", 1, 65_535)
flags.DEFINE_string("image_root", None, "With --model: as of train.py.")
flags.DEFINE_bool("allow_duplicates", None, "With --model: as of train.py.")
flags.DEFINE_list(
    "target_prior",
    None,
    f"What the model is told: {PRIORS}. Default: test and those of section 4.3.",
)
flags.DEFINE_string("test_prior", None, f"What the test set is like: {PRIORS}.")
flags.DEFINE_string("compare", None, "Run folder to compare with on the same test images.")
flags.DEFINE_enum("reading", "notebook", priors.READINGS, "Of section 4.3's class sizes.")
flags.DEFINE_integer("draw_seed", 0, "Seed of the drawn test sets.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON file to write the metrics to as well; must be new.")


def load():
    """Returns the `SavedLogits`, or a run's `SavedPredictions`, of what the flags name."""
    if FLAGS.run is not None and FLAGS.model is None:
        names = ("dataset", "data_seed", "data_dir", *recipes.OWN_IMAGES)
        if given := [f"--{name}" for name in names if FLAGS[name].value is not None]:
            raise ValueError(f"{' and '.join(given)} is for --model: a run knows its data set")
        cli.check_run(FLAGS.run, " --dataset=NAME")
        return finished_runs.load_saved(FLAGS.run)
    if FLAGS.model is not None and FLAGS.dataset is None:
        raise ValueError("--model needs --dataset, the data set to test it on")
    model = classifiers.load(FLAGS.run, FLAGS.model)
    seed, size = FLAGS.data_seed or 0, None
    if FLAGS.dataset in recipes.LARGE:
        size = model.image_shape[0]
    data = lade_tf.data.load(
        FLAGS.dataset,
        data_seed=seed,
        data_dir=FLAGS.data_dir,
        image_size=size,
        **{name: FLAGS[name].value for name in recipes.OWN_IMAGES},
    )
    check_fits(model, data)
    return model.saved_logits(data)


def check_fits(model, data):
    """Refuses images and classes that aren't what the model was trained for."""
    shape, expected = tuple(data.image_shape), tuple(model.image_shape)
    fits = len(shape) == len(expected) and all(
        side in (None, own) for own, side in zip(shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"--model={FLAGS.model} takes images of shape {list(expected)}; those of "
            f"--dataset={FLAGS.dataset} have {list(shape)}"
        )
    names = model.class_names
    if names is None or len(names) != data.num_classes:  # the number is compared for every model
        return
    for number, (own, other) in enumerate(zip(names, data.class_names, strict=True)):
        if own != other:
            raise ValueError(
                f"--model={FLAGS.model} must have the classes of --dataset={FLAGS.dataset} in the "
                f"same order; class {number} is {own!r} there and {other!r} here"
            )


def check_flags():
    """Refuses what can be refused before any work."""
    if FLAGS.target_prior == []:
        raise ValueError(f"--target_prior must name at least one prior: {PRIORS}")
    for name in filter(None, [*(FLAGS.target_prior or ()), FLAGS.test_prior]):
        evaluation.check_prior_name(name)
    cli.check_new_file(FLAGS.output)


def target_priors(saved):
    """Returns the names given or, without any, all whose predictions are known; says which not."""
    names = FLAGS.target_prior or evaluation.STANDARD_PRIORS
    if FLAGS.target_prior or not isinstance(saved, predictions.SavedPredictions):
        return names
    priors_of = {name: evaluation.prior_for(saved, name, FLAGS.reading) for name in names}
    names = [name for name, prior in priors_of.items() if saved.keeps(prior)]
    if left_out := ", ".join(name for name in priors_of if name not in names):
        print(f"left out, as {saved.path} hasn't got their predictions: {left_out}")
    return names


def main():
    check_flags()
    other = FLAGS.compare and finished_runs.load_saved(FLAGS.compare)
    saved = load()
    if other:
        evaluation.check_same_images(saved, other)
    for remark in evaluation.remarks(evaluation.tested_counts(saved), saved.class_names):
        print(remark)
    told = target_priors(saved), FLAGS.test_prior, FLAGS.reading
    results = {"metrics": evaluation.evaluate_shifts(saved, *told, FLAGS.draw_seed)}
    print(f"tested on: {FLAGS.test_prior or 'the prior that the model is told'}\n")
    print(evaluation.format_table(results["metrics"], first_column="model is told"))
    if any(row["accuracy_drawn"] is None for row in results["metrics"].values()):
        print('\n"-" under drawn: the largest such set has under 100 images')
    if any(row["nll"] is None for row in results["metrics"].values()):
        logits = saved.path.with_name(predictions.LOGITS)
        print(f'\n"-" from ece to nll needs {logits}, which isn\'t there')
    if other:
        results["difference"] = evaluation.compare(saved, other, *told)
        print(f"\naccuracy less that of {FLAGS.compare}, in points, with its 95 % interval")
        print("(* excludes 0; over test images, not over training seeds)\n")
        print(evaluation.format_comparison(results["difference"]))
    if FLAGS.output:
        write_json(pathlib.Path(FLAGS.output), {**results, **provenance.gather()})


if __name__ == "__main__":
    cli.run(main)
