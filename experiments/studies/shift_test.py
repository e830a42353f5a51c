"""How often the label shift test rejects: true label shifts, and targets that are none.

    cd experiments && python -m studies.shift_test --output=FILE.json

Classes are Gaussians around random means, the classifier is Bayes' rule on them. The labelled
sample has a few images of every class, the target's label distribution is drawn anew each time,
from a Dirichlet distribution of concentration 1. A share near 0.05 of true label shifts rejected is
right. "covariate shift" moves every image by the same vector, which label shift doesn't allow.
"""

import time

import numpy as np
from absl import flags
from reproduction import cli, provenance

from lade_tf.label_shift.diagnostics import SIGNIFICANCE, run_label_shift_test

FLAGS = flags.FLAGS

PER_CLASS = (2, 3, 5, 10, 100)
CLASSES, DIMENSIONS, SPREAD = 10, 4, 1.2
TARGET_IMAGES = 500
MOVES = {"label shift": 0.0, "covariate shift": 0.7}


def posteriors(points, means):
    """Returns [samples, classes] of unit-width Gaussians at the uniform prior."""
    logits = points @ means.T - 0.5 * np.square(means).sum(axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def draw(per_class, move, rng):
    """Returns source probabilities and labels, and target probabilities."""
    means = rng.normal(0, SPREAD, (CLASSES, DIMENSIONS))
    labels = np.repeat(np.arange(CLASSES), per_class)
    target_labels = rng.choice(CLASSES, TARGET_IMAGES, p=rng.dirichlet(np.ones(CLASSES)))
    source, target = (
        means[of] + rng.normal(size=(len(of), DIMENSIONS)) for of in (labels, target_labels)
    )
    return posteriors(source, means), labels, posteriors(target + move / 2, means)


def rejected(per_class, move, draws, resamples, seed):
    """Returns the share of draws that it rejects, of those that it judges, and the share of these.

    The first is None where the test judges none.
    """
    rng = np.random.default_rng(seed)
    p_values = [
        run_label_shift_test(*draw(per_class, move, rng), resamples, rng).p_value
        for _ in range(draws)
    ]
    judged = [p_value for p_value in p_values if p_value is not None]
    share = float(np.mean(np.array(judged) < SIGNIFICANCE)) if judged else None
    return {"rejected": share, "judged": len(judged) / draws}


def main():
    cli.check_new_file(FLAGS.output)
    start = time.monotonic()
    results = {}
    for per_class in PER_CLASS:
        results[str(per_class)] = {
            name: rejected(per_class, move, FLAGS.draws, FLAGS.resamples, FLAGS.seed)
            for name, move in MOVES.items()
        }
        print(f"{per_class} images a class: {results[str(per_class)]}")
    if FLAGS.output:
        content = {
            "draws": FLAGS.draws,
            "resamples": FLAGS.resamples,
            "classes": CLASSES,
            "target_images": TARGET_IMAGES,
            "seed": FLAGS.seed,
            "label shift test": results,
        }
        provenance.write_measured(FLAGS.output, content, start)


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_integer("draws", 500, "Samples of each kind and size.", lower_bound=1)
    flags.DEFINE_integer("resamples", 100, "Of each test.", lower_bound=19)
    flags.DEFINE_integer("seed", 0, "Of everything drawn.", lower_bound=0)
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
