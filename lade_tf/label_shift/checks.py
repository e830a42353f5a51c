"""Checks of the samples that the estimators are given."""

import numpy as np

from lade_tf.metrics.checks import check_class_indices, check_probabilities


def check_source(source_probs, source_labels):
    """Returns the labelled source sample as arrays: [samples, classes] and integers [samples]."""
    source_probs = _check_probs("source_probs", source_probs)
    return source_probs, check_class_indices("source_labels", source_labels, *source_probs.shape)


def check_samples(source_probs, source_labels, target_probs):
    """Returns the labelled source sample and the target probabilities as checked arrays."""
    source_probs, source_labels = check_source(source_probs, source_labels)
    target_probs = _check_probs("target_probs", target_probs)
    if target_probs.shape[1] != source_probs.shape[1]:
        raise ValueError(
            f"target_probs must have {source_probs.shape[1]} classes, as source_probs; "
            f"got {target_probs.shape[1]}"
        )
    return source_probs, source_labels, target_probs


def require_every_class(source_labels, num_classes, consequence):
    """Raises a ValueError with the `consequence` where a class has no source sample."""
    missing = np.flatnonzero(np.bincount(source_labels, minlength=num_classes) == 0)
    if missing.size:
        more = f" ({missing.size} such classes)" if missing.size > 1 else ""
        raise ValueError(
            f"source_labels must hold every class; class {missing[0]} has no sample{more}, so "
            f"{consequence}. label_shift.rlls gives a regularised estimate, in which such a class "
            "has probability 0"
        )


def _check_probs(name, probs):
    shape = np.shape(probs)
    if len(shape) > 0 and shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample; got none")
    try:
        return check_probabilities(probs)
    except ValueError as error:
        raise ValueError(f"{name} {str(error).removeprefix('probabilities ')}") from None
