"""What EM for an unknown prior costs, as a ratio to EM as one writes it down.

    cd experiments && python -m benchmarks.em --output=FILE.json

50,000 float32 posteriors over 1,000 classes, exactly calibrated: a step of `lade_tf.label_shift`
and one of plain NumPy (weight, normalise, average) take turns. Beside the ratio stands the limit:
a step must read the posteriors once, and `bandwidth_share` is the share reached of the rate at
which they are read for one matrix-vector product.
"""

import time

import numpy as np
from absl import flags
from reproduction import cli, provenance

from benchmarks.turns import ratio, take_turns
from lade_tf import label_shift, priors
from lade_tf.label_shift.em import em_step

FLAGS = flags.FLAGS
flags.DEFINE_integer("samples", 50_000, "Target samples.", lower_bound=1)
flags.DEFINE_integer("classes", 1000, "Classes.", lower_bound=2)
flags.DEFINE_integer("rounds", 5, "Rounds of one step each.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")


def make_posteriors(samples, classes):
    """Returns posteriors at the uniform prior, [samples, classes] float32, and the target's prior.

    Unit Gaussians at the corners of a simplex: the logits are known, so the posteriors are exact.
    """
    rng = np.random.default_rng(0)
    target = priors.class_prior(priors.exponential_counts(1000, classes, 50))
    labels = rng.choice(classes, samples, p=target)
    distance = np.float32(4.5)
    logits = distance * rng.standard_normal((samples, classes), np.float32)
    logits[np.arange(samples), labels] += distance**2
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return logits / logits.sum(axis=1, keepdims=True), target


def plain_step(posteriors, source_prior, prior):
    """EM's step as equations are written: one more array of the size of the posteriors."""
    weighted = posteriors * (prior / source_prior).astype(posteriors.dtype)
    weighted /= weighted.sum(axis=1, keepdims=True)
    return weighted.mean(axis=0)


def read(posteriors, weights):
    """What any step must do at least: read the posteriors once."""
    return posteriors @ weights


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    posteriors, target = make_posteriors(FLAGS.samples, FLAGS.classes)
    uniform = priors.uniform_prior(FLAGS.classes)
    labels = np.arange(FLAGS.classes)  # as many of every class
    arguments = posteriors, uniform, target
    np.testing.assert_allclose(em_step(*arguments), plain_step(*arguments), rtol=1e-4)
    weights = np.ones(FLAGS.classes, np.float32)
    seconds = take_turns(
        {
            "step": lambda: em_step(*arguments),
            "plain": lambda: plain_step(*arguments),
            "read": lambda: read(posteriors, weights),
        },
        FLAGS.rounds,
    )
    step_seconds = float(np.median(seconds["step"]))
    start = time.perf_counter()
    fit = label_shift.fit_em(posteriors[: FLAGS.classes], labels, posteriors, calibrate=False)
    result = {
        "shape": list(posteriors.shape),
        "step_seconds": step_seconds,
        "plain_step_seconds": float(np.median(seconds["plain"])),
        "ratio": ratio(seconds, "step", "plain")["median"],
        "gigabytes_per_second": posteriors.nbytes / 1e9 / step_seconds,
        "bandwidth_share": ratio(seconds, "read", "step")["median"],
        "iterations": fit.iterations,
        "last_change": fit.last_change,
        "seconds_to_convergence": time.perf_counter() - start,
        "l1_error": float(np.abs(fit.prior - target).sum()),
    }
    print(
        f"step {1e3 * result['step_seconds']:.1f} ms, {result['ratio']:.3f} × plain NumPy, "
        f"{result['gigabytes_per_second']:.1f} GB/s, "
        f"{result['bandwidth_share']:.2f} of a bare read; "
        f"{result['iterations']} steps to a change of {result['last_change']:.1e} in "
        f"{result['seconds_to_convergence']:.1f} s, L1 error {result['l1_error']:.4f}"
    )
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, {**result, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
