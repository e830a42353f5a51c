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
import keras
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
        return runs.RunFolder(FLAGS.run).test_logits()
    if FLAGS.dataset is None:
        raise ValueError("--model needs --dataset, the data set to test it on")
    path = pathlib.Path(FLAGS.model)
    if not path.exists():
        raise ValueError(f"--model={path} doesn't exist")
    data = lade_tf.data.load(FLAGS.dataset, data_seed=FLAGS.data_seed, data_dir=FLAGS.data_dir)
    return _logits_of_export(path, data) if path.is_dir() else _logits_of_keras(path, data)


def _logits_of_keras(path, data):
    model = keras.models.load_model(path, compile=False)
    if not isinstance(model, lade_tf.AdaptedModel):
        raise ValueError(
            f"--model={path} must hold an AdaptedModel or LADEModel; it holds a "
            f"{type(model).__name__}: lade_tf.adapt(model, class_counts) makes it one"
        )
    return runs.SavedLogits.of_model(model, data)


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


def main():
    if FLAGS.output and pathlib.Path(FLAGS.output).exists():
        raise ValueError(f"--output={FLAGS.output} exists already: give a new file")
    saved = load_logits()
    results = {}
    for name in FLAGS.target_prior:
        told, test = (
            evaluation.resolve_prior(text, saved.counts, evaluation.per_class(saved))
            for text in (name, FLAGS.test_prior or name)
        )
        results[name] = evaluation.evaluate(saved, told, test)
    print(f"tested on: {FLAGS.test_prior or 'the prior that the model is told'}\n")
    print(evaluation.format_table(results, first_column="model is told"))
    if FLAGS.output:
        runs.write_json(pathlib.Path(FLAGS.output), {"metrics": results, **runs.provenance()})


if __name__ == "__main__":
    binary.run(main)
