"""Accuracy over a test set, of each class, and of the groups of frequent and rare classes."""

import numpy as np

from lade_tf.array_checks import (
    check_class_counts,
    check_class_indices,
    check_sample_weight,
)
from lade_tf.checks import check_integer
from lade_tf.priors import check_prior

# Training images per class that bound the shot groups (Liu et al., CVPR 2019).
MANY_ABOVE = 100
FEW_BELOW = 20
# So many test samples of a class show its own variance, even where all of them are right.
FEWEST_SAMPLES = 10


def accuracy(predictions, labels, sample_weight=None):
    """Share of samples whose predicted class is the true one (micro accuracy).

    Args:
        predictions: Predicted classes, integers [samples].
        labels: True classes, integers [samples].
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        A float in 0..1.

    Raises:
        ValueError: An argument has a wrong shape or type, a negative class or weight, no sample,
            or weights that are all zero.
    """
    labels = check_class_indices("labels", labels)
    predictions = check_class_indices("predictions", predictions, len(labels))
    weight = check_sample_weight(sample_weight, len(labels))
    return float(np.average(predictions == labels, weights=weight))


def per_class_accuracy(predictions, labels, num_classes, sample_weight=None):
    """Accuracy over the samples of each class (recall).

    Args:
        predictions: Predicted classes, integers [samples].
        labels: True classes, integers [samples].
        num_classes: Number of classes C.
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        Float64 [C], NaN for a class without a test sample (or with weight 0 only).

    Raises:
        ValueError: An argument has a wrong shape or type, a class outside 0..C-1, no sample, or
            weights that are negative or all zero.
    """
    num_classes = check_integer(num_classes, "num_classes", minimum=1)
    labels = check_class_indices("labels", labels, num_classes=num_classes)
    predictions = check_class_indices("predictions", predictions, len(labels), num_classes)
    weight = check_sample_weight(sample_weight, len(labels))
    hits = np.bincount(labels, weights=weight * (predictions == labels), minlength=num_classes)
    total = np.bincount(labels, weights=weight, minlength=num_classes)
    return np.divide(hits, total, out=np.full(num_classes, np.nan), where=total > 0)


def expected_accuracy(predictions, labels, prior):
    """Accuracy under another label distribution than the test set's, and its standard error.

    Σ p(c)·acc_c: the exact expectation over all test sets that are drawn from this one with the
    label distribution p (section 4.3 of the LADE paper draws one). The error is that of the finite
    test set, √(Σ p(c)²·acc_c·(1 − acc_c) / (n_c − 1)) with n_c samples of class c, whose square is
    unbiased.

    One sample shows no variance, and a few that are all right or all wrong show 0. Where a class of
    fewer than 10 samples is such, the pooled variance Σ p(c)²·a·(1 − a) / n_c of these small
    classes takes the place of their own, if it is larger; a is the mean accuracy, of all classes or
    of these as they weigh in the sum. It also holds how much the classes differ, so that the error
    is then rather too large: it is conservative.

    Args:
        predictions: Predicted classes, integers [samples].
        labels: True classes, integers [samples].
        prior: Label distribution, [classes].

    Returns:
        (accuracy, standard error): floats in 0..1.

    Raises:
        ValueError: As `per_class_accuracy`; `prior` isn't a prior, or is positive for a class
            without a test sample.
    """
    prior = check_prior(prior)
    class_accuracy = per_class_accuracy(predictions, labels, len(prior))
    missing = np.flatnonzero(np.isnan(class_accuracy) & (prior > 0))
    if missing.size:
        raise ValueError(
            f"labels must hold every class of positive prior; class {missing[0]} has no sample"
        )
    tested = np.flatnonzero(prior)
    prior, class_accuracy = prior[tested], class_accuracy[tested]
    # check_class_indices has made a vector of a column.
    sizes = np.bincount(np.ravel(labels))[tested]
    error = np.sqrt(_variance_of_mean(prior, class_accuracy, sizes))
    return float(prior @ class_accuracy), float(error)


def _variance_of_mean(prior, class_accuracy, sizes):
    """Returns the estimated variance of Σ p·acc, as `expected_accuracy` says.

    Args:
        prior: [classes], none of them 0.
        class_accuracy: [classes].
        sizes: [classes] samples of each class.
    """
    own = prior**2 * _bernoulli(class_accuracy) / np.maximum(sizes - 1, 1)
    small = sizes < FEWEST_SAMPLES
    if not np.any(small & (own == 0)):
        return own.sum()
    weight = prior[small] ** 2 / sizes[small]
    accuracy_of_small = weight @ class_accuracy[small] / weight.sum()
    variance = max(_bernoulli(class_accuracy.mean()), _bernoulli(accuracy_of_small))
    if variance == 0:  # all right or all wrong: as if one more sample were right and one wrong
        variance = _bernoulli(1 / (sizes.sum() + 2))
    return own[~small].sum() + max(own[small].sum(), variance * weight.sum())


def _bernoulli(probability):
    """Returns the variance of what is 1 with this probability and else 0."""
    return probability * (1 - probability)


def shot_accuracy(predictions, labels, class_counts, sample_weight=None):
    """Mean class accuracy of the many-, medium- and few-shot classes.

    Many-shot classes have more than 100 training images, few-shot classes fewer than 20, and
    medium-shot classes the rest (Liu et al., "Large-Scale Long-Tailed Recognition in an Open
    World", CVPR 2019; tables 3 and 4 of the LADE paper). Classes without a test sample are skipped.

    Args:
        predictions: Predicted classes, integers [samples].
        labels: True classes, integers [samples].
        class_counts: Training images of each class, [classes].
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        {"many", "medium", "few"}: a float in 0..1 each, None for a group without tested classes.

    Raises:
        ValueError: As `per_class_accuracy`; class_counts that are negative or not [classes].
    """
    counts = check_class_counts(class_counts)
    class_accuracy = per_class_accuracy(predictions, labels, len(counts), sample_weight)
    tested = ~np.isnan(class_accuracy)
    return {
        name: _mean_or_none(class_accuracy[group & tested])
        for name, group in shot_groups(counts).items()
    }


def shot_groups(counts):
    """Returns {"many", "medium", "few"}: which classes belong to the group, boolean [classes]."""
    many, few = counts > MANY_ABOVE, counts < FEW_BELOW
    return {"many": many, "medium": ~(many | few), "few": few}


def macro_f1(predictions, labels, sample_weight=None):
    """Mean F1 score of the classes that occur among the labels or the predictions.

    A class's F1 is the harmonic mean of its precision and recall, 2 hits / (samples of the class +
    predictions of it): 0 for a class that is predicted but has no test sample, as in scikit-learn.

    Args:
        predictions: Predicted classes, integers [samples].
        labels: True classes, integers [samples].
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        A float in 0..1.

    Raises:
        ValueError: As `accuracy`.
    """
    labels = check_class_indices("labels", labels)
    predictions = check_class_indices("predictions", predictions, len(labels))
    weight = check_sample_weight(sample_weight, len(labels))
    num_classes = 1 + int(max(labels.max(), predictions.max()))
    hits = np.bincount(labels, weights=weight * (predictions == labels), minlength=num_classes)
    occurrences = np.bincount(labels, weights=weight, minlength=num_classes)
    occurrences += np.bincount(predictions, weights=weight, minlength=num_classes)
    seen = occurrences > 0
    return float(np.mean(2 * hits[seen] / occurrences[seen]))


def _mean_or_none(values):
    return float(values.mean()) if values.size else None
