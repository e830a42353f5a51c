"""Measures a run or a saved model under any label distribution.

    python experiments/evaluate.py --run=runs/NAME --target_prior=uniform,backward:50
    python experiments/evaluate.py --model=SAVED_MODEL --dataset=cifar100_lt --data_dir=PATH

--target_prior is what the model is told, --test_prior what the test classes are weighted by; by
default each target prior is tested on its own. A run is measured from its test_logits.npz, in
seconds; a SavedModel of experiments/export.py or a .keras file is run over the test set first.
"""

import pathlib

import binary
import evaluation
import runs
import tensorflow as tf
from absl import flags

import lade_tf

FLAGS = flags.FLAGS
PRIORS = "uniform, train, forward:RATIO, backward:RATIO or a prior.json"

flags.DEFINE_string("run", None, "Run folder of experiments/train.py.")
flags.DEFINE_string("model", None, "SavedModel folder or .keras file, instead of --run.")
flags.DEFINE_string("dataset", None, f"With --model: {', '.join(lade_tf.data.NAMES)}.")
flags.DEFINE_integer("data_seed", 0, "With --model: the data seed it was trained with.")
flags.DEFINE_string("data_dir", None, "With --model: prepared tensorflow-datasets folder.")
flags.DEFINE_list("target_prior", list(evaluation.SHIFTS), f"What the model is told: {PRIORS}.")
flags.DEFINE_string("test_prior", None, f"What the test set is like: {PRIORS}.")
flags.DEFINE_string("output", None, "JSON file to write the metrics to as well; must be new.")


def load_logits():
    """Returns the `SavedLogits` of what the flags name."""
    if (FLAGS.run is None) == (FLAGS.model is None):
        raise ValueError("give either --run or --model")
    if FLAGS.run is not None:
        if FLAGS.dataset is not None or FLAGS.data_dir is not None:
            raise ValueError("--dataset and --data_dir are for --model: a run knows its data set")
        return runs.RunFolder(FLAGS.run).test_logits()
    if FLAGS.dataset is None:
        raise ValueError("--model needs --dataset, the data set to test it on")
    path = pathlib.Path(FLAGS.model)
    if not path.exists():
        raise ValueError(f"--model={path} doesn't exist")
    data = lade_tf.data.load(FLAGS.dataset, data_seed=FLAGS.data_seed, data_dir=FLAGS.data_dir)
    if path.is_dir():
        return _logits_of_export(path, data)
    return runs.SavedLogits.of_model(runs.load_model(path), data)


def _logits_of_export(path, data):
    training_prior = path / "assets" / "training_prior.json"
    if not (path / "saved_model.pb").exists() or not training_prior.exists():
        raise ValueError(f"--model={path} isn't a SavedModel that lade_tf exported")
    loaded = tf.saved_model.load(path)
    counts = runs.read_json(training_prior)["class_counts"]
    uniform = tf.fill([len(counts)], 1 / len(counts))

    def logits_at_uniform(images):
        return loaded.signatures["serve_with_prior"](images=images, target_prior=uniform)["logits"]

    return runs.SavedLogits.of(logits_at_uniform, data, counts, source_prior=None)


def check_flags():
    """Refuses what can be refused before any work."""
    if not FLAGS.target_prior:
        raise ValueError(f"--target_prior must name at least one prior: {PRIORS}")
    for name in filter(None, [*FLAGS.target_prior, FLAGS.test_prior]):
        evaluation.check_prior_name(name)
    output = pathlib.Path(FLAGS.output or "metrics.json")
    if FLAGS.output and output.exists():
        raise ValueError(f"--output={output} exists already: give a new file")
    if not output.parent.is_dir():
        raise ValueError(f"--output={output} must lie in an existing folder")


def main():
    check_flags()
    saved = load_logits()
    results = evaluation.evaluate_priors(saved, FLAGS.target_prior, FLAGS.test_prior)
    print(f"tested on: {FLAGS.test_prior or 'the prior that the model is told'}\n")
    print(evaluation.format_table(results, first_column="model is told"))
    if FLAGS.output:
        runs.write_json(pathlib.Path(FLAGS.output), {"metrics": results, **runs.provenance()})


if __name__ == "__main__":
    binary.run(main)
