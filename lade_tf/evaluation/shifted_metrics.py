"""Metrics of a classifier under any label distribution, and a table of them.

What is measured is `SavedLogits`, or anything else with `labels`, `counts`, `source_prior`,
`class_names` and `adapted_to`. Its test set may have any label distribution.
"""

import numpy as np

from lade_tf import metrics, priors
from lade_tf.evaluation.shifts import STANDARD_PRIORS, check_prior_name, draw, named_prior
from lade_tf.text_tables import align

FEWEST_DRAWN = 100  # the accuracy of a smaller drawn test set says next to nothing
HEADINGS = {"accuracy_se": "± se", "accuracy_drawn": "drawn"}


def tested_counts(saved):
    """Returns the test images of every class, [classes] int64.

    Args:
        saved: `SavedLogits`.
    """
    return np.bincount(saved.labels, minlength=len(saved.counts))


def prior_for(saved, name, reading="notebook"):
    """Returns the label distribution, [classes], that a name stands for on a test set.

    A class without a test image has probability 0, and the others what they have without it:
    nothing can be measured of it (`remarks`).

    Args:
        saved: `SavedLogits`.
        name, reading: as of `named_prior`.

    Raises:
        ValueError: as `named_prior`; for a prior file of nothing but classes without a test image.
    """
    names = None if saved.class_names is None else [str(each) for each in saved.class_names]
    per_class = tested_counts(saved)
    tested = per_class > 0
    if tested.sum() == 1:
        check_prior_name(name)
        return tested.astype(np.float64)
    if name.endswith(".json"):  # it may name all classes
        prior = named_prior(name, saved.counts, per_class, reading, names) * tested
        if not prior.any():
            raise ValueError(f"{name} must give a class with a test image a share")
        return prior if tested.all() else prior / prior.sum()
    prior = np.zeros(len(tested))
    prior[tested] = named_prior(name, saved.counts[tested], per_class[tested], reading)
    return prior


def evaluate(saved, target_prior, test_prior, draw_seed=None):
    """Measures a classifier that is adapted to one label distribution and tested under another.

    The test set weighted by `test_prior` gives the exact expectation of accuracy, Brier score and
    negative log-likelihood over all test sets of that distribution. Calibration errors are those
    of the weighted set, which are lower than a drawn set's by its noise.

    Args:
        saved: `SavedLogits`.
        target_prior: [classes], what the classifier is adapted to.
        test_prior: [classes], how the test labels are distributed.
        draw_seed: of one drawn test set, or None for none.

    Returns:
        {"accuracy", "accuracy_se" (its standard error), "accuracy_drawn" (with a `draw_seed`, on
        the drawn set; None if that has under 100 images), and what
        `lade_tf.metrics.classification_report` gives}: accuracies in 0..1, the negative
        log-likelihood in nats; None for what isn't known.

    Raises:
        ValueError: for a prior that isn't one, or a class of positive prior without a test sample.
    """
    test_prior = priors.check_prior(test_prior, len(saved.counts), name="test_prior")
    outcome = saved.adapted_to(target_prior)
    report, predictions = outcome.report(test_prior), outcome.predicted
    accuracy, error = metrics.expected_accuracy(predictions, saved.labels, test_prior)
    drawn = {}
    if draw_seed is not None:
        images = draw(saved.labels, test_prior, draw_seed)
        right = predictions[images] == saved.labels[images]
        drawn["accuracy_drawn"] = float(right.mean()) if len(images) >= FEWEST_DRAWN else None
    return {"accuracy": accuracy, "accuracy_se": error, **drawn, **{**report, "accuracy": accuracy}}


def evaluate_shifts(saved, names=None, test_name=None, reading="notebook", draw_seed=None):
    """Measures a classifier that is adapted to each of several label distributions.

    >>> print(format_table(evaluate_shifts(saved)))

    Args:
        saved: `SavedLogits`.
        names: what `named_prior` understands; None for `STANDARD_PRIORS`, the test set as it is
            and the eleven `SHIFTS`.
        test_name: how the test labels are distributed; None for as each of `names`.
        reading, draw_seed: as of `named_prior` and `evaluate`.

    Returns:
        {name: metrics as `evaluate` gives them}.

    Raises:
        ValueError: as `named_prior` and `evaluate`.
    """
    results = {}
    for name in STANDARD_PRIORS if names is None else names:
        target, test = (prior_for(saved, text, reading) for text in (name, test_name or name))
        results[name] = evaluate(saved, target, test, draw_seed)
    return results


def format_table(results, first_column="prior"):
    """Returns results as an aligned table.

    Args:
        results: {name of the row: {metric: number or None}}, the same metrics in every row.
        first_column: heading of the names.

    Returns:
        Lines of text; accuracies in percent, other metrics as they are.
    """
    percent = (*HEADINGS, "accuracy", "many", "medium", "few")
    columns = list(next(iter(results.values())))
    titles = [HEADINGS.get(name, name) for name in columns]
    rows = [
        [
            first_column,
            *(f"{t} %" if n in percent else t for n, t in zip(columns, titles, strict=True)),
        ]
    ]
    for name, values in results.items():
        cells = [_cell(values[column], column in percent) for column in columns]
        rows.append([name, *cells])
    return "\n".join(align(rows))


def _cell(value, percent):
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"
