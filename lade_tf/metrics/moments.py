"""Mean and deviation of each class's logit, what figure 3 of the LADE paper shows."""

import numpy as np


def class_logit_moments(logits, labels):
    """Mean and standard deviation of each class's logit over its own samples and over the others'.

    Args:
        logits: [samples, classes], in nats.
        labels: true classes, integers [samples], checked.

    Returns:
        (positive, negative): float64 [classes, 2] each; NaN where there is no such sample.
    """
    classes = range(logits.shape[1])
    return tuple(
        np.array([_mean_and_deviation(logits[chosen(labels, c), c]) for c in classes])
        for chosen in (np.equal, np.not_equal)
    )


def _mean_and_deviation(values):
    if len(values) == 0:
        return np.nan, np.nan
    return values.mean(dtype=np.float64), values.std(dtype=np.float64)
