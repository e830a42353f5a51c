"""What an estimated target prior is worth: known, estimated or no prior, on saved logits.

    cd experiments && python -m studies.unknown_prior --runs=RUN[,RUN...] --output=FILE.json

The balanced test set is split into two halves, class by class: one is the labelled source sample of
the estimators, from the other a target set is drawn without its labels; then they change places.
Several seeds draw split and target anew; `estimates` counts those in which an estimator could be
used: BBSE's confusion matrix may be singular. Accuracy is the expectation over the target's half
under the target's prior: no image's label helped to fit a prior that the image is scored by.

"EM, exact posteriors" shows what is left of EM's error when nothing but the size of the target set
limits it: the target's labels are drawn from the calibrated posteriors, which makes these exact.
"""

import contextlib
import time

import numpy as np
from absl import flags
from reproduction import cli, finished_runs, provenance

from lade_tf import evaluation, label_shift, metrics, priors
from lade_tf.text_tables import align
from studies.halves import split

FLAGS = flags.FLAGS

ESTIMATORS = {
    "EM": label_shift.em,
    "EM, pseudo-count 1": lambda *samples: label_shift.em(*samples, pseudo_count=1),
    "BBSE": label_shift.bbse,
    "BBSE, soft": lambda *samples: label_shift.bbse(*samples, soft=True),
    "RLLS": label_shift.rlls,
}

EXACT = "EM, exact posteriors"


def told_priors(saved, source, half, true_prior, seed):
    """Returns {what the model is told: prior}: known, every estimator's, none."""
    uniform = priors.uniform_prior(len(saved.counts))
    probabilities = evaluation.adapted_probabilities(saved.logits, saved.source_prior, uniform)
    target_set = half[evaluation.draw(saved.labels[half], true_prior, seed)]
    labelled = probabilities[source], saved.labels[source]
    told = {"known": true_prior}
    told[EXACT] = em_on_exact_posteriors(
        *labelled, probabilities[half], true_prior, len(target_set), seed
    )
    samples = *labelled, probabilities[target_set]
    for name, estimator in ESTIMATORS.items():
        with contextlib.suppress(label_shift.SingularConfusionError):
            told[name] = estimator(*samples)
    return {**told, "none": saved.source_prior}


def em_on_exact_posteriors(source_probs, source_labels, probs, true_prior, size, seed):
    """Returns EM's prior for a target set of `size` whose labels follow its posteriors."""
    calibrate = label_shift.fit_bias_corrected_temperature(source_probs, source_labels)
    posteriors = calibrate(probs)
    rng = np.random.default_rng(seed)
    edges = posteriors.cumsum(axis=1)
    labels = (rng.random((len(edges), 1)) * edges[:, -1:] > edges).sum(axis=1)
    weights = evaluation.class_weights(labels, true_prior)
    target_set = rng.choice(len(labels), size, p=weights / weights.sum())
    return label_shift.em(source_probs, source_labels, posteriors[target_set], calibrate=False)


def score(saved, images, told, true_prior):
    """Returns the L1 error of a told prior and the accuracy with it on some of the images."""
    probabilities = evaluation.adapted_probabilities(saved.logits[images], saved.source_prior, told)
    predictions = probabilities.argmax(axis=1)
    accuracy, _ = metrics.expected_accuracy(predictions, saved.labels[images], true_prior)
    return float(np.abs(told - true_prior).sum()), accuracy


def measure(saved, target, draws):
    """Returns {what is told: {"estimates", "l1", "l1_sd", "accuracy", "accuracy_sd"}}.

    Standard deviations are those of a sample, None of a single estimate.
    """
    scores = {}
    for seed in range(draws):
        halves = split(saved.labels, seed)
        for source, half in (halves, halves[::-1]):
            labels = saved.labels[half]
            per_class = int(np.bincount(labels).min())
            true_prior = evaluation.named_prior(target, saved.counts, per_class)
            for name, told in told_priors(saved, source, half, true_prior, seed).items():
                scores.setdefault(name, []).append(score(saved, half, told, true_prior))
    return {name: _mean_and_sd(values) for name, values in scores.items()}


def target_size(saved, target):
    """Returns how many images a target set holds."""
    per_class = saved.per_class // 2
    prior = evaluation.named_prior(target, saved.counts, per_class)
    return int(evaluation.drawn_counts(prior, per_class).sum())


def _mean_and_sd(values):
    l1, accuracy = np.mean(values, axis=0)
    l1_sd, accuracy_sd = np.std(values, axis=0, ddof=1) if len(values) > 1 else (None, None)
    errors = {"l1": l1, "l1_sd": l1_sd, "accuracy": accuracy, "accuracy_sd": accuracy_sd}
    return {"estimates": len(values), **errors}


def format_table(results):
    """Returns the results as a table, accuracy and in brackets L1 error."""
    targets = list(next(iter(results.values())))
    rows = [("", *targets)]
    for run, by_target in results.items():
        rows.append((run,))
        for name in ("known", EXACT, *ESTIMATORS, "none"):
            cells = [by_target[target].get(name) for target in targets]
            text = [c and f"{100 * c['accuracy']:.2f} ({c['l1']:.3f})" or "singular" for c in cells]
            rows.append((f"  {name}", *text))
    return "\n".join(align(rows))


def main():
    cli.check_new_file(FLAGS.output)
    for target in FLAGS.targets:
        evaluation.check_prior_name(target)
    loaded = {run.path.name: run.saved for run in map(finished_runs.load_run, FLAGS.runs)}
    start = time.monotonic()
    results = {
        name: {target: measure(saved, target, FLAGS.draws) for target in FLAGS.targets}
        for name, saved in loaded.items()
    }
    print("accuracy in % (L1 error of the prior that the model is told)\n")
    print(format_table(results))
    if FLAGS.output:
        first = next(iter(loaded.values()))
        sizes = {target: target_size(first, target) for target in FLAGS.targets}
        content = {"draws": FLAGS.draws, "folds": 2, "target_images": sizes, "results": results}
        provenance.write_measured(FLAGS.output, content, start)


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_list(
        "runs", None, "Finished runs, committed results or run folders.", required=True
    )
    flags.DEFINE_list(
        "targets", ["forward:50", "uniform", "backward:50"], "Priors of the target sets."
    )
    flags.DEFINE_integer("draws", 5, "Seeds of split and target set.", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
