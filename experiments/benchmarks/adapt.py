"""What a target prior costs when a model is served, as ratios measured in one run.

    cd experiments && python -m benchmarks.adapt --output=FILE.json

ResNet-32 with 100 classes is exported twice, as `AdaptedModel.export` does and without any prior,
with the same outputs, and loaded again. The signatures answer the same batch in turns, and the
median of the turns' ratios to the one without a prior is shown:

    stored prior     "serving_default", adapted to the prior that the model holds
    given prior      "serve_with_prior", the target prior an input of every call
"""

import functools
import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

import lade_tf
from benchmarks.turns import ratio, take_turns
from lade_tf import backbones, priors

NUM_CLASSES = 100
COUNTS = priors.exponential_counts(500, NUM_CLASSES, 100)


def export_plain(network, path):
    """Writes a SavedModel with the outputs of `AdaptedModel.export` and no prior."""
    module = tf.Module()
    module.model_variables = [variable.value for variable in network.variables]

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="images")])
    def serve(images):
        logits = network(images, training=False)
        label = tf.argmax(logits, axis=-1)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits), "label": label}

    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def load_signatures(folder):
    """Returns {name: function of images}, of models exported and loaded again."""
    features = backbones.resnet32()
    network = keras.Model(
        features.input, backbones.classifier_head(features.output, num_classes=NUM_CLASSES)
    )
    plain_path, adapted_path = (str(pathlib.Path(folder, name)) for name in ("plain", "adapted"))
    export_plain(network, plain_path)
    lade_tf.AdaptedModel(network, COUNTS, source_prior=priors.class_prior(COUNTS)).export(
        adapted_path
    )
    plain, adapted = tf.saved_model.load(plain_path), tf.saved_model.load(adapted_path)
    prior = tf.constant(priors.class_prior(COUNTS[::-1]), tf.float32)
    # The loaded objects must live as long as their signatures: they hold the variables.
    return {
        "no prior": lambda images, m=plain: m.signatures["serving_default"](images=images),
        "stored prior": lambda images, m=adapted: m.signatures["serving_default"](images=images),
        "given prior": lambda images, m=adapted: m.signatures["serve_with_prior"](
            images=images, target_prior=prior
        ),
    }


def main():
    cli.check_new_file(flags.FLAGS.output)
    started = time.monotonic()
    keras.utils.set_random_seed(0)
    images = tf.random.normal([flags.FLAGS.batch_size, 32, 32, 3])
    with tempfile.TemporaryDirectory() as folder:
        signatures = load_signatures(folder)
        calls = {name: functools.partial(call, images) for name, call in signatures.items()}
        seconds = take_turns(calls, flags.FLAGS.turns, warm_up=2)
    result = {"batch_size": flags.FLAGS.batch_size}
    for name in ("stored prior", "given prior"):
        result[f"{name} / no prior"] = ratio(seconds, name, "no prior", digits=4)
    result["milliseconds"] = {n: round(1e3 * float(np.median(s)), 2) for n, s in seconds.items()}
    for name, value in result.items():
        print(f"{name:32}{value}")
    if flags.FLAGS.output:
        provenance.write_measured(flags.FLAGS.output, {**result, "seed": 0}, started)


if __name__ == "__main__":
    flags.DEFINE_integer("batch_size", 256, "Images in a call.", lower_bound=1)
    flags.DEFINE_integer("turns", 60, "Calls of each that are timed.", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
