"""What LADE and the input pipeline cost, as ratios measured in one run.

    cd experiments && python -m benchmarks.train_step --output=FILE.json

ResNet-32 on CIFAR-sized images, the recipe's batch and optimizer. Blocks of steps of the variants
take turns, and the median of the blocks' ratios is shown, so that a noisy machine slows all alike:

    lade / cross-entropy        the same step with LADE and with plain softmax cross-entropy
    pipeline / resident batch   the LADE step fed by crops and flips, and by one batch in memory
    fused / Keras' batch norm   the cross-entropy step with the two batch normalisations
"""

import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

import lade_tf
from benchmarks.cifar_sized import COUNTS, make_data
from benchmarks.turns import ratio, take_turns
from lade_tf import backbones
from lade_tf.layers import BatchNormalization
from lade_tf.optimizers import SGD

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 256, "Images in a step.", lower_bound=1)
flags.DEFINE_integer("steps", 5, "Steps in a block.", lower_bound=1)
flags.DEFINE_integer("blocks", 9, "Blocks of each variant.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

# 74 million multiply-adds in ResNet-32's forward pass; × 2 operations, × 3 with the backward pass.
OPERATIONS_PER_IMAGE = 6 * 74e6


def make_network():
    images = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 64, -2, dtype="float32")(images)
    return keras.Model(images, backbones.classifier_head(backbones.resnet32()(scaled), 100))


def with_keras_batch_norm(layer):
    """Returns a copy of a layer, and of a fused batch normalisation the one of Keras."""
    is_fused = isinstance(layer, BatchNormalization)
    kind = keras.layers.BatchNormalization if is_fused else type(layer)
    return kind.from_config(layer.get_config())


def make_step(model, loss, batches):
    """Returns a function that runs one training step of the compiled model on the next batch."""
    model.compile(SGD(0.01, l2=5e-4), loss)
    iterator = iter(batches)
    model.make_train_function()
    return lambda: model.train_function(iterator)


def make_steps(data):
    """Returns {variant: step function}."""
    pipeline = data.train_batches(FLAGS.batch_size, 10_000, seed=0)
    resident = tf.data.Dataset.from_tensors(next(iter(pipeline))).repeat()
    softmax = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = {
        "lade": make_step(lade_tf.LADEModel(make_network(), COUNTS), None, resident),
        "cross_entropy": make_step(lade_tf.AdaptedModel(make_network(), COUNTS), softmax, resident),
        "lade_pipeline": make_step(lade_tf.LADEModel(make_network(), COUNTS), None, pipeline),
    }
    plain = keras.models.clone_model(
        make_network(), clone_function=with_keras_batch_norm, recursive=True
    )
    plain = lade_tf.AdaptedModel(plain, COUNTS)
    return {**steps, "keras_batch_norm": make_step(plain, softmax, resident)}


def blocks(steps, size):
    """Returns {variant: function that takes `size` steps} of {variant: step function}."""

    def block(step):
        return lambda: [step() for _ in range(size)]

    return {name: block(step) for name, step in steps.items()}


def peak_operations():
    """Returns the operations a second of a large matrix product here, the practical limit."""
    matrix = tf.random.normal([2048, 2048])
    tf.matmul(matrix, matrix)
    started = time.perf_counter()
    for _ in range(5):
        product = tf.matmul(matrix, matrix)
    product.numpy()
    return 5 * 2 * 2048**3 / (time.perf_counter() - started)


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    keras.utils.set_random_seed(0)
    seconds = take_turns(blocks(make_steps(make_data()), FLAGS.steps), FLAGS.blocks)
    images_per_second = FLAGS.steps * FLAGS.batch_size / float(np.median(seconds["lade_pipeline"]))
    result = {
        "lade / cross-entropy": ratio(seconds, "lade", "cross_entropy"),
        "pipeline / resident batch": ratio(seconds, "lade_pipeline", "lade"),
        "fused / Keras' batch norm": ratio(seconds, "cross_entropy", "keras_batch_norm"),
        "images a second, pipeline included": round(images_per_second, 1),
        "share of the matrix product's operations a second": round(
            images_per_second * OPERATIONS_PER_IMAGE / peak_operations(), 3
        ),
    }
    for name, value in result.items():
        print(f"{name:52}{value}")
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, {**result, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
