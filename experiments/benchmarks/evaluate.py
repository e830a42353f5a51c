"""What the whole shifted protocol costs, as a ratio to the least that any evaluation must do.

    cd experiments && python -m benchmarks.evaluate --output=FILE.json

All metrics under the eleven priors of section 4.3, from random logits in the sizes of CIFAR-100 and
ImageNet, against eleven passes of TensorFlow's softmax and argmax over the same array. The two take
turns; the median of the rounds' ratios is shown. `gigabytes` is the peak, logits included.
"""

import resource
import time

import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

from benchmarks.turns import ratio, take_turns
from lade_tf import evaluation, priors
from lade_tf.evaluation import SavedLogits

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "Rounds of each size.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

SIZES = {"CIFAR-100": (100, 100, 500), "ImageNet-LT": (50, 1000, 1280)}
KIB_PER_GB = 1e9 / 1024


def make_saved(per_class, num_classes, max_count):
    """Returns random `SavedLogits` of a balanced test set."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(num_classes, dtype=np.int32), per_class)
    logits = rng.standard_normal((len(labels), num_classes), np.float32)
    logits *= 2
    logits[np.arange(len(labels)), labels] += 5
    counts = priors.exponential_counts(max_count, num_classes, 100)
    names = np.array([str(c) for c in range(num_classes)])
    return SavedLogits(logits, labels, counts, priors.class_prior(counts), names)


def softmax_argmax(logits):
    """The eleven passes to compare with."""
    for _ in evaluation.SHIFTS:
        tf.argmax(tf.nn.softmax(logits), axis=1).numpy()


def measure(saved, rounds):
    """Returns the medians over rounds in which the two take turns."""
    logits = tf.constant(saved.logits)
    work = {
        "evaluation": lambda: evaluation.evaluate_shifts(saved, evaluation.SHIFTS),
        "softmax + argmax": lambda: softmax_argmax(logits),
    }
    seconds = take_turns(work, rounds, warm_up=0)
    return {
        "shape": list(saved.logits.shape),
        "seconds": float(np.median(seconds["evaluation"])),
        "softmax_argmax_seconds": float(np.median(seconds["softmax + argmax"])),
        "ratio": ratio(seconds, *work)["median"],
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GB,
    }


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    results = {name: measure(make_saved(*size), FLAGS.rounds) for name, size in SIZES.items()}
    for name, result in results.items():
        samples, classes = result["shape"]
        print(
            f"{name}, {samples:,} × {classes:,}: {result['seconds']:.2f} s for eleven priors, "
            f"{result['ratio']:.2f} × eleven softmax + argmax, peak {result['gigabytes']:.2f} GB"
        )
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, {"results": results, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
