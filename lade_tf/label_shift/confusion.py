"""Mean predictions, of each class and of a whole sample.

A hard prediction is one-hot at the most probable class, a soft one is the probabilities themselves.
"""

import numpy as np

from lade_tf.array_checks import check_source


def confusion_matrix(source_probs, source_labels, soft=False):
    """Class-conditional means of the predictions.

    Args:
        source_probs: Predicted probabilities [samples, classes].
        source_labels: True classes, integers [samples].
        soft: Whether to average the probabilities; otherwise the shares of the predicted classes.

    Returns:
        [predicted class, true class] float64; a column sums to 1, or is 0 for a class without
        samples.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range.
    """
    return class_means(*check_source(source_probs, source_labels), soft)


def class_means(probs, labels, soft):
    """Confusion matrix of checked arrays."""
    num_classes = probs.shape[1]
    if soft:
        return grouped_means(probs, labels, num_classes)
    pairs = labels.astype(np.int64) * num_classes + probs.argmax(axis=1)
    table = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    return (table / np.maximum(table.sum(axis=1, keepdims=True), 1)).T


def grouped_means(values, labels, num_classes):
    """Means of `values` [samples, size] over each class, [size, classes]; 0 for an empty class."""
    counts = np.bincount(labels, minlength=num_classes)
    rows_of_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    sums = np.stack([values[rows].sum(axis=0, dtype=np.float64) for rows in rows_of_class])
    return (sums / np.maximum(counts, 1)[:, np.newaxis]).T


def mean_prediction(probs, soft):
    """Mean prediction [classes] of checked probabilities [samples, classes]."""
    if soft:
        return probs.mean(axis=0, dtype=np.float64)
    return label_shares(probs.argmax(axis=1), probs.shape[1])


def label_shares(labels, num_classes):
    """Share of each class in `labels`, [classes] float64."""
    return np.bincount(labels, minlength=num_classes) / len(labels)
