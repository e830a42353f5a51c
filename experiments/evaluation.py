"""From saved logits to metrics: what the model is told, and what the test set is like.

The test set is balanced. A test prior weights its classes, which gives the exact expectation of a
metric under that prior (method.md, "Shifted test sets"): nothing is drawn.
"""

import numpy as np
import tensorflow as tf

from lade_tf import metrics, priors
from lade_tf.checks import check_number

SHIFTS = ("forward:50", "forward:10", "uniform", "backward:10", "backward:50")


def check_prior_name(name):
    """Raises a ValueError unless `name` is one that `resolve_prior` understands."""
    direction, _, ratio = name.partition(":")
    if direction in priors.DIRECTIONS and ratio:
        check_number(ratio, f"the ratio in {name!r}", minimum=1)
    elif name not in ("uniform", "train") and not name.endswith(".json"):
        raise ValueError(
            "a prior must be uniform, train, forward:RATIO, backward:RATIO or the path of a .json "
            f"file; got {name!r}"
        )


def resolve_prior(name, class_counts, per_class):
    """Returns the prior that a flag names, [C].

    Args:
        name: "uniform", "train", "forward:R" or "backward:R" (section 4.3 of the paper, R the
            imbalance ratio) or the path of a prior.json.
        class_counts: [C] training counts.
        per_class: test images per class; the shifted sets are made of whole images.

    Raises:
        ValueError: if `name` names no prior, or a ratio that leaves a class without an image.
    """
    check_prior_name(name)
    num_classes = len(class_counts)
    if name == "uniform":
        return priors.uniform_prior(num_classes)
    if name == "train":
        # Only a model that was built with zero_count="smooth" has a count of 0.
        return priors.class_prior(class_counts, "error" if np.all(class_counts) else "smooth")
    if name.endswith(".json"):
        return priors.load_prior(name, num_classes)
    direction, _, ratio = name.partition(":")
    counts = priors.shifted_counts(per_class, class_counts, ratio, direction)
    if counts.min() == 0:
        raise ValueError(
            f"{name} leaves a class without an image: the test set has {per_class} a class, so the "
            f"ratio can be {per_class} at most"
        )
    return counts / counts.sum()


def adapt(logits, source_prior, target_prior):
    """Returns probabilities [samples, C]: softmax(f − log p_s + log p_t), equation 4."""
    with np.errstate(divide="ignore"):  # a target prior may be 0
        shift = np.log(target_prior) - np.log(source_prior)
    return tf.nn.softmax(logits + shift.astype(logits.dtype)).numpy()


def evaluate(saved, target_prior, test_prior):
    """Returns the metrics of `SavedLogits` told `target_prior` on classes as in `test_prior`."""
    probabilities = adapt(saved.logits, saved.source_prior, target_prior)
    return metrics.classification_report(
        probabilities, saved.labels, saved.counts, class_weights(saved.labels, test_prior)
    )


def class_weights(labels, test_prior):
    """Returns [samples] weights under which a test set has the label distribution `test_prior`."""
    per_class = np.bincount(labels, minlength=len(test_prior))
    if np.any((per_class == 0) & (test_prior > 0)):
        missing = int(np.flatnonzero((per_class == 0) & (test_prior > 0))[0])
        raise ValueError(f"the test set must hold every class of the test prior; none of {missing}")
    return (test_prior / np.maximum(per_class, 1))[labels] * len(labels)


def per_class(saved):
    """Returns the images per class of the balanced test set (of its smallest class)."""
    return int(np.bincount(saved.labels, minlength=len(saved.counts)).min())


def evaluate_priors(saved, names, test_name=None):
    """Returns {name: metrics}, the model told each prior and tested on it, or on `test_name`."""
    results = {}
    for name in names:
        told, test = (
            resolve_prior(text, saved.counts, per_class(saved))
            for text in (name, test_name or name)
        )
        results[name] = evaluate(saved, told, test)
    return results


def format_table(results, first_column="prior"):
    """Returns {row name: metrics} as an aligned table; accuracies in %, the rest as they are."""
    percent = ("accuracy", "many", "medium", "few")
    columns = list(next(iter(results.values())))
    rows = [[first_column, *(f"{name} %" if name in percent else name for name in columns)]]
    for name, values in results.items():
        cells = [_cell(values[column], column in percent) for column in columns]
        rows.append([name, *cells])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _cell(value, percent):
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"
