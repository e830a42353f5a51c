"""Images a second of each augmentation on this machine, and of keras-cv's and Keras' RandAugment.

    pip install -e ".[bench]"
    cd experiments && python -m benchmarks.augmentation --output=FILE.json

Batches of 256 random 32 × 32 images in a tf.data map, as training makes them. The variants take
turns; the median over the turns is shown, and its ratio to keras-cv's of the same run.
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

FLAGS = flags.FLAGS
flags.DEFINE_integer("batches", 20, "Batches in a turn.", lower_bound=1)
flags.DEFINE_integer("turns", 7, "Turns of each variant.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

BATCH_SIZE = 256
FILL = (125.0, 123.0, 114.0)


def variants():
    """Returns {name: function (step, images) → images}."""
    keras_cv_layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=0.9)
    keras_layer = keras.layers.RandAugment((0, 255), num_ops=2, factor=0.9)

    def ours(name):
        def function(step, images):
            seed = tf.stack([tf.zeros_like(step), step])
            return policies.augment(name, images, seed, 4, True, FILL)

        return function

    return {
        **{name: ours(name) for name in AUGMENTATIONS},
        "randaugment of keras-cv": lambda step, images: keras_cv_layer(images),
        "randaugment of keras": lambda step, images: keras_layer(images, training=True),
    }


def make_run(function, images):
    """Returns a function that makes batches and gives the images a second."""
    batch = tf.constant(images, tf.float32)
    stream = tf.data.Dataset.range(1 << 40).map(lambda step: function(step, batch))
    iterator = iter(stream)
    next(iterator)

    def run():
        started = time.perf_counter()
        for _ in range(FLAGS.batches):
            next(iterator)
        return FLAGS.batches * BATCH_SIZE / (time.perf_counter() - started)

    return run


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 32, 32, 3))
    speeds = {name: [] for name in variants()}
    measured = {name: make_run(function, images) for name, function in variants().items()}
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
        provenance.write_measured(FLAGS.output, {"variants": results, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
