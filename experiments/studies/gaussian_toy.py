"""What LADER's two estimators recover on a problem whose answer is known.

    cd experiments && python -m studies.gaussian_toy --output=FILE.json

Three classes N(m_c, 1) on the line, long-tailed counts, logits linear in features that can express
both candidates below, LADER alone as the loss, the whole sample as the batch. The table gives the
root mean square distance, under the uniform prior, of the trained logits to each candidate:

    disentangled    log p_u(x|c) / p_u(x)       what equation 11 promises
    entangled       log C + log p_s(c|x)        the posterior of the training distribution
"""

import time

import numpy as np
import scipy.optimize
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

from lade_tf import ops, priors
from lade_tf.text_tables import align

MEANS = np.array([-2.0, 0.0, 2.0])
COUNTS = np.array([40000, 7500, 2500])
REMINE_LAMBDA = 0.1
SEED = 0


def sample():
    """Returns (x [samples], labels [samples]) with `COUNTS` samples of each class."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    return np.random.default_rng(SEED).normal(MEANS[labels], 1.0), labels


def candidates(x):
    """Returns the two logit functions [samples, C] that an estimator may recover."""
    density = np.exp(-0.5 * (x[:, None] - MEANS) ** 2)
    joint = density * priors.class_prior(COUNTS)
    return {
        "disentangled": np.log(density / density.mean(axis=1, keepdims=True)),
        "entangled": np.log(len(COUNTS) * joint / joint.sum(axis=1, keepdims=True)),
    }


def features(x):
    """Returns [samples, 5] features that span both candidates, orthonormal under p_u."""
    density = np.exp(-0.5 * (x[:, None] - MEANS) ** 2)
    log_mixtures = np.log(density @ np.stack([np.ones_like(MEANS), COUNTS / COUNTS.sum()], axis=1))
    columns = np.concatenate([x[:, None] ** np.arange(3), log_mixtures], axis=1)
    weight = np.repeat(1 / COUNTS, COUNTS) / len(COUNTS)
    _, triangle = np.linalg.qr(columns * np.sqrt(weight)[:, None])
    return columns @ np.linalg.inv(triangle)


def train(x, labels, estimator):
    """Returns the logits [samples, C] at the minimum of LADER (L-BFGS on the features' weights)."""
    design = tf.constant(features(x))
    shape = (design.shape[1], len(COUNTS))

    @tf.function
    def value_and_gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = ops.lader(design @ weights, labels, COUNTS, REMINE_LAMBDA, estimator)
        return value, tape.gradient(value, weights)

    def objective(flat):
        value, gradient = value_and_gradient(tf.constant(flat.reshape(shape)))
        return value.numpy(), gradient.numpy().ravel()

    result = scipy.optimize.minimize(
        objective, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
    )
    return design.numpy() @ result.x.reshape(shape)


def distances(estimator):
    """Returns {candidate: root mean square distance under the uniform prior, in nats}."""
    x, labels = sample()
    logits = train(x, labels, estimator)
    weight = (1 / COUNTS)[labels] / len(COUNTS)
    return {
        name: float(np.sqrt((weight[:, None] * (logits - truth) ** 2).sum() / len(COUNTS)))
        for name, truth in candidates(x).items()
    }


flags.DEFINE_string("output", None, "JSON file to write; must be new.")


def main():
    cli.check_new_file(flags.FLAGS.output)
    started = time.monotonic()
    results = {estimator: distances(estimator) for estimator in ops.ESTIMATORS}
    rows = [("estimator", "to disentangled", "to entangled")]
    for estimator, distance in results.items():
        rows.append((estimator, f"{distance['disentangled']:.3f}", f"{distance['entangled']:.3f}"))
    print("\n".join(align(rows)))
    if flags.FLAGS.output:
        provenance.write_measured(flags.FLAGS.output, {"distances": results, "seed": SEED}, started)


if __name__ == "__main__":
    cli.run(main)
