"""Images a second of each augmentation on this machine, and of keras-cv's and Keras' RandAugment.

    cd experiments && python -m benchmarks.augmentation --output=FILE.json

Batches of 256 random images of 32 × 32 in a tf.data map, as training makes them. The RandAugments
apply two operations at magnitude 9 of 10, but for the policy keras_cv_randaugment, which has
keras-cv's defaults; "seeded" is what the library makes of keras-cv's layer. The variants take
turns; shown are the median over the turns and the median ratio to keras-cv's of the same turn.
"""

import time

import keras
import keras_cv
import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

from lade_tf.data import AUGMENTATIONS
from lade_tf.data.augmentation import policies
from lade_tf.data.augmentation.crop_flip import random_crop_flip

FLAGS = flags.FLAGS
flags.DEFINE_integer("batches", 20, "Batches in a turn.", lower_bound=1)
flags.DEFINE_integer("turns", 7, "Turns of each variant.", lower_bound=1)
flags.DEFINE_integer("batch_size", 256, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=16)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

FILL = (125.0, 123.0, 114.0)


def variants(batch_shape):
    """Returns {name: function (step, images) → images}."""
    keras_cv_layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=0.9)
    keras_layer = keras.layers.RandAugment((0, 255), num_ops=2, factor=0.9)

    def ours(augment):
        change = policies.policy(augment, batch_shape, FILL)

        def function(step, images):
            seed = tf.stack([tf.zeros_like(step), step])
            return change(random_crop_flip(images, seed, 4, True), seed)

        return function

    return {
        **{name: ours(name) for name in AUGMENTATIONS},
        "randaugment of keras-cv": lambda step, images: keras_cv_layer(images),
        "the same, seeded": ours([keras_cv_layer]),
        "randaugment of keras": lambda step, images: keras_layer(images, training=True),
    }


def make_run(function, images):
    """Returns a function that makes batches and gives the images a second."""
    batch = tf.constant(images, tf.float32)
    stream = tf.data.Dataset.range(1 << 40).map(lambda step: function(step, batch))
    # Left to itself, TensorFlow makes batches ahead while the other variants are timed.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    iterator = iter(stream.with_options(options))
    next(iterator)

    def run():
        started = time.perf_counter()
        for _ in range(FLAGS.batches):
            next(iterator)
        return FLAGS.batches * FLAGS.batch_size / (time.perf_counter() - started)

    return run


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    batch_shape = (FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, batch_shape)
    measured = {
        name: make_run(function, images) for name, function in variants(batch_shape).items()
    }
    speeds = {name: [] for name in measured}
    for _ in range(FLAGS.turns):
        for name, run in measured.items():
            speeds[name].append(run())
    reference = np.array(speeds["randaugment of keras-cv"])
    results = {
        name: {
            "images_per_second": round(float(np.median(values))),
            "ratio": round(float(np.median(np.array(values) / reference)), 2),
        }
        for name, values in speeds.items()
    }
    for name, result in results.items():
        print(f"{name:28}{result}")
    if FLAGS.output:
        sizes = {"batch_size": FLAGS.batch_size, "image_size": FLAGS.image_size}
        provenance.write_measured(FLAGS.output, {"variants": results, **sizes, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
