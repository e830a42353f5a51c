"""How often `expected_accuracy` ± 1.96 standard errors holds the true accuracy.

    cd experiments && python -m studies.standard_error --output=FILE.json

Test sets of a few images a class are drawn from classes whose accuracies are known: they follow a
Beta distribution, drawn anew for every test set. "middling" is Beta(4, 3); "U-shaped" is Beta(0.5,
0.5), classes mostly all right or all wrong. The label distribution is uniform.
"""

import time

import numpy as np
from absl import flags
from reproduction import cli, provenance

from lade_tf import metrics, priors

FLAGS = flags.FLAGS

SIZES = ("10x100", "100x5", "50x2", "1000x1")
ACCURACIES = {"middling": (4, 3), "U-shaped": (0.5, 0.5)}
TWO_SIDED = 1.96  # standard errors, 95 % of a normal distribution


def coverage(num_classes, per_class, beta, draws, seed):
    """Returns the share of `draws` test sets whose interval holds the true expected accuracy."""
    rng = np.random.default_rng(seed)
    prior = priors.uniform_prior(num_classes)
    labels = np.repeat(np.arange(num_classes), per_class)
    held = 0
    for _ in range(draws):
        true = rng.beta(*beta, num_classes)
        right = rng.random(len(labels)) < true[labels]
        predictions = np.where(right, labels, (labels + 1) % num_classes)
        accuracy, error = metrics.expected_accuracy(predictions, labels, prior)
        held += abs(accuracy - prior @ true) <= TWO_SIDED * error
    return held / draws


def main():
    cli.check_new_file(FLAGS.output)
    start = time.monotonic()
    results = {}
    for size in SIZES:
        num_classes, per_class = map(int, size.split("x"))
        results[size] = {
            name: coverage(num_classes, per_class, beta, FLAGS.draws, FLAGS.seed)
            for name, beta in ACCURACIES.items()
        }
        print(size, *(f"{name} {share:.3f}" for name, share in results[size].items()), sep="  ")
    if FLAGS.output:
        content = {"draws": FLAGS.draws, "seed": FLAGS.seed, "coverage": results}
        provenance.write_measured(FLAGS.output, content, start)


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_integer("draws", 2000, "Test sets of each size.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
